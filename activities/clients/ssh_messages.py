"""What a shell step learns of its command: how it ended, and the two ends of what it wrote. Knows no library."""

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto

CAPTURE_PART_BYTES = 8 * 1024
"""Kept of the beginning and of the end of a stream; what lies between is dropped while it is read."""


class Capture:
    """The first and the last `CAPTURE_PART_BYTES` of a stream of any length."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._total_bytes = 0

    def add(self, data: bytes) -> None:
        self._total_bytes += len(data)
        room = CAPTURE_PART_BYTES - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        if len(self._tail) > 2 * CAPTURE_PART_BYTES:  # not at every piece: that would copy the tail each time
            del self._tail[:-CAPTURE_PART_BYTES]

    @property
    def head(self) -> bytes:
        return bytes(self._head)

    @property
    def tail(self) -> bytes:
        """What follows `head`, or the last of it."""
        return bytes(self._tail[-CAPTURE_PART_BYTES:])

    @property
    def dropped_bytes(self) -> int:
        """How much lay between `head` and `tail`."""
        return self._total_bytes - len(self.head) - len(self.tail)


class Stop(Enum):
    """Why a command was ended from here."""

    TIMEOUT = auto()
    CANCELLED = auto()


@dataclass(frozen=True)
class ShellOutcome:
    """A command that is over, for certain."""

    elapsed: timedelta
    """From the moment that the far side took the command to its end."""
    began: bool
    """False when the far shell ended before it came to the command: nothing was run."""
    output: Capture
    """Of both streams, as it arrived."""
    errors: Capture
    """Of the error stream alone."""
    exit_code: int | None = None
    signal: str | None = None
    """The name of the signal that ended it (`TERM`), where there is no exit code."""
    stopped: Stop | None = None
    """Set when it did not end by itself: its process group was ended from here, and is gone."""
