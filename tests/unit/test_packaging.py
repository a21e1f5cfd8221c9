"""The image, the compose file, the locks, the example of settings and the check of a clean clone: what they promise, held."""

import ast
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from temporalio.envconfig import ClientConfig

from cli.api_client import KEY_VARIABLE
from cli.local_stack import DATA_DIR_VARIABLE
from domain.settings import Settings, load_settings
from tests.unit import compose_file, env_example

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("domain", "activities", "workflows", "api", "cli")
HADOLINT = Path(sys.executable).with_name("hadolint")

COMPOSE = compose_file.FILE.read_text(encoding="utf-8")
ENV_EXAMPLE = env_example.FILE.read_text(encoding="utf-8")
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETTINGS = {name.upper() for name in Settings.model_fields}


# --- Dockerfile ---------------------------------------------------------------------------------------------------


def hadolint(dockerfile: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(HADOLINT), "-"], input=dockerfile, capture_output=True, text=True, timeout=60, check=False)


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """Instruction and argument of each line, continued lines joined, comments left out."""
    lines = [line for line in dockerfile.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
STAGES = [rest for word, rest in instructions(DOCKERFILE) if word == "FROM"]
FINAL = DOCKERFILE.rpartition("\nFROM ")[2]


def last(word: str) -> str:
    """The argument of an instruction in the final stage."""
    return [rest for found, rest in instructions(f"FROM {FINAL}") if found == word][-1]


def test_the_dockerfile_has_no_fault_that_hadolint_knows() -> None:
    checked = hadolint(DOCKERFILE)
    assert (checked.returncode, checked.stdout) == (0, "")


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [("python:3.11.15-slim-bookworm", "python:latest", "DL3007"), ("USER 10001:10001", "USER root", "DL3002")],
)
def test_a_fault_in_the_dockerfile_would_be_found(before: str, after: str, rule: str) -> None:
    assert rule in hadolint(DOCKERFILE.replace(before, after)).stdout


def test_the_image_runs_the_python_that_the_tests_run() -> None:
    images = {stage.partition(" ")[0] for stage in STAGES}
    assert len(STAGES) == 2
    assert images == {"python:3.11.15-slim-bookworm"}
    assert PYPROJECT["tool"]["pyright"]["pythonVersion"] == "3.11"


def test_the_image_runs_as_nobody_special_and_stops_when_asked() -> None:
    uid, _, gid = last("USER").partition(":")
    assert uid == gid == "10001"
    assert json.loads(last("ENTRYPOINT")) == ["infrasage"]
    assert last("STOPSIGNAL") == "SIGTERM"
    assert last("HEALTHCHECK").endswith('CMD ["python", "/opt/infrasage/health.py", "api"]')


def fetching(dockerfile: str) -> dict[str, bool]:
    """Each command that may fetch a distribution, and whether it cannot fetch another one than was locked."""
    commands = [part.strip() for word, rest in instructions(dockerfile) if word == "RUN" for part in rest.split("&&")]
    fetchers = [command for command in commands if "pip" in command.split() and {"install", "wheel"} & set(command.split())]
    return {command: bool({"--require-hashes", "--no-index"} & set(command.split())) for command in fetchers}


def test_whatever_the_build_fetches_is_pinned_by_hash() -> None:
    assert list(fetching(DOCKERFILE).values()) == [True] * 4
    assert list(fetching(DOCKERFILE.replace("--require-hashes ", "")).values()) == [False, False, True, True]


def ignored(path: str, rules: list[str]) -> bool:
    """Whether `.dockerignore` keeps a path out of the build: the last rule that is about it, or about a folder above, decides."""
    out = False
    for rule in rules:
        pattern = rule.lstrip("!")
        if pattern == "*" or path == pattern or path.startswith(f"{pattern}/"):
            out = not rule.startswith("!")
    return out


