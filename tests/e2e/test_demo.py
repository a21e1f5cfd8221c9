"""`make demo`: the whole of it in a process of its own, with its exit code, and what it leaves behind: nothing."""

import asyncio
import contextlib
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from tests.e2e.harness import environment, eventually, infrasage


class Screen:
    """What a program shows in a terminal of its own, and its keyboard."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()
        self.shown = ""
        os.set_blocking(self._ours, False)

    def look(self) -> str:
        """Everything shown so far."""
        with contextlib.suppress(BlockingIOError, OSError):  # nothing new, or the program has ended
            while chunk := os.read(self._ours, 65_536):
                self.shown += chunk.decode(errors="replace")
        return self.shown

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def close(self) -> None:
        for descriptor in (self._ours, self.theirs):
            os.close(descriptor)


@contextlib.asynccontextmanager
async def demo_in_a_terminal(folder: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, Screen]]:
    screen = Screen()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.main", "demo"),
        cwd=folder,
        env=environment(TMPDIR=str(folder), TERM="xterm-256color", COLUMNS="120"),
        stdin=screen.theirs,
        stdout=screen.theirs,
        stderr=screen.theirs,
    )
    try:
        await eventually(lambda: _asks(process, screen), 60, screen.look)
        yield process, screen
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        screen.close()


async def _asks(process: asyncio.subprocess.Process, screen: Screen) -> bool:
    assert process.returncode is None, screen.look()
    return "Approve this step?" in screen.look()


async def _answered(folder: Path, *lines: str) -> tuple[int, str]:
    """Type the lines. Returns: the exit code and what was shown."""
    async with demo_in_a_terminal(folder) as (process, screen):
        for line in lines:
            screen.type(line + "\n")
        async with asyncio.timeout(60):
            while process.returncode is None:
                screen.look()  # a terminal that nobody reads would stop the program
                await asyncio.sleep(0.05)
        return process.returncode, screen.look()


def assert_nothing_is_left(folder: Path) -> None:
    assert list(folder.glob("infrasage-demo-*")) == []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            assert str(folder) not in os.readlink(process / "cwd"), f"process {process.name} is left"
        except OSError:
            continue  # it ended, or is not ours


async def test_it_tells_the_whole_story_and_ends_with_success(tmp_path: Path) -> None:
    outcome = await infrasage("demo", "--yes", cwd=tmp_path, seconds=120, TMPDIR=str(tmp_path), SLACK_BOT_TOKEN="xoxb-somebodys")
    assert outcome.code == 0, outcome.out + outcome.err
    for words in (
        "🚨 Anomaly Detected — payment-api",
        "Score: 0.93 (Critical)",
        "⚡ Runbook Approval Required",
        "Step 2/3: Scale deployment to 5 replicas",
        "[✅ Approve] [❌ Reject]",
        "payment-api went 3 → 5 replicas, by one write",
        "Historical Match: Similar incident on",
        "resolved in 12 min by scaling from 3 to 5 pods",
        "approval.approved",
        "incident.resolved",
        "Every part happened and was checked",
    ):
        assert words in outcome.out, words
    assert_nothing_is_left(tmp_path)


async def test_a_person_approves_in_the_terminal(tmp_path: Path) -> None:
    code, shown = await _answered(tmp_path, "maybe", "a")
    assert code == 0, shown
    assert "Please answer a or r." in shown
    assert "Every part happened and was checked" in shown


async def test_a_person_who_rejects_ends_the_story_without_success(tmp_path: Path) -> None:
    code, shown = await _answered(tmp_path, "r")
    assert code == 1
    assert "You rejected it, so payment-api keeps its 3 replicas" in shown
    assert_nothing_is_left(tmp_path)


async def test_without_anybody_to_ask_it_says_how_to_run_it(tmp_path: Path) -> None:
    outcome = await infrasage("demo", cwd=tmp_path, seconds=120, TMPDIR=str(tmp_path))
    assert outcome.code == 1
    assert "Nobody is there to approve: run it in a terminal, or `make demo YES=1`." in outcome.err
    assert_nothing_is_left(tmp_path)


async def test_ctrl_c_stops_and_removes_everything(tmp_path: Path) -> None:
    async with demo_in_a_terminal(tmp_path) as (process, screen):
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(60):
            assert await process.wait() == 130
        assert "The demo was interrupted; it is stopped and removed." in screen.look()
    assert_nothing_is_left(tmp_path)
