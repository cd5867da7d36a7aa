"""Every text of an error that our packages make, as it stands in their source."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptostore import errors

#: Where errors are made; the contract's command is one that users run, too.
PACKAGES: Final = ("cryptostore", "cryptostore_sqlite", "cryptostore_postgres", "cryptostore_contract")

#: What stands for a part that is filled in when the error is made.
FILLED_IN: Final = "…"

#: The errors whose text is put together from arguments that are no text: what it is made of.
_SENTENCES: Final[Mapping[str, str]] = {"InvalidRecord": "{0}.{1} {2}"}

#: What holds the text of an error until it is made: the error, and which argument is the text, with names in braces.
_HOLDERS: Final[Mapping[str, tuple[str, int]]] = {"Reason": ("ConfigurationError", 1)}


#: A class with very many texts has groups of them, each named after what it is about: that of the longest prefix that
#: a module's name has.
GROUPS: Final[Mapping[str, Mapping[str, str]]] = {
    "ConfigurationError": {
        "cryptostore": "client",
        "cryptostore.cli": "commands",
        "cryptostore.cli.passphrases": "secrets",
        "cryptostore.cli.pickle_keys": "secrets",
        "cryptostore.nio.importing": "nio",
        "cryptostore.nio.store_paths": "nio",
        "cryptostore.nio.trust": "identity",
        "cryptostore.nio.unmodified": "nio",
        "cryptostore.nio.wholeness": "nio",
        "cryptostore.plugins": "url",
        "cryptostore.store": "accounts",
        "cryptostore.store.pickle_key_sources": "secrets",
        "cryptostore.store.pickle_keys": "secrets",
        "cryptostore.store.private_files": "secrets",
        "cryptostore.store.secret_commands": "secrets",
        "cryptostore.store.system_keyring": "secrets",
        "cryptostore_contract": "commands",
        "cryptostore_postgres": "postgresql",
        "cryptostore_postgres.options": "url",
        "cryptostore_sqlite": "sqlite",
        "cryptostore_sqlite.given": "url",
        "cryptostore_sqlite.plugin": "url",
    }
}


@dataclass(frozen=True)
class Place:
    """Where an error is made. It has no texts where all of it is what somebody else said."""

    error: str
    module: str
    line: int
    texts: tuple[str, ...]

    @property
    def group(self) -> str:
        """The name of its group of texts, empty where its class has none."""
        groups = GROUPS.get(self.error, {})
        fitting = [prefix for prefix in groups if f"{self.module}.".startswith(f"{prefix}.")]
        return groups[max(fitting, key=len)] if fitting else ""


def error_names() -> list[str]:
    """The names of the classes of the tree, in the order in which they are defined."""
    found = [each for each in vars(errors).values() if isinstance(each, type)]
    return [each.__name__ for each in found if issubclass(each, errors.CryptoStoreError)]


@functools.cache
def places() -> tuple[Place, ...]:
    """Every place in our packages where an error of the tree is made."""
    modules = {name: _Module(name, path) for package in PACKAGES for name, path in _files_of(package)}
    made = re.compile("|".join([*error_names(), *_HOLDERS]))
    telling = [module for module in modules.values() if made.search(module.source)]
    return tuple(place for module in telling for place in module.places(modules))


def texts_of(error: str, group: str = "") -> list[str]:
    """The texts of a class, or of a group of it, each once and in alphabetical order."""
    found = {text for place in places() if (place.error, place.group) == (error, group) for text in place.texts}
    return sorted(found, key=lambda text: (text.lstrip(f"{FILLED_IN} '`").lower(), text))


def _files_of(package: str) -> Iterator[tuple[str, Path]]:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise LookupError(f"{package} is not installed, and the texts of its errors belong on the page")
    folder = Path(found.origin).parent
    # What a case of the contract raises is for the suite alone.
    for path in (path for path in sorted(folder.rglob("*.py")) if path.parent.name != "cases"):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        yield ".".join(parts).removesuffix(".__init__"), path


#: A module, and the classes and functions in it that a statement stands in.
_Scope = tuple[ast.AST, ...]


class _Module:
    """One module's source, and what its names stand for."""

    def __init__(self, name: str, path: Path) -> None:
        self.name: Final = name
        self.source: Final = path.read_text("utf-8")
        self._package: Final = name if path.name == "__init__.py" else name.rpartition(".")[0]

    @functools.cached_property
    def _tree(self) -> ast.Module:
        return ast.parse(self.source)

    @functools.cached_property
    def _imported(self) -> dict[str, tuple[str, str]]:
        return dict(_imports(self._tree, self._package))

    @functools.cached_property
    def _functions(self) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
        return {node.name: node for node in ast.walk(self._tree) if isinstance(node, _FUNCTIONS)}

    def places(self, modules: Mapping[str, _Module]) -> Iterator[Place]:
        known = set(error_names())
        for scope, call in _calls_in(self._tree, (self._tree,)):
            name = _class_of(call, scope) or ""
            if name in _HOLDERS:
                error, position = _HOLDERS[name]
                held = self._read(call.args[position], scope, modules, 0)
                yield Place(error, self.name, call.lineno, tuple(re.sub(r"{\w+}", FILLED_IN, text) for text in held))
            elif name in known:
                texts = dict.fromkeys(self._texts_of(name, call, scope, modules))
                yield Place(name, self.name, call.lineno, tuple(texts))

    def _texts_of(self, error: str, call: ast.Call, scope: _Scope, modules: Mapping[str, _Module]) -> Iterator[str]:
        if not call.args:
            return
        if error in _SENTENCES:
            values = [next(self._read(each, scope, modules, 0), FILLED_IN) for each in call.args]
            # Where even the reason is filled in, the text says nothing.
            if values[-1] != FILLED_IN:
                yield _SENTENCES[error].format(*values)
            return
        found = self._read(call.args[0], scope, modules, 0)
        # With less, all that is said is filled in.
        yield from (text for text in found if len(re.findall(r"\w+", text)) >= _FEWEST_WORDS)

    def _read(self, node: ast.expr, scope: _Scope, modules: Mapping[str, _Module], depth: int) -> Iterator[str]:
        """The texts that an expression can be, as far as the source says."""
        read = functools.partial(self._read, scope=scope, modules=modules, depth=depth + 1)
        if depth > _DEEPEST:
            return
        match node:
            case ast.Constant(value=str(text)):
                yield text
            case ast.JoinedStr(values=parts):
                filled = "".join(next(read(part), FILLED_IN) for part in parts)
                yield filled.replace(2 * FILLED_IN, FILLED_IN)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                ends = list(read(right)) or [FILLED_IN]
                yield from (start + end for start in list(read(left)) or [FILLED_IN] for end in ends)
            case ast.Call(func=ast.Name(id="list" | "str"), args=[inner]):
                yield from read(inner)
            case ast.Call(func=ast.Name(id=name)):
                yield from self.returned_by(name, modules, depth + 1)
            case _:
                for choice in _choices(node, scope):
                    yield from read(choice)

    def returned_by(self, name: str, modules: Mapping[str, _Module], depth: int) -> Iterator[str]:
        """The texts that a function of this name can return or yield, wherever it is defined."""
        if function := self._functions.get(name):
            for node in ast.walk(function):
                if isinstance(node, ast.Return | ast.Yield | ast.YieldFrom) and node.value is not None:
                    yield from self._read(node.value, (self._tree, function), modules, depth)
        module, imported = self._imported.get(name, ("", ""))
        if module in modules:
            yield from modules[module].returned_by(imported, modules, depth)