def test_the_build_sees_what_it_copies_and_no_secret() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    sources = [
        source
        for word, rest in instructions(DOCKERFILE)
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]
    assert set(ROOMS) <= set(sources)
    assert [source for source in sources if not (ROOT / source).exists() or ignored(source, rules)] == []
    kept_out = (
        ".env",
        ".infrasage/operator.key",
        ".git/config",
        "tests/unit/test_packaging.py",
        "runbooks/scale-out-payment-api.yaml",
    )
    assert [path for path in kept_out if not ignored(path, rules)] == []


# --- locks and wheel ----------------------------------------------------------------------------------------------


def locked(file: str) -> dict[str, str]:
    """Distribution → version. Every one has a hash."""
    entries = re.split(r"\n(?=[a-z0-9])", (ROOT / file).read_text(encoding="utf-8").strip())
    found = {match[1]: match[2] for entry in entries if (match := re.match(r"([A-Za-z0-9._-]+)==(\S+)", entry))}
    assert found
    assert [entry for entry in entries if "==" in entry and "--hash=sha256:" not in entry] == []
    return found


def distribution(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement)[0].lower().replace("_", "-").replace(".", "-")


@pytest.mark.parametrize("file", ["requirements-runtime.lock", "docker/requirements-build.lock"])
def test_the_image_gets_the_versions_that_are_tested(file: str) -> None:
    tested = locked("requirements.lock")
    assert {name: (version, tested.get(name)) for name, version in locked(file).items() if tested.get(name) != version} == {}
    assert "://" not in (ROOT / file).read_text(encoding="utf-8")


def test_the_image_gets_every_library_of_the_product_and_no_tool() -> None:
    wanted = {distribution(requirement) for requirement in PYPROJECT["project"]["dependencies"]}
    tools = {distribution(requirement) for requirement in PYPROJECT["project"]["optional-dependencies"]["dev"]}
    runtime = set(locked("requirements-runtime.lock"))
    assert wanted - runtime == set()
    assert runtime & (tools - wanted) == set()


def imports_of_the_product() -> Iterator[str]:
    for file in (file for room in ROOMS for file in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0]


def test_whatever_the_product_imports_is_in_the_image() -> None:
    provided = importlib.metadata.packages_distributions()
    runtime = set(locked("requirements-runtime.lock"))
    foreign = set(imports_of_the_product()) - sys.stdlib_module_names - set(ROOMS)
    missing = {name for name in foreign if not {distribution(found) for found in provided.get(name, ())} & runtime}
    assert {"temporalio", "fastapi", "chdb"} & foreign
    assert missing == set()


def test_the_wheel_holds_every_file_of_the_packages(tmp_path: Path) -> None:
    source, wheels = tmp_path / "source", tmp_path / "wheels"
    source.mkdir()
    for name in (*ROOMS, "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    for folder in list(source.rglob("__pycache__")):
        shutil.rmtree(folder)
    files = {str(file.relative_to(source)) for room in ROOMS for file in (source / room).rglob("*") if file.is_file()}
    built = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--no-deps",
            "--no-build-isolation",
            "--no-index",
            "-q",
            "-w",
            str(wheels),
            str(source),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    with zipfile.ZipFile(*wheels.glob("*.whl")) as wheel:
        names = set(wheel.namelist())
        (entry_points,) = [wheel.read(name).decode() for name in names if name.endswith("entry_points.txt")]
    assert files - names == set()
    assert "infrasage = cli.main:main" in entry_points


# --- compose ------------------------------------------------------------------------------------------------------


def test_the_compose_file_keeps_every_rule() -> None:
    assert compose_file.faults(COMPOSE) == []


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("temporalio/ui:2.53.3", "temporalio/ui:latest", "temporal-ui needs an image of a version"),
        ("temporalio/ui:2.53.3", "temporalio/ui", "temporal-ui needs an image of a version"),
        ('user: "999:999"', 'user: "0:0"', "postgresql runs as root"),
        ('user: "999:999"', "", "postgresql runs as root"),
        ('user: "999:999"', 'user: "999:999"\n    privileged: true', "postgresql has rights beyond a container's"),
        ("127.0.0.1:7233:7233", "7233:7233", "temporal publishes 7233:7233"),
        ("${POSTGRES_PASSWORD:?must be set to a password}", "temporal", "postgresql has a secret in the file: POSTGRES_PASSWORD"),
        ("${CLICKHOUSE_PASSWORD:?", "${CLICKHOUSE_PASSWORD:-", "api has a secret in the file: CLICKHOUSE_PASSWORD"),
        (
            "condition: service_healthy",
            "condition: service_started",
            "temporal-ui waits for temporal, but not until service_healthy",
        ),
        ("healthcheck:", "x-healthcheck:", "worker has no health check"),
        ("restart: unless-stopped", 'restart: "no"', "clickhouse is not restarted"),
        ("- no-new-privileges:true", "- apparmor:unconfined", "clickhouse may gain privileges"),
        ("  clickhouse-data:\n", "  clickhouse-data:\n  spare:\n", "the volume spare is declared and not mounted"),
        ("- clickhouse-data:", "- clickhouse:", "the volume clickhouse is mounted and not declared"),
        ("- ./runbooks:", "- /var/run/docker.sock:", "worker can command Docker"),
    ],
)
def test_a_rule_that_the_compose_file_breaks_is_named(before: str, after: str, fault: str) -> None:
    assert fault in compose_file.faults(COMPOSE.replace(before, after))


