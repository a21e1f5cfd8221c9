"""Run one command on a configured host over SSH, at most once, and see to it that it is over when its time is.

Which commands a host allows is decided before (`domain.shell_commands`): what is handed to `run` is sent. The far shell has to be
a POSIX shell or zsh, and the account may not have a command of its own (`command=`, `ForceCommand`).
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Self, TypeVar

import asyncssh

from activities.clients.ssh_connection import close_connection, named, open_connection
from activities.clients.ssh_ending import LINGER, ProcessGroup, Unended
from activities.clients.ssh_hosts import read_shell_hosts
from activities.clients.ssh_messages import ShellOutcome, Stop
from activities.clients.ssh_session import PREAMBLE, AnnouncedSession, execute
from activities.errors import InvalidStep, OrchestratorError, OutcomeUnknown, Refused, Unreachable
from domain.shell_hosts import ShellHost, ShellHosts, UnknownHost

_Result = TypeVar("_Result")

_SO_FAR = {Stop.TIMEOUT: "did not end in time", Stop.CANCELLED: "was cancelled"}


@dataclass(frozen=True)
class SshLimits:
    """How long things may take."""

    connect: timedelta = timedelta(seconds=10)
    comply: timedelta = timedelta(seconds=3)
    """From TERM to KILL."""
    ending: timedelta = timedelta(seconds=8)
    """The whole ending, TERM and KILL included: below the 10 s that Temporal grants a step beyond its own time."""


class SshClient:
    """Connects anew for each command: nothing is shared between steps, and there is nothing to close."""

    def __init__(self, hosts: ShellHosts, limits: SshLimits | None = None) -> None:
        self._hosts = hosts
        self._limits = limits or SshLimits()

    @classmethod
    def from_file(cls, file: Path) -> Self:
        """Take the hosts of RUNBOOK_SHELL_HOSTS as they are now. Blocking. Raises: NotConfigured naming every fault."""
        return cls(read_shell_hosts(file))

    @property
    def hosts(self) -> ShellHosts:
        return self._hosts

    async def check(self, alias: str) -> str:
        """Connect and log in, and run nothing. Returns: a sentence for the doctor.

        Raises: InvalidStep for an alias that is not there; NotConfigured, Refused, Unreachable.
        """
        try:
            host = self._hosts.host(alias)
        except UnknownHost as error:
            raise InvalidStep(str(error)) from None
        await close_connection(await self._connected(host, _Watch(self._limits.connect)))
        return f"{named(host)} holds the pinned key and lets the user in"

    async def run(self, host: ShellHost, command: str, within: timedelta) -> ShellOutcome:
        """Run `command`, connecting included, `within` a time; what is not over by then is ended, its children too.

        A cancellation ends the command as well, and is answered with the outcome: nobody else looks after what was begun.
        Raises: NotConfigured, Refused or Unreachable when nothing was run for certain; OutcomeUnknown when the connection got
        lost after the command was sent, or when what it started could not be ended.
        """
        watch = _Watch(within)
        work = asyncio.create_task(self._run(host, command, watch))
        while True:
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                if work.cancelled():
                    raise
                watch.give_up()

    async def _run(self, host: ShellHost, command: str, watch: "_Watch") -> ShellOutcome:
        connection = await self._connected(host, watch)
        try:
            session = AnnouncedSession()
            await _start(connection, session, host, command, watch)
            stop = await watch.bound(session.over(LINGER))
            if stop is not None and (session.is_over or not await self._is_ended(connection, session, host, stop)):
                stop = None  # it ended by itself
        finally:
            await close_connection(connection)
        return _outcome(session, host, stop)

    async def _connected(self, host: ShellHost, watch: "_Watch") -> asyncssh.SSHClientConnection:
        connection = await watch.bound(open_connection(host), self._limits.connect)
        match connection:
            case Stop.TIMEOUT:
                raise Unreachable(f"{named(host)} did not let the user in in time: nothing was run")
            case Stop.CANCELLED:
                raise Unreachable(f"the step was cancelled before {named(host)} let the user in: nothing was run")
            case _:
                return connection

    async def _is_ended(
        self, connection: asyncssh.SSHClientConnection, session: AnnouncedSession, host: ShellHost, stop: Stop
    ) -> bool:
        """End the command and what it started. Returns: False when it had ended by itself.

        Raises: OutcomeUnknown when it is not certain that it is over.
        """
        try:
            if session.leader is None:
                raise Unended
            async with asyncio.timeout(self._limits.ending.total_seconds()):
                was_there = await ProcessGroup(connection, session.leader).end(self._limits.comply)
                await session.over(LINGER)  # of the shell too: a number that names no group would seem to be gone
            return was_there
        except (Unended, TimeoutError):
            session.kill()
        raise OutcomeUnknown(f"the command on {named(host)} {_SO_FAR[stop]} and could not be ended: it may still run")


async def _start(
    connection: asyncssh.SSHClientConnection, session: AnnouncedSession, host: ShellHost, command: str, watch: "_Watch"
) -> None:
    """Send the command. Raises: Refused, Unreachable when it was not sent or not taken; OutcomeUnknown when nobody can say."""
    failure: OrchestratorError
    try:
        stop = await watch.bound(execute(connection, session, PREAMBLE + command))
        if stop is None:
            return
        failure = OutcomeUnknown(f"the command on {named(host)} {_SO_FAR[stop]} while it was sent: it may have run")
        session.kill()
    except (asyncssh.Error, OSError) as error:
        failure = OutcomeUnknown(f"the connection to {named(host)} was lost while the command was sent: it may have run")
        if isinstance(error, asyncssh.ChannelOpenError) and session.is_opened and not session.is_lost:
            failure = Refused(f"{named(host)} runs no command for that user: nothing was run")
    if not session.is_opened:
        failure = Unreachable(f"{named(host)} opened no channel for the command: nothing was run")
    raise failure


def _outcome(session: AnnouncedSession, host: ShellHost, stop: Stop | None) -> ShellOutcome:
    """Raises: OutcomeUnknown when the end was not reported, or is not that of the command."""
    if session.is_lost:
        raise OutcomeUnknown(f"the connection to {named(host)} was lost after the command was sent: it may have run, or still run")
    if session.leader is None and session.exit_code == 0:
        raise OutcomeUnknown(
            f"{named(host)} reports success and did not run the command through its shell: has the account a command of its own "
            "(ForceCommand), or a shell that is not POSIX's?"
        )
    return ShellOutcome(
        elapsed=session.elapsed or timedelta(0),
        began=session.leader is not None,
        output=session.output,
        errors=session.errors,
        exit_code=session.exit_code,
        signal=session.signal,
        stopped=stop,
    )


class _Watch:
    """The time that a command has, and whether it is still wanted."""

    def __init__(self, within: timedelta) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + within.total_seconds()
        self._given_up: asyncio.Future[None] = self._loop.create_future()

    def give_up(self) -> None:
        if not self._given_up.done():
            self._given_up.set_result(None)

    async def bound(self, work: Coroutine[Any, Any, _Result], limit: timedelta | None = None) -> _Result | Stop:
        """Do `work` for as long as there is time and it is wanted, `limit` at most, and cancel it then.

        Returns: what it gives, or why it was cancelled. Raises: what it raises.
        """
        remaining = max(0.0, self._deadline - self._loop.time())
        task = asyncio.create_task(work)
        try:
            await asyncio.wait(
                {task, self._given_up},
                timeout=remaining if limit is None else min(remaining, limit.total_seconds()),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        if task.cancelled():
            return Stop.CANCELLED if self._given_up.done() else Stop.TIMEOUT
        return task.result()
