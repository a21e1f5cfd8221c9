"""The data directory of the embedded stack: who owns it, and the files the Temporal server keeps in it."""

import contextlib
import fcntl
import os
from pathlib import Path

LOCK_FILE = "infrasage.lock"
PID_FILE = "temporal.pid"
DATABASE_FILE = "temporal.db"
LOG_FILE = "temporal.log"
UNFINISHED_MARKER = "temporal.db.unfinished"
"""Exists from before the first start until that start has succeeded; see `set_aside_unfinished_database`."""

_DATABASE_SUFFIXES = ("", "-wal", "-shm", "-journal")  # SQLite keeps these beside a database file
_OWNER_ONLY = 0o700  # incidents, approver names and runbook inputs are inside


class EmbeddedStackError(Exception):
    """The embedded stack cannot start or has ended; `str(error)` is one sentence for the person at the terminal."""


class DataDirLock:
    """Exclusive use of a data directory by this process, for as long as it lives or until `release`.

    The kernel lets go of the lock when the process ends, however it ends. The lock is not inherited by child processes.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Create the directory where needed and take the lock; taking it again is allowed.

        Raises: EmbeddedStackError if the directory cannot be written, or another process (or server object) has it.
        """
        if self._descriptor is not None:
            return
        descriptor = self._open()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise EmbeddedStackError(
                f"Another infrasage (process {owner}) is using the data directory {self._data_dir}: "
                "stop it, or choose another directory with --data-dir."
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go of the directory; without effect when it is not held. The file stays, so that nobody locks a ghost."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        try:
            self._data_dir.mkdir(mode=_OWNER_ONLY, parents=True, exist_ok=True)
            return os.open(self._data_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise EmbeddedStackError(
                f"The data directory {self._data_dir} cannot be written ({error.strerror}): "
                "choose another directory with --data-dir."
            ) from None


def open_fresh_log(path: Path) -> int:
    """Start an empty log file, keep the one of the previous start as `<name>.1`, and return a descriptor for appending.

    Raises: EmbeddedStackError if the file cannot be written.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            os.replace(path, path.with_name(path.name + ".1"))
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    except OSError as error:
        raise EmbeddedStackError(f"The log file {path} cannot be written ({error.strerror}).") from None


def set_aside_unfinished_database(data_dir: Path) -> None:
    """Make way for a first start when an earlier first start was cut short.

    The Temporal CLI creates the schema statement by statement and only where no database file exists: a kill in between
    leaves a file on which it fails for ever. Nothing was accepted before the first start succeeded, so nothing is lost;
    still the file is renamed and not deleted.
    """
    database, marker = data_dir / DATABASE_FILE, data_dir / UNFINISHED_MARKER
    if marker.exists():
        for suffix in _DATABASE_SUFFIXES:
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{database}{suffix}", f"{database}.discarded{suffix}")
    if not database.exists():
        marker.touch(mode=0o600)
        _write_through(data_dir)


def mark_database_finished(data_dir: Path) -> None:
    """Record that the database is complete, surviving a power cut: a marker coming back would set real incidents aside."""
    marker = data_dir / UNFINISHED_MARKER
    if marker.exists():
        marker.unlink()
        _write_through(data_dir)


def _write_through(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
