"""The files that operators copy: what they name is there, and the tools that read them accept them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from cryptostore.cli.app import build_app

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "docs" / "deploy"
CONTAINERFILE: Final = (FOLDER / "Containerfile").read_text()
UNIT: Final = (FOLDER / "bot.service").read_text()
COMPOSE: Final = yaml.safe_load((FOLDER / "compose.yaml").read_text())
MANIFESTS: Final = [
    document for file in sorted(FOLDER.glob("kubernetes*.yaml")) for document in yaml.safe_load_all(file.read_text())
]

#: The oldest and the newest minor version of Kubernetes whose schemas are asked.
KUBERNETES: Final = ("1.29", "1.37")
#: What `systemd-analyze security` says of a service that may do anything is 9.6, in tenths here.
MOST_EXPOSED: Final = 15


def needed(program: str) -> str:
    """The path of a program, without which a test says that it verified nothing."""
    beside = Path(sys.executable).with_name(program)
    found = str(beside) if beside.exists() else shutil.which(program)
    if found is None:
        pytest.skip(f"not verified: {program} is not installed")
    return found


def commands_of(page: str) -> str:
    """What a page has its readers type."""
    return "".join(re.findall(r"```sh\n(.*?)```", (FOLDER.parent / page).read_text(), re.DOTALL))


def values(document: Any, name: str) -> Iterator[Any]:
    """Every value under this name, at any depth."""
    if isinstance(document, dict):
        for key, value in document.items():
            if key == name:
                yield value
            yield from values(value, name)
    elif isinstance(document, list):
        for value in document:
            yield from values(value, name)


def test_each_file_is_shown_on_a_page() -> None:
    pages = "".join(page.read_text() for page in FOLDER.parent.glob("*.md"))
    included = set(re.findall(r"^```{literalinclude} deploy/(\S+)$", pages, re.MULTILINE))
    # Some are too long to be read on a page, and are linked.
    linked = set(re.findall(r"\]\(deploy/([^)#]+)\)", pages))
    assert included | linked == {str(file.relative_to(FOLDER)) for file in FOLDER.rglob("*") if file.is_file()}


def test_the_container_installs_what_is_there() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+)$", CONTAINERFILE, re.MULTILINE)
    sources = [word for line in copied for word in line.split()[:-1]]
    assert [source for source in sources if not (ROOT / source).exists()] == []
    installed = re.findall(r"/source(?:/\S+)?(?= |$)", CONTAINERFILE.partition("pip install")[2].partition("\n")[0])
    assert len(installed) == 3
    assert all((ROOT / folder.removeprefix("/source").lstrip("/") / "pyproject.toml").is_file() for folder in installed)


def test_the_container_file_is_in_order() -> None:
    done = subprocess.run([needed("hadolint"), FOLDER / "Containerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_compose_file_is_in_order() -> None:
    needed("check-jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, FOLDER / "compose.yaml"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_the_manifests(version: str) -> None:
    if util.find_spec("kubernetes_validate") is None:
        pytest.skip("not verified: kubernetes-validate is not installed")
    validate = pytest.importorskip("kubernetes_validate").validate
    assert len(MANIFESTS) == 3
    for manifest in MANIFESTS:
        validate(manifest, version, strict=True)


@pytest.mark.parametrize(
    "manifest", MANIFESTS, ids=lambda manifest: f"{manifest['kind']}-{manifest['metadata']['name']}"
)
def test_what_a_manifest_mounts_is_one_of_its_volumes(manifest: Any) -> None:
    mounted = {mount["name"] for mounts in values(manifest, "volumeMounts") for mount in mounts}
    volumes = {volume["name"] for given in values(manifest, "volumes") for volume in given}
    assert mounted == volumes
    users = set(values(manifest, "runAsUser"))
    assert users <= {int(re.findall(r"^USER (\d+):\d+$", CONTAINERFILE, re.MULTILINE)[0])}


def test_each_pod_that_opens_an_account_is_gone_before_the_next_one_starts() -> None:
    [deployment] = [manifest for manifest in MANIFESTS if manifest["kind"] == "Deployment"]
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def test_each_command_of_ours_is_one_that_there_is() -> None:
    known = {
        command.name or command.callback.__name__.replace("_", "-")
        for command in build_app().registered_commands
        if command.callback
    }
    called = [*values(COMPOSE, "test"), *(probe["command"] for m in MANIFESTS for probe in values(m, "exec"))]
    ours = [words[words.index("cryptostore") + 1] for words in called if "cryptostore" in words]
    assert len(ours) == 2
    assert set(ours) <= known


def test_the_mode_of_the_pickle_key_lets_the_bot_in_alone() -> None:
    modes = [mode for manifest in MANIFESTS for mode in values(manifest, "defaultMode")]
    assert modes == [0o440]
    assert [group for manifest in MANIFESTS[1:2] for group in values(manifest, "fsGroup")] == [10001]


def test_systemd_does_not_restart_what_no_restart_mends() -> None:
    bot = (ROOT / "examples" / "bot.py").read_text()
    codes = dict(re.findall(r"^(MISCONFIGURED|TAKEN_OVER|TRY_AGAIN): Final = (\d+)$", bot, re.MULTILINE))
    assert settings_of_unit()["RestartPreventExitStatus"].split() == [codes["MISCONFIGURED"], codes["TAKEN_OVER"]]
    assert codes["TRY_AGAIN"] == "1"


def settings_of_unit() -> dict[str, str]:
    """The last value of each setting."""
    return dict(re.findall(r"^(\w+)=(.*)$", UNIT, re.MULTILINE))


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    analyze = needed("systemd-analyze")
    unit = tmp_path / "bot.service"
    # A program that is there.
    unit.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT, flags=re.MULTILINE))
    done = subprocess.run([analyze, "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    # Of the system's own units something may be said, too.
    assert [line for line in done.stderr.splitlines() if "bot.service" in line] == []
    limit = f"--threshold={MOST_EXPOSED}"
    done = subprocess.run(
        [analyze, "security", "--offline=true", limit, unit], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-500:]


def test_the_environment_file_means_the_same_to_all_that_read_it() -> None:
    lines = [line for line in (FOLDER / "bot.env").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Z_]+=[^$'\"\\` #]+", line)] == []
    assert all(shlex.split(line) == [line] for line in lines)


def test_each_file_that_a_configuration_names_is_made_on_its_page() -> None:
    for secret in COMPOSE["secrets"].values():
        assert re.search(rf"(> |--file ){secret['file']}\b", commands_of("containers.md")), secret
    named = re.findall(r"(?<==)/[\w./-]+", (FOLDER / "bot.env").read_text())
    assert named
    for path in [*named, "/etc/bot/bot.env", "/etc/bot/pickle-key", "/opt/bot/bot.py"]:
        place = path if path in commands_of("systemd.md") else f"{Path(path).parent}/\n"
        assert place in commands_of("systemd.md"), path


def test_what_a_manifest_needs_is_made_on_the_page_and_the_manifest_applied() -> None:
    commands = commands_of("kubernetes.md")
    for file in FOLDER.glob("kubernetes*.yaml"):
        assert f"kubectl apply --filename=docs/deploy/{file.name}\n" in commands
    secrets = {
        each.get("name", each.get("secretName"))
        for name in ("secret", "secretRef", "secretKeyRef")
        for each in values(MANIFESTS, name)
    }
    assert secrets == set(re.findall(r"create secret generic (\S+) ", commands))
    assert {each["name"] for each in values(MANIFESTS, "configMap")} == set(
        re.findall(r"create configmap (\S+) ", commands)
    )


def test_systemd_run_is_given_no_specifier() -> None:
    """It takes them literally, other than a unit: only variables in the command's arguments are filled in."""
    [command] = re.findall(r"^systemd-run (?:.*\\\n)*.*$", commands_of("systemd.md"), re.MULTILINE)
    assert "%" not in command
    assert "'${CREDENTIALS_DIRECTORY}/pickle-key'" in command
