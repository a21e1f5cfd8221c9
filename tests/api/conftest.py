"""A real Temporal server for the session, and for each test an edge with a Slack peer and a worker of the real workflows."""

from collections.abc import AsyncIterator

import pytest
from temporalio.client import Client

from tests.api.edge import Edge
from tests.peers.slack import SlackPeer
from tests.peers.temporal import real_server
from tests.workflows.world import Stage
from workflows.connection import connect


@pytest.fixture(scope="session")
async def temporal() -> AsyncIterator[Client]:
    async with real_server() as server:
        yield await connect(target_host=server.address)


@pytest.fixture
async def slack() -> AsyncIterator[SlackPeer]:
    async with SlackPeer() as slack:
        yield slack


@pytest.fixture
async def stage(temporal: Client) -> AsyncIterator[Stage]:
    """A worker of the real workflows; its activities are recorded."""
    async with Stage(temporal) as stage:
        yield stage


@pytest.fixture
async def edge(stage: Stage, slack: SlackPeer) -> AsyncIterator[Edge]:
    """The app, in front of a worker that runs what it starts."""
    async with Edge(stage.client, stage.queue, slack) as edge:
        yield edge


@pytest.fixture
async def lone_edge(temporal: Client) -> AsyncIterator[Edge]:
    """The app without a worker behind it, and without Slack: what it stores stays where Temporal keeps it."""
    async with Edge(temporal, "nobody-listens") as edge:
        yield edge
