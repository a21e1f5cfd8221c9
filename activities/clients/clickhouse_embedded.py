"""ClickHouse in this process: chDB, the real engine, on a directory that it has to itself.

Its client is synchronous, and calls on a session must not overlap: one thread of its own makes them, in order. The engine lets go
of the interpreter while it works, so the event loop goes on.
"""

import asyncio
import contextlib
import fcntl
import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, ProgrammingError

from activities.clients.clickhouse_failures import failure_of, said
from activities.clients.clickhouse_tables import Row, Table
from activities.errors import NotConfigured, OrchestratorError, Unreachable

OPEN_TIMEOUT = timedelta(seconds=30)
"""Loading the engine takes about 1 s and opening a directory about 40 ms; a busy machine takes longer."""

INSERT_SETTINGS: Mapping[str, str] = {"async_insert": "0", "insert_deduplicate": "1"}
"""Answered means stored, and a repeated token is dropped. Newer engines queue inserts by default (26.9 does), and the
queue has its own rules for repetitions (`async_insert_deduplicate`, off)."""

READ_SETTINGS: Mapping[str, str] = {
    "max_execution_time": "4",
    "max_result_rows": "1000",
    "max_result_bytes": "1048576",
    "max_memory_usage": "1000000000",
    "readonly": "1",
}
"""Of a query that somebody else wrote. `readonly` comes last, since nothing can be set after it; 1 and not 2, because 2 still lets
a query use table functions, which read files and URLs (https://clickhouse.com/docs/operations/settings/permissions-for-queries)."""

_Answer = TypeVar("_Answer")


class EmbeddedEngine:
    """chDB on `path`. It opens at the first call."""

    def __init__(self, path: Path, database: str, *, call_timeout: timedelta) -> None:
        self._path = path
        self._database = database
        self._call_timeout = call_timeout
        self._where = f"the embedded ClickHouse in {path}"
        self._client: Client | None = None
        self._is_closed = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="clickhouse")
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="clickhouse-read")

    async def version(self) -> str:
        return str(await self._call(lambda client: client.command("SELECT version()", use_database=False)))

    async def create_database(self) -> None:
        """Create the database if it is missing; it is chosen for what follows."""
        statement = f"CREATE DATABASE IF NOT EXISTS `{self._database}`"
        await self._call(lambda client: client.command(statement, use_database=False))

    async def run(self, statement: str) -> None:
        await self._call(lambda client: client.command(statement))

    async def select(self, query: str, parameters: dict[str, Any] | None = None) -> list[Row]:
        return await self._call(lambda client: list(client.query(query, parameters=parameters).result_rows))

    async def read(self, query: str, parameters: dict[str, Any]) -> list[Row]:
        """Run a query that can change nothing, in a thread and a session of its own: a slow one holds up no record.

        The session is thrown away: a `readonly` that is set for one query of the common session can stay set.
        """
        await self._call(lambda _client: None)  # have the directory, or say why not
        return await self._await(self._reader, lambda: self._read(query, parameters), self._call_timeout)

    async def insert(self, table: Table, rows: list[Row], token: str) -> None:
        await self._call(partial(_insert, table, rows, token))

    async def aclose(self) -> None:
        """Close the directory: another process may open it then. A call that is still running is waited for."""
        if not self._is_closed:
            self._is_closed = True
            for thread, work in ((self._reader, lambda: None), (self._thread, self._close)):
                await asyncio.get_running_loop().run_in_executor(thread, work)
                thread.shutdown(wait=False)

    async def _call(self, work: Callable[[Client], _Answer]) -> _Answer:
        timeout = self._call_timeout if self._client else self._call_timeout + OPEN_TIMEOUT
        return await self._await(self._thread, lambda: self._in_thread(work), timeout)

    async def _await(self, thread: ThreadPoolExecutor, work: Callable[[], _Answer], limit: timedelta) -> _Answer:
        if self._is_closed:
            raise Unreachable(f"{self._where} is closed")
        failure: OrchestratorError
        try:
            async with asyncio.timeout(limit.total_seconds()):
                return await asyncio.get_running_loop().run_in_executor(thread, work)
        except (ClickHouseError, TimeoutError, OSError, ValueError, TypeError) as error:
            failure = failure_of(error, self._where)
        raise failure

    def _in_thread(self, work: Callable[[Client], _Answer]) -> _Answer:
        if self._client is None:
            self._client = _open(self._path)
            self._client.database = self._database
        return work(self._client)

    def _read(self, query: str, parameters: dict[str, Any]) -> list[Row]:
        client = _open_again(self._path)
        try:
            client.database = self._database
            for name, value in READ_SETTINGS.items():
                client.command(f"SET {name} = {value}")
            return list(client.query(query, parameters=parameters).result_rows)
        finally:
            client.close()

    def _close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def _insert(table: Table, rows: list[Row], token: str, client: Client) -> None:
    client.insert(
        table.name,
        rows,
        column_names=list(table.columns),
        column_type_names=list(table.columns.values()),
        settings={**INSERT_SETTINGS, "insert_deduplication_token": token},
    )


def _open(path: Path) -> Client:
    """Raises NotConfigured when the directory cannot be made, Unreachable when another process has it or it is damaged."""
    if "?" in str(path):
        raise NotConfigured(f"the data directory {path} cannot be used: chDB takes what follows a '?' for options")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NotConfigured(f"the data directory {path} cannot be made ({error.strerror}): choose another --data-dir") from None
    holder = _holder(path)
    if holder is not None:
        raise Unreachable(
            f"the data directory {path} is in use by another process ({holder}), and an embedded ClickHouse serves one: "
            "stop that process, choose another --data-dir, or set CLICKHOUSE_HOST"
        )
    try:
        return _open_again(path)
    except ProgrammingError as error:
        raise Unreachable(f"the data directory {path} cannot be opened by the embedded ClickHouse: {said(str(error))}") from None


def _open_again(path: Path) -> Client:
    """Another session on a directory that this process has."""
    return clickhouse_connect.get_client(interface="chdb", path=str(path), tz_mode="aware")


def _holder(path: Path) -> str | None:
    """Which other process has the directory open, as the engine itself tells: by a lock on its file `status`.

    Asked first, because the engine's own error does not say, and goes to stderr in part.
    """
    with contextlib.suppress(FileNotFoundError), (path / "status").open("r+b") as status:
        try:
            fcntl.flock(status, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found = re.search(rb"PID: (\d+)", status.read(1_000))
            process = int(found.group(1)) if found else None
            return None if process == os.getpid() else f"process {process}" if process else "its id is not known"
    return None
