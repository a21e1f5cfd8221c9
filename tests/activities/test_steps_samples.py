"""The sample runbooks run, step by step, as they are: against a simulated cluster and servers on loopback."""

import json
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from activities.clients.web import WebClient
from activities.secrets import Secrets
from cli.simulated_cluster import SimulatedCluster
from domain.expressions import holds
from domain.plan import StepResult
from domain.runbook import Runbook, load_runbook
from tests.activities.steps import NAMES, TRUST, a_request, attempt, run_step, step_activities
from tests.peers.cluster import connected
from tests.peers.http import answer, http_peer

ROOT = Path(__file__).parents[2]


def sample(file: str) -> Any:
    text = (ROOT / "runbooks" / file).read_text()
    return json.loads(text) if file.endswith(".json") else yaml.safe_load(text)


@pytest.fixture
async def simulated() -> AsyncIterator[SimulatedCluster]:
    """The cluster of `make demo`."""
    async with SimulatedCluster(rollout=timedelta(0)) as running:
        running.add_deployment("production", "payment-api", 3)
        yield running


async def run(runbook: Runbook, simulated: SimulatedCluster, folder: Path) -> list[StepResult]:
    async with connected(simulated.write_kubeconfig(folder / "kubeconfig")) as cluster:
        activities = step_activities(cluster=cluster)
        return [
            await run_step(activities, a_request(step, number=number))
            for number, step in enumerate(runbook.steps, start=1)
            if step.when is None or holds(step.when, NAMES)
        ]


async def test_the_seeds_runbook_scales_from_three_to_five(simulated: SimulatedCluster, tmp_path: Path) -> None:
    results = await run(load_runbook(sample("scale-out-payment-api.yaml")), simulated, tmp_path)
    assert simulated.replicas("production", "payment-api") == 5
    assert [result.summary for result in results][1] == "payment-api scaled from 3 to 5 replicas"


async def test_the_way_back_ends_at_the_usual_three(simulated: SimulatedCluster, tmp_path: Path) -> None:
    simulated.set_replicas("production", "payment-api", 5)
    await run(load_runbook(sample("scale-in-payment-api.yaml")), simulated, tmp_path)
    assert simulated.replicas("production", "payment-api") == 3


async def test_the_latency_runbook_scales_the_service_of_the_anomaly(simulated: SimulatedCluster, tmp_path: Path) -> None:
    results = await run(load_runbook(sample("scale-out-on-latency.yaml")), simulated, tmp_path)
    assert simulated.replicas("production", "payment-api") == 6
    assert str(NAMES["root_cause"]) in results[1].summary


async def test_the_check_of_infrasage_asks_its_health_page(simulated: SimulatedCluster, tmp_path: Path) -> None:
    definition = sample("check-infrasage.json")
    async with http_peer(answer(200, b"ok")) as peer:
        definition["steps"][0]["url"] = definition["steps"][0]["url"].replace(":9093", f":{peer.port}")
        results = await run(load_runbook(definition), simulated, tmp_path)
        assert [(request.method, request.target) for request in peer.requests] == [("GET", "/healthz")]
    assert results[0].outputs == {"status": 200}


async def test_the_pages_own_example_plans_every_step(simulated: SimulatedCluster, tmp_path: Path) -> None:
    async def public(host: str, port: int) -> Sequence[str]:
        return ["8.8.8.8"]  # judged, and never connected to

    runbook = load_runbook(json.loads((ROOT / "tests" / "data" / "page-example-runbook.json").read_text()))
    web = WebClient(["api.pagerduty.com"], resolver=public, tls=TRUST)
    async with connected(simulated.write_kubeconfig(tmp_path / "kubeconfig")) as cluster:
        activities = step_activities(cluster=cluster, web=web, secrets=Secrets({"PAGERDUTY_API_TOKEN": "pd-value"}))
        plans = [await attempt(activities.plan, a_request(step)) for step in runbook.steps]
    assert [plan.title for plan in plans] == [
        "Post a message to #alerts",
        "Scale deployment to 5 replicas",
        "POST https://api.pagerduty.com/incidents",
    ]
    assert plans[2].request["headers"] == {"Authorization": "Token $PAGERDUTY_API_TOKEN"}
