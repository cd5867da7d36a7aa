#!/bin/sh
# pluggy: a plugin's keyword-only argument never gets the caller's value. With a default, the default is used
# and nothing is said.
#
# Versions: pluggy 1.7.0.
#
# Guess, written before the run: hooks are called with keywords only, so a hook implementation "def
#   open_store(self, url, *, read_only=True)" gets the read_only that the caller gives. Or register() or
#   check_pending() refuses the signature.
#
# Seen: the caller says read_only=False, the plugin is registered and validated without a word, and sees True.
#   Without a default the plugin is registered as well, and the call is a TypeError. "**options" stays empty.
#   Without the star: the caller's value.
#
# Why the guess is wrong: pluggy asks a function for its positional parameters (co_varnames up to co_argcount)
#   and passes those, by position. Keyword-only ones are not in that list, so they are neither checked against
#   the hook's specification nor passed. That implementations may take fewer arguments than the specification
#   has is a feature; it hides the slip.
#
# For somebody who stores keys: the tidy signature is the wrong one. A backend whose "*, read_only=True" or "*,
#   timeout=30" is never filled in works in every test that uses the default. Compare inspect.signature of each
#   implementation with the specification when a plugin is loaded, and refuse keyword-only arguments there.
#   (Defaults of ordinary arguments: depends on pluggy's version.)
. "$(dirname "$0")/common.sh"
install pluggy==1.7.0
"$python" - <<'PY'
import pluggy

hookspec, hookimpl = pluggy.HookspecMarker("store"), pluggy.HookimplMarker("store")


class Specification:
    @hookspec(firstresult=True)
    def open_store(self, url, read_only): ...


class Plain:
    @hookimpl
    def open_store(self, url, read_only):
        return url, read_only


class KeywordOnly:
    @hookimpl
    def open_store(self, url, *, read_only=True):
        return url, read_only


class KeywordOnlyWithoutDefault:
    @hookimpl
    def open_store(self, url, *, read_only):
        return url, read_only


class Catching:
    @hookimpl
    def open_store(self, url, **options):
        return url, options


def call(plugin):
    manager = pluggy.PluginManager("store")
    manager.add_hookspecs(Specification)
    manager.register(plugin)
    manager.check_pending()  # finds misspelt hooks; this is not one
    return manager.hook.open_store(url="sqlite:///keys.db", read_only=False)


assert call(Plain()) == ("sqlite:///keys.db", False)
assert call(KeywordOnly()) == ("sqlite:///keys.db", True), "the caller said False"
assert call(Catching()) == ("sqlite:///keys.db", {})
try:
    call(KeywordOnlyWithoutDefault())
except TypeError as error:
    assert "missing 1 required keyword-only argument" in str(error)
else:
    raise AssertionError("the call should fail")
print("the caller said read_only=False, the plugin got", call(KeywordOnly())[1])
PY
