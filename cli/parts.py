"""The parts of a running InfraSage, each to be entered and left: the signals, the worker, the HTTP server.

Leaving is draining: a server answers what it has begun, a worker finishes its activities. Who enters them in which order is the
business of `stack`, `worker` and `serve`.
"""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from datetime import timedelta
from typing import Any

import uvicorn
from fastapi import FastAPI
from temporalio.client import Client
from temporalio.worker import Worker

from activities.errors import clip
from cli.embedded import EmbeddedStackError
from cli.output import Failure
from workflows.connection import DRAIN, orchestrator_worker

ANSWERS_DRAIN = timedelta(seconds=10)
"""How long requests that have begun may take when the server stops; the longest, a group of alerts, is bounded to 9 s."""

WORKER_MARGIN = timedelta(seconds=5)
"""Beyond `DRAIN`, for a worker to tell Temporal what its last activities gave."""

BACKLOG = 512

REASON_CHARACTERS = 300

log = logging.getLogger(__name__)


class Stop:
    """Set by SIGTERM or SIGINT; a second signal ends the process at once."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self.reason = ""

    @property
    def is_asked(self) -> bool:
        return self._asked.is_set()

    async def wait(self) -> None:
        await self._asked.wait()

    def ask(self, reason: str) -> None:
        if self._asked.is_set():
            sys.stderr.write("Stopped at once, as asked twice.\n")
            sys.stderr.flush()
            os._exit(130)
        self.reason = reason
        self._asked.set()


@contextlib.contextmanager
def stop_signals() -> Generator[Stop]:
    """Own SIGTERM and SIGINT while inside: nothing else in the process may act on them.

    uvicorn's own handlers would raise SIGTERM again after its shutdown and end the process before anything else is closed.
    """
    loop = asyncio.get_running_loop()
    stop = Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.ask, signal.Signals(number).name)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def running_worker(client: Client, activities: Sequence[Callable[..., Any]]) -> AsyncGenerator[asyncio.Task[None]]:
    """Run the worker of the task queue; leaving drains it. Yields: its task, which ends only if it fails or is left."""
    worker = orchestrator_worker(client, activities)
    task = asyncio.create_task(_work(worker, client), name="worker")
    try:
        yield task
    finally:
        if not task.done():
            bound = (DRAIN + WORKER_MARGIN).total_seconds()
            try:
                async with asyncio.timeout(bound):
                    await worker.shutdown()
                    await task
            except TimeoutError:
                log.warning("the worker did not drain within %g s; Temporal will hand its work to another one", bound)


async def _work(worker: Worker, client: Client) -> None:
    """Raises: Failure for what Temporal's server has against the worker, such as a namespace that is not there."""
    try:
        await worker.run()
    except RuntimeError as error:
        reason = str(error).partition(": Status {")[0]  # behind it is the wire format of the server's answer
        raise Failure(f"The worker cannot work in the namespace {client.namespace}: {clip(reason, REASON_CHARACTERS)}.") from error


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, and with a way to wait until it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listens.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@contextlib.asynccontextmanager
async def running_server(app: FastAPI, listener: socket.socket) -> AsyncGenerator[asyncio.Task[None]]:
    """Serve `app`; leaving lets begun requests end. Yields: the server's task, once it listens."""
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=round(ANSWERS_DRAIN.total_seconds()),
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name="api")
    try:
        listens = asyncio.create_task(server.listens.wait())
        await asyncio.wait({listens, task}, return_when=asyncio.FIRST_COMPLETED)
        listens.cancel()
        yield task
    finally:
        server.should_exit = True
        await task


def listen(host: str, port: int) -> socket.socket:
    """Listen for HTTP. Raises: EmbeddedStackError naming the port and the option that changes it."""
    if not 1 <= port <= 65_535:
        raise EmbeddedStackError(f"--port is {port}: a port is a number from 1 to 65535.")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (socket.gaierror, UnicodeError):
        raise EmbeddedStackError(f"--host is {host!r}, which is no address of this machine.") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        # Before uvicorn: two processes may bind one port as long as neither listens.
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = "is already in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise EmbeddedStackError(f"Port {port} on {host} {reason}: choose another one with --port.") from None
    listener.setblocking(False)
    return listener


async def until_stopped(stop: Stop, *parts: asyncio.Task[None]) -> None:
    """Wait until the stop is asked for. Raises: what a part failed with, or Failure for one that ended by itself."""
    asked = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({asked, *parts}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        asked.cancel()
    if stop.is_asked:
        return
    for part in parts:
        if part.done():
            await part
            raise Failure(f"The {part.get_name()} ended by itself; the log says why.")
