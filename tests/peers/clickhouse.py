"""ClickHouse for tests, real both times: chDB in this process, and a server over HTTP in a process of its own."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from activities.clients.clickhouse import ClickHouse, open_clickhouse
from domain.settings import Settings

USER = "infrasage"
PASSWORD = "corr'ect horse:1"

START_SECONDS = 60


@asynccontextmanager
async def embedded_clickhouse(data_dir: Path) -> AsyncIterator[ClickHouse]:
    """chDB in `data_dir`, migrated; closed at the end, because a process has one directory open at a time."""
    clickhouse = open_clickhouse(Settings(clickhouse_host=None), data_dir)
    try:
        await clickhouse.migrate()
        yield clickhouse
    finally:
        await clickhouse.aclose()


@dataclass
class ClickHouseServer:
    """A server on 127.0.0.1; the methods are its moods."""

    port: int
    process: asyncio.subprocess.Process

    def settings(self, **overrides: Any) -> Settings:
        """As a user of this server would set them, with a database of its own."""
        values: dict[str, Any] = {
            "clickhouse_host": "127.0.0.1",
            "clickhouse_port": self.port,
            "clickhouse_user": USER,
            "clickhouse_password": PASSWORD,
            "clickhouse_database": f"test_{uuid4().hex}",
        }
        return Settings(**{**values, **overrides})

    async def serve(self) -> int:
        """Answer, as a healthy server. Returns: how many inserts were run so far."""
        return await self._tell("serve")

    async def hang(self) -> None:
        """Take requests and never answer."""
        await self._tell("hang")

    async def drop(self) -> None:
        """Close every connection without an answer."""
        await self._tell("drop")

    async def lose(self, inserts: int) -> None:
        """Run the next inserts, and close the connection instead of answering."""
        await self._tell(f"lose {inserts}")

    async def fail(self, requests: int) -> None:
        """Answer the next requests with 503."""
        await self._tell(f"fail {requests}")

    async def refuse(self) -> None:
        """Stop listening; `serve` listens again on the same port."""
        await self._tell("refuse")

    async def _tell(self, command: str) -> int:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{command}\n".encode())
        await stdin.drain()
        answer = await asyncio.wait_for(stdout.readline(), START_SECONDS)
        word, count = answer.split()
        assert word == b"ok"
        return int(count)


@asynccontextmanager
async def clickhouse_server(data_dir: Path, ca_file: Path | None = None) -> AsyncIterator[ClickHouseServer]:
    """A server on a free port, stopped at the end. With `ca_file` it speaks TLS; the file then has the certificate to trust."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.peers.clickhouse_front", str(data_dir), USER, PASSWORD),
        *([str(ca_file)] if ca_file else []),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONWARNINGS": "default"},
    )
    try:
        assert process.stdout is not None
        port = int(await asyncio.wait_for(process.stdout.readline(), START_SECONDS))
        yield ClickHouseServer(port, process)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()


@asynccontextmanager
async def served_clickhouse(settings: Settings) -> AsyncIterator[ClickHouse]:
    """A client of the server that `settings` name, migrated."""
    clickhouse = open_clickhouse(settings, Path("unused"))
    try:
        await clickhouse.migrate()
        yield clickhouse
    finally:
        await clickhouse.aclose()


async def sql(clickhouse: ClickHouse, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """Ask the tables themselves, as a person with a SQL prompt would."""
    return [tuple(row) for row in await clickhouse._engine.select(query, parameters)]


async def count(clickhouse: ClickHouse, table: str) -> int:
    """Rows of a table as they lie there, without FINAL."""
    return (await sql(clickhouse, f"SELECT count() FROM {table}"))[0][0]  # noqa: S608
