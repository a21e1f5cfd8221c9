"""End what a command started on the far side. Closing an SSH channel does not: a command without a terminal goes on.

The far shell is the leader of a session and process group of its own (sshd calls setsid(2) for it), and told its process id. The
group is ended from a second channel of the same connection: TERM, some time to comply, KILL. Whoever left the group (a daemon)
is not reached, nor is what another user runs (sudo): the latter is noticed.
"""

import asyncio
import re
from datetime import timedelta

import asyncssh

from activities.clients.ssh_session import Session, execute

POLL_INTERVAL = timedelta(milliseconds=100)

KILLED_WITHIN = timedelta(seconds=3)
"""What is still there then belongs to another user, or hangs in the kernel."""

LINGER = timedelta(seconds=1)
"""For the words of a command that is over, and for the end of a shell that was ended."""

_NONE_SUCH = re.compile(rb"no such process", re.IGNORECASE)
"""ESRCH as the kill of every shell words it (bash, dash, zsh, ksh, BusyBox)."""


class Unended(Exception):
    """It cannot be told what became of the group."""


class ProcessGroup:
    """The processes of one command."""

    def __init__(self, connection: asyncssh.SSHClientConnection, leader: int) -> None:
        """Take the leader's process id, which is the group's id too; above 1."""
        self._connection = connection
        self._id = leader

    async def end(self, comply: timedelta, killed_within: timedelta = KILLED_WITHIN) -> bool:
        """Ask every process to end, and kill what is left after `comply`; returns when none runs any more.

        Returns: False when there was none to begin with. Raises: Unended.
        """
        if not await self._signal("TERM"):
            return False
        if not await self._is_gone_within(comply):
            await self._signal("KILL")
            if not await self._is_gone_within(killed_within):
                raise Unended("it was sent KILL and goes on")
        return True

    async def _is_there(self) -> bool:
        """Whether a process of the group still runs."""
        # A process that ended but was not waited for answers kill; ps knows that it is over (Z). Without ps, kill decides.
        session = await self._run(f"kill -0 -{self._id} && ps -A -o pgid= -o stat= | grep '^ *{self._id} '")
        if _NONE_SUCH.search(session.errors.head):
            return False
        states = re.findall(rf"^ *{self._id} +(\S+) *$".encode(), session.output.head, re.MULTILINE)
        return session.output.dropped_bytes > 0 or not states or not all(state.startswith(b"Z") for state in states)

    async def _signal(self, name: str) -> bool:
        """Signal every process of the group. Returns: False when there is none."""
        session = await self._run(f"kill -{name} -{self._id}")
        return not _NONE_SUCH.search(session.errors.head)

    async def _is_gone_within(self, wait: timedelta) -> bool:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait.total_seconds()
        while await self._is_there():
            if loop.time() >= deadline:
                return False
            await asyncio.sleep(POLL_INTERVAL.total_seconds())
        return True

    async def _run(self, command: str) -> Session:
        """Run a line of our own; the words of its errors are those of the C locale."""
        session, line = Session(), f"LC_ALL=C; export LC_ALL; {command}"
        try:
            await execute(self._connection, session, line)
            await session.over(LINGER)
        except (asyncssh.Error, OSError) as error:
            raise Unended(str(error)) from error
        if not session.has_ended:
            raise Unended("the connection was lost")
        return session
