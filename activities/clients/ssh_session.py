"""One command on one channel of an SSH connection: what it writes is captured in bounded memory, how it ends is kept."""

import asyncio
import re
from datetime import timedelta

import asyncssh

from activities.clients.ssh_messages import Capture

PREAMBLE = 'test "$?path" = 1 && exec false; echo "infrasage-shell ${$}"\n'
"""Goes before every command of a step, on a line of its own, and has no foreign text in it.

It makes the shell that runs the command tell its process id, by which the command can be ended later, and it says that the
command was come to at all. A C shell reads `$?path` as 1 and makes way for `false` (its `exit` would not end it here): it would
take a line break within quotes for the end of a command, so quoted values would not be safe there. fish refuses the whole text.
In every POSIX shell, and in zsh, `$?` is a number and `path` follows it.
"""

WINDOW_BYTES = 256 * 1024
"""How far the far side may write ahead of us; with it, a command that writes without end costs no more memory than this."""

_ANNOUNCED = re.compile(rb"infrasage-shell ([0-9]{1,10})\r?\n")
_ANNOUNCED_BYTES = 64
"""No announcement is longer: what is kept of a piece in case the announcement ends in the next one."""


class Session(asyncssh.SSHClientSession[bytes]):
    """Collects what a command writes and how it ends. Standard input is closed from the start."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.output = Capture()
        self.errors = Capture()
        self.exit_code: int | None = None
        self.signal: str | None = None
        self.elapsed: timedelta | None = None
        """From the moment that the far side took the command to its end; None before."""
        self._started_at = loop.time()
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._is_over = loop.create_future()
        self._is_closed = loop.create_future()

    @property
    def is_opened(self) -> bool:
        """Whether the channel was opened: from then on, the command may have been sent."""
        return self._channel is not None

    @property
    def has_ended(self) -> bool:
        """Whether the far side reported the end of the command."""
        return self.exit_code is not None or self.signal is not None

    @property
    def is_over(self) -> bool:
        return self._is_over.done()

    @property
    def is_lost(self) -> bool:
        """Whether the channel is closed without such a report."""
        return self._is_closed.done() and not self.has_ended

    async def over(self, linger: timedelta) -> None:
        """Wait until the command is over or the channel lost, and after that for output on its way, at most `linger`.

        What a command leaves behind in the background may keep its output open for as long as it likes.
        """
        await asyncio.shield(self._is_over)
        await asyncio.wait({self._is_closed}, timeout=linger.total_seconds())

    def kill(self) -> None:
        """Ask sshd itself to kill the command's group: since OpenSSH 7.9, unanswered, and only while its leader lives."""
        if self._channel is not None and not self._is_over.done():
            self._channel.kill()

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._channel = chan

    def session_started(self) -> None:
        self._started_at = asyncio.get_running_loop().time()
        if self._channel is not None:
            self._channel.write_eof()

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        self.output.add(data)
        if datatype is not None:  # there is one kind of extended data, the error stream (RFC 4254, 5.2)
            self.errors.add(data)

    def exit_status_received(self, status: int) -> None:
        self.exit_code = status
        self._end()

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self.signal = signal
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        if not self._is_closed.done():
            self._is_closed.set_result(None)

    def _end(self) -> None:
        if not self._is_over.done():
            self.elapsed = timedelta(seconds=asyncio.get_running_loop().time() - self._started_at)
            self._is_over.set_result(None)


class AnnouncedSession(Session):
    """A session whose command stands behind `PREAMBLE`; what is written before the announcement is not the command's."""

    def __init__(self) -> None:
        super().__init__()
        self.leader: int | None = None
        """Process id of the far shell, once it came to the command: the leader of the group that the command runs in."""
        self._before = b""

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        if self.leader is None and datatype is None:
            data = self._after_announcement(data)
        super().data_received(data, datatype)

    def _after_announcement(self, data: bytes) -> bytes:
        seen = self._before + data
        announced = _ANNOUNCED.search(seen)
        # 0 would mean our own far group, and 1 every process, to the kill that the number is meant for.
        if announced is None or int(announced[1]) <= 1:
            self._before = seen[-_ANNOUNCED_BYTES:]
            return data
        self.leader = int(announced[1])
        self.output = Capture()
        return seen[announced.end() :]


async def execute(connection: asyncssh.SSHClientConnection, session: Session, line: str) -> None:
    """Open a channel and have the far shell run `line`; returns when the far side took it. No terminal, no environment."""
    await connection.create_session(lambda: session, line, encoding=None, window=WINDOW_BYTES)
