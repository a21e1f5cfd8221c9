"""The command itself, where no InfraSage is needed: files, keys, addresses, and how it fails."""

import json
import os
import stat
from pathlib import Path

import pytest

from cli import environment, local_stack
from cli.api_client import open_api
from cli.embedded import EmbeddedStackError, free_port
from cli.local_stack import RunningStack
from cli.main import run
from cli.output import Failure
from domain.access import Role, generate_key
from tests.e2e.harness import REPOSITORY, infrasage, infrasage_here

FAULTY = """
name: faulty
steps:
  - type: kubernetes
    action: scale
    namespace: production
    deployment: payment-api
  - type: slack
    message: hello
    colour: red
"""


def test_every_fault_of_a_runbook_has_its_file_its_place_and_the_reason(tmp_path: Path) -> None:
    (tmp_path / "faulty.yaml").write_text(FAULTY)
    (tmp_path / "broken.json").write_text("{")

    outcome = infrasage_here("runbooks", "validate", str(tmp_path), "--json", cwd=tmp_path)

    assert outcome.code == 1
    faults = {(Path(fault["file"]).name, fault["path"]): fault["reason"] for fault in outcome.json["faults"]}
    assert faults["faulty.yaml", "steps[0].replicas"] == "is required by the action scale"
    assert faults["faulty.yaml", "steps[1].colour"].startswith("is not a key that is known here")
    assert faults["broken.json", ""].startswith("is not JSON")
    assert outcome.err == "Error: 2 of 2 files cannot be used (3 faults).\n"
    table = infrasage_here("runbooks", "validate", str(tmp_path), cwd=tmp_path)
    assert "steps[0].replicas" in table.out


def test_the_samples_are_valid_and_an_empty_folder_is_not(tmp_path: Path) -> None:
    outcome = infrasage_here("runbooks", "validate", str(REPOSITORY / "runbooks"), cwd=tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert "ok  scale-out-payment-api" in outcome.out
    empty = infrasage_here("runbooks", "validate", str(tmp_path), cwd=tmp_path)
    assert empty.code == 1 and "holds no runbook" in empty.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("frobnicate",), "No such command 'frobnicate'"),
        (("show",), "Missing argument 'ID'"),
        (("reject", "anom-1"), "Missing option '--reason'"),
        (("incidents", "--status", "bad"), "'bad' is not one of"),
        (("settle", "anom-1", "maybe"), "'maybe' is not one of"),
    ],
)
def test_a_command_that_is_typed_wrongly_is_told_in_one_line(arguments: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    outcome = infrasage_here(*arguments, cwd=tmp_path)
    assert (outcome.code, outcome.out) == (2, "")
    assert sentence in outcome.err
    assert outcome.err.startswith("Error: ") and outcome.err.count("\n") == 1


def test_where_nobody_answers_the_address_is_named(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    outcome = infrasage_here("incidents", cwd=tmp_path, INFRASAGE_URL=url, INFRASAGE_API_KEY=generate_key())
    assert (
        outcome.err
        == f"Error: No InfraSage answers at {url}: start one with `infrasage up`, or set INFRASAGE_URL to where it is.\n"
    )


async def test_an_unforeseen_failure_is_one_sentence_without_its_text_and_with_debug_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("isage_very-secret")

    monkeypatch.setattr(local_stack, "data_dir", broken)
    assert run(["incidents"]) == 70
    told = capsys.readouterr()
    assert told.err.startswith("Error: InfraSage failed (RuntimeError at test_command_line.py:")
    assert "very-secret" not in told.err and "Traceback" not in told.err
    assert run(["--debug", "incidents"]) == 70
    assert "Traceback" in capsys.readouterr().err
    assert run(["incidents"]) == 70  # and not for ever after
    assert "Traceback" not in capsys.readouterr().err


async def test_the_help_lists_every_command(tmp_path: Path) -> None:
    outcome = await infrasage("--help", cwd=tmp_path)
    assert outcome.code == 0
    commands = "up api worker fire incidents show approve reject resolve halt settle runbooks audit replay doctor"
    for command in commands.split():
        assert f"\n  {command} " in outcome.out
    assert "\n  demo " not in outcome.out


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"INFRASAGE_URL": "localhost:9093"}, "INFRASAGE_URL must be an http:// or https:// URL"),
        ({"INFRASAGE_API_KEY": "two words"}, "INFRASAGE_API_KEY must be one word of printable ASCII characters"),
    ],
)
def test_a_wrong_address_or_key_is_named_and_not_repeated(variables: dict[str, str], sentence: str, tmp_path: Path) -> None:
    outcome = infrasage_here("incidents", cwd=tmp_path, **variables)
    assert outcome.code == 1
    assert sentence in outcome.err
    assert "two words" not in outcome.err


