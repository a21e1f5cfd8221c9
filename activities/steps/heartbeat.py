"""Heartbeats of a running step: how the server notices a dead worker, and how a cancellation reaches the step."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextvars import ContextVar
from datetime import timedelta

from temporalio import activity

HEARTBEAT_INTERVAL = timedelta(seconds=1)
"""The server wants one within the activity's heartbeat timeout of some seconds; the SDK thins them out."""


class _Pulse:
    """What the next heartbeats say: the latest progress, if there is any."""

    def __init__(self) -> None:
        self._details: tuple[str, ...] = ()

    def say(self, progress: str) -> None:
        self._details = (progress,)
        self.beat()

    def beat(self) -> None:
        activity.heartbeat(*self._details)


_pulse: ContextVar[_Pulse] = ContextVar("pulse")


def say(progress: str) -> None:
    """Show one sentence of progress in the Temporal UI while the activity runs. Only inside of `beating`."""
    _pulse.get().say(progress)


@contextlib.asynccontextmanager
async def beating(interval: timedelta = HEARTBEAT_INTERVAL) -> AsyncGenerator[None]:
    """Send a heartbeat at once and at every `interval` while the body runs, whatever it waits for."""
    pulse = _Pulse()

    async def beat() -> None:
        while True:
            await asyncio.sleep(interval.total_seconds())
            pulse.beat()

    pulse.beat()
    token = _pulse.set(pulse)
    beats = asyncio.create_task(beat())
    try:
        yield
    finally:
        _pulse.reset(token)
        beats.cancel()
        await asyncio.wait({beats})
