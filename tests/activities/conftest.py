"""ClickHouse for the tests of activities: one server for all of them, and chDB in this process for each."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from activities.clients.clickhouse import ClickHouse
from tests.peers.clickhouse import ClickHouseServer, clickhouse_server, embedded_clickhouse, served_clickhouse


@pytest.fixture(scope="session")
async def clickhouse_process(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ClickHouseServer]:
    """The process of the server; ask for `server`, which is always in a good mood at first."""
    async with clickhouse_server(tmp_path_factory.mktemp("clickhouse-server")) as server:
        yield server


@pytest.fixture
async def server(clickhouse_process: ClickHouseServer) -> AsyncIterator[ClickHouseServer]:
    """A ClickHouse server over HTTP; whatever a test does to it is over with the test."""
    yield clickhouse_process
    await clickhouse_process.serve()


@pytest.fixture(params=["embedded", "server"])
async def clickhouse(
    request: pytest.FixtureRequest, clickhouse_process: ClickHouseServer, tmp_path: Path
) -> AsyncIterator[ClickHouse]:
    """ClickHouse, migrated and empty, on either engine."""
    opened = embedded_clickhouse(tmp_path) if request.param == "embedded" else served_clickhouse(clickhouse_process.settings())
    async with opened as clickhouse:
        yield clickhouse


@pytest.fixture
async def served(server: ClickHouseServer) -> AsyncIterator[ClickHouse]:
    """A client of the server, migrated and empty."""
    async with served_clickhouse(server.settings()) as clickhouse:
        yield clickhouse