# --- the files of the local stack ------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The data directory of a stack that runs: this very process has it."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "infrasage.lock").write_text(f"{os.getpid()}\n")
    local_stack.announce(folder, RunningStack(url="http://127.0.0.1:19093", temporal="127.0.0.1:17233"))
    local_stack.operator_key(folder)
    return folder


def test_the_operator_key_is_made_once_and_readable_by_its_owner_alone(folder: Path) -> None:
    key = local_stack.operator_key(folder)
    assert local_stack.operator_key(folder) == key
    assert stat.S_IMODE((folder / "operator.key").stat().st_mode) == 0o600
    (folder / "operator.key").chmod(0o644)
    local_stack.operator_key(folder)
    assert stat.S_IMODE((folder / "operator.key").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("url", "is_ours"),
    [
        ("http://localhost:19093", True),
        ("http://127.0.0.1:19093", True),
        ("http://[::1]:19093", True),
        ("http://localhost:19094", False),
        ("http://localhost", False),
        ("https://infrasage.example.com:19093", False),
    ],
)
def test_the_operator_key_is_for_the_stack_of_its_directory_alone(folder: Path, url: str, is_ours: bool) -> None:
    assert (local_stack.key_for(url, folder) is not None) is is_ours


def test_the_operator_key_of_a_stack_that_does_not_run_is_not_used(folder: Path) -> None:
    (folder / "infrasage.lock").write_text("")
    assert local_stack.key_for("http://localhost:19093", folder) is None


def test_commands_find_a_stack_on_other_ports_by_its_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INFRASAGE_URL", raising=False)
    monkeypatch.delenv("INFRASAGE_API_KEY", raising=False)
    monkeypatch.setenv("INFRASAGE_DATA_DIR", str(folder))
    with open_api() as api:
        assert api.url == "http://127.0.0.1:19093"
    monkeypatch.setenv("INFRASAGE_DATA_DIR", "/nowhere")
    with open_api() as api:
        assert api.url == "http://localhost:9093"


def test_only_the_hash_of_a_key_is_kept_and_a_spoilt_file_is_told(folder: Path) -> None:
    assert local_stack.kept_keys(folder) is None
    key = generate_key()
    kept = (local_stack.named_key(key, "admin", Role.ADMIN, ()),)
    local_stack.keep_keys(folder, kept)
    assert local_stack.kept_keys(folder) == kept
    assert key not in (folder / "api-keys.json").read_text()
    (folder / "api-keys.json").write_text("[")
    with pytest.raises(EmbeddedStackError, match="cannot be read as a list of API keys"):
        local_stack.kept_keys(folder)


def test_a_local_key_never_takes_the_name_of_a_configured_one() -> None:
    configured = (local_stack.named_key(generate_key(), "Ada", Role.OPERATOR, ()),)
    assert local_stack.named_key(generate_key(), "ada", Role.OPERATOR, configured).name == "ada-local"


def test_the_env_file_fills_in_what_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("INFRASAGE_TEST_ONE=file\nINFRASAGE_TEST_TWO=file\n")
    monkeypatch.setenv("INFRASAGE_TEST_ONE", "set")
    monkeypatch.setenv("INFRASAGE_TEST_TWO", "to be removed")
    monkeypatch.delenv("INFRASAGE_TEST_TWO")
    environment.read_env_file(tmp_path)
    assert os.environ["INFRASAGE_TEST_ONE"] == "set"
    assert os.environ["INFRASAGE_TEST_TWO"] == "file"
    (tmp_path / ".env").write_bytes(b"\xff\xfe=")
    with pytest.raises(Failure, match=r"\.env must be readable and in UTF-8"):
        environment.read_env_file(tmp_path)


def test_the_sample_is_the_anomaly_of_the_seed() -> None:
    sample = json.loads((REPOSITORY / "samples" / "anomaly.json").read_text())
    assert (sample["anomaly_id"], sample["service_id"], sample["anomaly_score"]) == ("anom-7f3d", "payment-api", 0.93)
    assert sample["timestamp"] == "2026-04-10T12:00:05Z"