_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)
_DEEPEST: Final = 8
_FEWEST_WORDS: Final = 3


def _imports(tree: ast.Module, package: str) -> Iterator[tuple[str, tuple[str, str]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((alias.asname or alias.name, (module, alias.name)) for alias in node.names)


def _calls_in(node: ast.AST, scope: _Scope) -> Iterator[tuple[_Scope, ast.Call]]:
    """Every call, with the module, classes and functions that it stands in."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            yield scope, child
        inner = (*scope, child) if isinstance(child, (*_FUNCTIONS, ast.ClassDef)) else scope
        yield from _calls_in(child, inner)


def _class_of(call: ast.Call, scope: _Scope) -> str | None:
    """The name of the class that is called; `cls(…)` in one of its own methods is it, too."""
    match call.func:
        case ast.Name(id="cls"):
            return next((each.name for each in scope if isinstance(each, ast.ClassDef)), None)
        case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="errors"), attr=name):
            return name
    return None


def _choices(node: ast.expr, scope: _Scope) -> Iterator[ast.expr]:
    """What an expression is one of."""
    match node:
        case ast.BoolOp(values=choices):
            yield from choices
        case ast.IfExp(body=one, orelse=other):
            yield from (one, other)
        case ast.Name(id=name):
            yield from _values_of(name, scope)
        # A part of a text is filled in, unless it is a constant.
        case ast.FormattedValue(value=ast.Name(id=name)) if name.isupper():
            yield from _values_of(name, scope)


def _values_of(name: str, scope: _Scope) -> list[ast.expr]:
    """What is assigned to a name in the innermost place that assigns to it."""
    for place in reversed(scope):
        if found := [value for node in ast.walk(place) for value in _assigned_by(node, name)]:
            return found
    return []


def _assigned_by(node: ast.AST, name: str) -> Iterator[ast.expr]:
    match node:
        case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
            yield value
        case ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value) if target == name:
            yield value
        case ast.NamedExpr(target=ast.Name(id=target), value=value) if target == name:
            yield value
        case ast.For(target=ast.Name(id=target), iter=value) if target == name:
            yield value
        case ast.comprehension(target=ast.Name(id=target), iter=value) if target == name:
            yield value