@pytest.mark.timeout(400)
def test_docker_compose_reads_the_file_and_names_each_variable_that_is_missing() -> None:
    given = dict.fromkeys(compose_file.REQUIRED, "given")
    read = compose_file.config(given, compose_file.FILE)
    assert set(read["services"]) == set(compose_file.services(COMPOSE))
    assert {name for name, kind in compose_file.references(COMPOSE).items() if kind == "?"} == set(compose_file.REQUIRED)
    for name in compose_file.REQUIRED:
        for value in ({}, {name: ""}):
            with pytest.raises(compose_file.Refused, match="must be"):
                compose_file.config({**{other: "x" for other in given if other != name}, **value}, compose_file.FILE)


ELSEWHERE = {
    "KUBECONFIG": "a file of the site, mounted by a second compose file",
    "RUNBOOK_SHELL_HOSTS": "a file of the site, mounted by a second compose file",
    "CLICKHOUSE_TLS_ENABLED": "ClickHouse is on the same network",
    "CLICKHOUSE_TLS_CA_CERT": "ClickHouse is on the same network",
    "SLACK_APP_TOKEN": "refused in this version",
    "INFRASAGE_APPROVERS": "refused in this version",
    "INFRASAGE_ROLES": "refused in this version",
}
"""Settings that the compose file does not hand over, and why."""


def test_every_setting_reaches_the_containers_and_nothing_that_is_none() -> None:
    for service in compose_file.infrasage(COMPOSE).values():
        given = set(service["environment"])
        assert {name for name in given - SETTINGS if not name.startswith("TEMPORAL_")} == set()
        assert SETTINGS - given == set(ELSEWHERE)
        assert {"TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE"} <= given


def test_what_compose_hands_over_when_nothing_else_is_set_can_be_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    keys = json.dumps([{"name": "a", "role": "admin", "scope": "full", "key_sha256": "ab" * 32}])
    given = {**dict.fromkeys(compose_file.REQUIRED, "https://given.example"), "INFRASAGE_API_KEYS": keys}
    for name, value in compose_file.config(given, compose_file.FILE)["services"]["worker"]["environment"].items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert (settings.clickhouse_host, settings.infrasage_api_keys[0].name) == ("clickhouse", "a")
    assert settings.model_fields_set & {"slack_bot_token", "slack_api_url", "incident_max_open_days"} == set()


# --- .env.example -------------------------------------------------------------------------------------------------


def test_the_example_names_every_setting_and_nothing_that_nobody_reads() -> None:
    names = [variable.name for variable in env_example.read(ENV_EXAMPLE)]
    known = SETTINGS | set(compose_file.references(COMPOSE)) | {KEY_VARIABLE, DATA_DIR_VARIABLE}
    assert len(names) == len(set(names))
    assert known - set(names) == set()
    assert {name for name in set(names) - known if not name.startswith("TEMPORAL_")} == set()


