"""Servers for the workflow tests: one that skips time, and the real one."""

from collections.abc import AsyncIterator

import pytest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from tests.peers.temporal import real_server, time_skipping_environment
from tests.workflows.world import Stage
from workflows import search
from workflows.connection import add_search_attributes, connect, orchestrator_plugin


@pytest.fixture(scope="session")
async def skipping() -> AsyncIterator[WorkflowEnvironment]:
    """The time-skipping server; time passes while a test awaits a result."""
    async with time_skipping_environment(orchestrator_plugin()) as environment:
        await add_search_attributes(environment.client, [key.name for key in search.ALL])
        yield environment


@pytest.fixture(scope="session")
async def temporal() -> AsyncIterator[Client]:
    """The real server of the wheel."""
    async with real_server() as server:
        yield await connect(target_host=server.address)


@pytest.fixture
async def stage(skipping: WorkflowEnvironment) -> AsyncIterator[Stage]:
    """A worker without a cache, so that every task replays its history, on the server that skips time."""
    async with Stage(skipping.client, environment=skipping, max_cached_workflows=0) as stage:
        yield stage


@pytest.fixture
async def live_stage(temporal: Client) -> AsyncIterator[Stage]:
    """A worker as in production, on the real server."""
    async with Stage(temporal) as stage:
        yield stage
