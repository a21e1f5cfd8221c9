"""A ClickHouse server, over HTTP.

The client is the asynchronous one (on aiohttp): a call that is given up is really given up, and frees its connection. Threads would
stay in a server that hangs until their own timeout, and a handful of them would hold up every later call.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import aiohttp
import clickhouse_connect
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import ClickHouseError, Error
from pydantic import SecretStr

from activities.clients.clickhouse_embedded import INSERT_SETTINGS, READ_SETTINGS
from activities.clients.clickhouse_failures import ACCESS_DENIED, failure_of
from activities.clients.clickhouse_tables import Row, Table
from activities.errors import OrchestratorError, Unreachable

CONNECT_TIMEOUT = timedelta(seconds=3)

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class ServerAddress:
    """How a server is reached, as `CLICKHOUSE_*` say."""

    host: str
    port: int
    user: str
    password: SecretStr
    database: str
    tls: bool = False
    ca_cert: str | None = None
    """File of the CA that signed the server's certificate; None means those the system trusts."""


class ServerEngine:
    """One server. It connects at the first call, and again after every failure to connect."""

    def __init__(self, address: ServerAddress, *, call_timeout: timedelta) -> None:
        self._address = address
        self._call_timeout = call_timeout
        self._where = f"ClickHouse at {address.host}:{address.port}"
        self._client: AsyncClient | None = None
        self._connecting = asyncio.Lock()
        self._is_closed = False

    async def version(self) -> str:
        return str(await self._call(lambda client: client.command("SELECT version()", use_database=False)))

    async def create_database(self) -> None:
        """Create the database if it is missing; a user who may not create databases needs one that is there."""
        statement = f"CREATE DATABASE IF NOT EXISTS `{self._address.database}`"
        await self._call(lambda client: _create(client, statement))

    async def run(self, statement: str) -> None:
        await self._call(lambda client: client.command(statement))

    async def select(self, query: str, parameters: dict[str, Any] | None = None) -> list[Row]:
        result = await self._call(lambda client: client.query(query, parameters=parameters))
        return list(result.result_rows)

    async def read(self, query: str, parameters: dict[str, Any]) -> list[Row]:
        """Run a query that can change nothing."""
        settings = dict(READ_SETTINGS)
        result = await self._call(lambda client: client.query(query, parameters=parameters, settings=settings))
        return list(result.result_rows)

    async def insert(self, table: Table, rows: list[Row], token: str) -> None:
        await self._call(
            lambda client: client.insert(
                table.name,
                rows,
                column_names=list(table.columns),
                column_type_names=list(table.columns.values()),
                settings={**INSERT_SETTINGS, "insert_deduplication_token": token},
            )
        )

    async def aclose(self) -> None:
        """Close every connection."""
        self._is_closed = True
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _call(self, work: Callable[[AsyncClient], Awaitable[_Answer]]) -> _Answer:
        """Make one call within its timeout, connecting included; every failure leaves as one of ours, without a cause.

        A cause would carry the request, and the request carries the password.
        """
        failure: OrchestratorError
        try:
            async with asyncio.timeout(self._call_timeout.total_seconds()):
                return await work(await self._connected())
        except TimeoutError:
            failure = Unreachable(f"{self._where} did not answer within {self._call_timeout.total_seconds():g} s")
        except (ClickHouseError, aiohttp.ClientError, OSError, ValueError, TypeError) as error:
            failure = failure_of(error, self._where, self._address.password.get_secret_value())
        raise failure

    async def _connected(self) -> AsyncClient:
        async with self._connecting:
            if self._is_closed:
                raise Unreachable(f"{self._where} is closed in this process")
            if self._client is None:
                self._client = await self._connect()
            return self._client

    async def _connect(self) -> AsyncClient:
        address = self._address
        client = await clickhouse_connect.get_async_client(
            host=address.host,
            port=address.port,
            username=address.user,
            password=address.password.get_secret_value(),
            interface="https" if address.tls else "http",
            ca_cert=address.ca_cert,
            connect_timeout=CONNECT_TIMEOUT.total_seconds(),
            send_receive_timeout=self._call_timeout.total_seconds(),
            query_retries=0,  # Temporal retries
            compress=False,  # rows are small; compression costs a hop through a thread
            tz_mode="aware",
            client_name="infrasage",
        )
        client.database = address.database  # not before: a database that is yet to be created cannot be connected to
        return client


async def _create(client: AsyncClient, statement: str) -> None:
    try:
        await client.command(statement, use_database=False)
    except Error as error:
        if error.code != ACCESS_DENIED:
            raise
        # Whether the database is there shows at the next statement.
