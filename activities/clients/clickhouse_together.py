"""Group commit: rows that arrive while an insert is under way share the next one.

An insert costs the embedded engine several milliseconds of CPU whether it has one row or a thousand, and MergeTree wants few and
large ones. Nobody waits longer for it: on an idle engine an insert begins at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from activities.clients.clickhouse_tables import Row, Table

Insert = Callable[[Table, list[Row], Sequence[str]], Awaitable[None]]
"""Insert rows that are known by these identities, all or none."""

ROWS_LIMIT = 10_000
"""In one insert; far above what 2,000 runs at once bring."""


@dataclass
class _Waiting:
    rows: list[Row]
    identities: list[str]
    done: asyncio.Future[None]


@dataclass
class _Queue:
    waiting: list[_Waiting] = field(default_factory=list[_Waiting])
    task: asyncio.Task[None] | None = None


class GroupCommit:
    """One insert under way for each table."""

    def __init__(self, insert: Insert) -> None:
        self._insert = insert
        self._queues: dict[str, _Queue] = {}

    async def insert(self, table: Table, rows: list[Row], identities: Sequence[str]) -> None:
        """Returns when these rows are stored. Raises: what the insert that they were part of raised; then none of them is."""
        queue = self._queues.setdefault(table.name, _Queue())
        waiting = _Waiting(rows, list(identities), asyncio.get_running_loop().create_future())
        queue.waiting.append(waiting)
        if queue.task is None:
            queue.task = asyncio.create_task(self._work(table, queue))
        await waiting.done

    async def _work(self, table: Table, queue: _Queue) -> None:
        try:
            while queue.waiting:
                group = _group(queue.waiting)
                del queue.waiting[: len(group)]
                await self._commit(table, group)
        finally:
            queue.task = None

    async def _commit(self, table: Table, group: list[_Waiting]) -> None:
        failure: Exception | None = None
        try:
            await self._insert(
                table,
                [row for waiting in group for row in waiting.rows],
                [identity for waiting in group for identity in waiting.identities],
            )
        except Exception as error:
            failure = error  # each of the group hears of it, and tries again by itself
        for waiting in group:
            if waiting.done.done():
                continue  # its activity was cancelled meanwhile
            if failure is None:
                waiting.done.set_result(None)
            else:
                waiting.done.set_exception(failure)


def _group(waiting: list[_Waiting]) -> list[_Waiting]:
    """The first ones that fit into one insert, at least one."""
    group: list[_Waiting] = []
    rows = 0
    for one in waiting:
        rows += len(one.rows)
        if group and rows > ROWS_LIMIT:
            break
        group.append(one)
    return group
