"""Group commit: rows that arrive during an insert share the next one, and everybody hears how it went."""

import asyncio
from collections.abc import Sequence

import pytest

from activities.clients.clickhouse_tables import AUDIT, EXECUTIONS, Row, Table
from activities.clients.clickhouse_together import GroupCommit
from activities.errors import Unreachable


class Engine:
    """Inserts when it is let, and fails when it is told to."""

    def __init__(self) -> None:
        self.inserts: list[tuple[str, list[Row], list[str]]] = []
        self.gate = asyncio.Event()
        self.failure: Exception | None = None

    async def insert(self, table: Table, rows: list[Row], identities: Sequence[str]) -> None:
        self.inserts.append((table.name, rows, list(identities)))
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure


async def begun(engine: Engine, count: int) -> None:
    async with asyncio.timeout(5):
        while len(engine.inserts) < count:  # noqa: ASYNC110 - one turn of the loop at a time is what is tested
            await asyncio.sleep(0)


async def test_what_arrives_during_an_insert_shares_the_next_one() -> None:
    engine = Engine()
    together = GroupCommit(engine.insert)
    waiting = [asyncio.create_task(together.insert(AUDIT, [[number]], [str(number)])) for number in range(1)]
    await begun(engine, 1)
    waiting += [asyncio.create_task(together.insert(AUDIT, [[number]], [str(number)])) for number in range(1, 6)]
    other = asyncio.create_task(together.insert(EXECUTIONS, [["other"]], ["other"]))
    await begun(engine, 2)
    engine.gate.set()
    await asyncio.gather(*waiting, other)
    assert [rows for name, rows, _ in engine.inserts if name == AUDIT.name] == [[[0]], [[1], [2], [3], [4], [5]]]
    assert [rows for name, rows, _ in engine.inserts if name == EXECUTIONS.name] == [[["other"]]]


async def test_everybody_in_a_failed_insert_hears_of_it_and_the_next_one_is_tried() -> None:
    engine = Engine()
    engine.gate.set()
    engine.failure = Unreachable("nobody answers")
    together = GroupCommit(engine.insert)
    outcomes = await asyncio.gather(*(together.insert(AUDIT, [[n]], [str(n)]) for n in range(3)), return_exceptions=True)
    assert all(isinstance(outcome, Unreachable) for outcome in outcomes)
    engine.failure = None
    await together.insert(AUDIT, [["later"]], ["later"])


async def test_who_gives_up_waiting_does_not_disturb_the_others() -> None:
    engine = Engine()
    together = GroupCommit(engine.insert)
    first, second = (asyncio.create_task(together.insert(AUDIT, [[n]], [str(n)])) for n in range(2))
    await begun(engine, 1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    engine.gate.set()
    await second