def temporal_variables() -> list[str]:
    return [variable.name for variable in env_example.read(ENV_EXAMPLE) if variable.name.startswith("TEMPORAL_")]


@cache
def temporal_client(name: str, value: str) -> str:
    others = {"TEMPORAL_TLS_CLIENT_CERT_PATH": "/c.pem", "TEMPORAL_TLS_CLIENT_KEY_PATH": "/k.pem"} if "CLIENT" in name else {}
    try:
        return repr(ClientConfig.load_client_connect_config(disable_file=True, override_env_vars={**others, name: value}))
    except (OSError, RuntimeError) as error:
        return str(error)


@pytest.mark.parametrize("name", temporal_variables())
def test_the_sdk_reads_every_temporal_variable_of_the_example(name: str) -> None:
    value = "true" if name == "TEMPORAL_TLS" else "/nonexistent/canary.pem"
    assert temporal_client(name, value) != temporal_client("TEMPORAL_CANARY", value)


def test_the_example_sets_nothing_and_shows_the_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.upper() in SETTINGS:
            monkeypatch.delenv(name)
    bare = load_settings()
    (tmp_path / ".env").write_text(ENV_EXAMPLE, encoding="utf-8")
    assert load_settings().model_fields_set == set()
    (tmp_path / ".env").write_text(re.sub(r"(?m)^#(?=[A-Z])", "", ENV_EXAMPLE), encoding="utf-8")
    shown = load_settings()
    assert shown.model_fields_set > {"slack_api_url", "severity_bands", "clickhouse_user"}
    assert shown == bare


def test_a_default_that_is_another_in_the_example_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    bare = load_settings()
    (tmp_path / ".env").write_text("INCIDENT_MAX_OPEN_DAYS=31\n")
    assert load_settings() != bare


def test_a_line_of_the_example_that_sets_something_is_refused() -> None:
    with pytest.raises(ValueError, match="line 1 is not commented out"):
        env_example.read("SLACK_CHANNEL=#ops\n")
    with pytest.raises(ValueError, match="SLACK_CHANNEL needs one line of comment, not 0"):
        env_example.read("#SLACK_CHANNEL=\n")


# --- the check of a clean clone -----------------------------------------------------------------------------------

CI = ROOT / ".ci" / "run"
TOOLS = ("ruff", "basedpyright", "lint-imports", "hadolint")


def clone(folder: Path, *, failing: str) -> subprocess.CompletedProcess[str]:
    """Run `.ci/run` in a checkout whose programs only write down that they ran; `failing` fails."""
    (folder / ".ci").mkdir()
    shutil.copy(CI, folder / ".ci" / "run")
    told = f'echo "$(basename "$0") $*" >> {folder}/told; case "$(basename "$0")" in {failing}) exit 3;; esac'
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / "bin").mkdir()
    for program in (*(folder / ".venv" / "bin" / tool for tool in TOOLS), folder / "bin" / "make"):
        program.write_text(f"#!/bin/sh\n{told}\n")
        program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    return subprocess.run(
        [str(folder / ".ci" / "run")], env=environment, cwd="/", capture_output=True, text=True, timeout=60, check=False
    )


def test_the_check_runs_the_fast_ones_first_and_make_test_last(tmp_path: Path) -> None:
    done = clone(tmp_path, failing="none")
    told = (tmp_path / "told").read_text().splitlines()
    assert done.returncode == 0, done.stderr
    assert told[0] == "make install"
    assert told[-1] == "make test"
    assert [line.split()[0] for line in told[1:-1]] == ["ruff", "ruff", "basedpyright", "lint-imports", "hadolint"]
    assert "everything passed" in done.stdout


@pytest.mark.parametrize("failing", ["make", "ruff", "hadolint"])
def test_the_check_ends_with_the_first_failure(tmp_path: Path, failing: str) -> None:
    done = clone(tmp_path, failing=failing)
    assert done.returncode != 0
    assert "FAILED" in done.stderr
    assert (tmp_path / "told").read_text().splitlines()[-1].startswith(failing)
