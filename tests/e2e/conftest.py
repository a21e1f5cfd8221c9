"""One real `infrasage up` for the session, with a simulated cluster and a Slack peer around it."""

from collections.abc import AsyncIterator
from datetime import timedelta
from shutil import copytree

import pytest

from cli.simulated_cluster import SimulatedCluster
from tests.e2e.harness import REPOSITORY, RunningStack, running, slack_variables
from tests.peers.slack import SlackPeer


@pytest.fixture(scope="session")
async def cluster() -> AsyncIterator[SimulatedCluster]:
    async with SimulatedCluster(rollout=timedelta(milliseconds=200)) as cluster:
        yield cluster


@pytest.fixture(scope="session")
async def slack() -> AsyncIterator[SlackPeer]:
    async with SlackPeer() as slack:
        yield slack


@pytest.fixture(scope="session")
async def stack(
    tmp_path_factory: pytest.TempPathFactory, cluster: SimulatedCluster, slack: SlackPeer
) -> AsyncIterator[RunningStack]:
    """The stack that most tests share; each takes services and ids of its own."""
    folder = tmp_path_factory.mktemp("stack")
    copytree(REPOSITORY / "runbooks", folder / "runbooks")
    cluster.add_deployment("production", "payment-api", 3)
    kubeconfig = cluster.write_kubeconfig(folder / "kubeconfig")
    async with running(folder, KUBECONFIG=str(kubeconfig), **slack_variables(slack)) as stack:
        yield stack
