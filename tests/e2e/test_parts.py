"""`infrasage worker` and `infrasage api` as two processes, against a Temporal and a ClickHouse server that run elsewhere."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from cli.embedded import free_port
from cli.simulated_cluster import SimulatedCluster
from domain.access import generate_key, hash_key
from tests.e2e.harness import (
    Json,
    an_anomaly,
    attempts,
    environment,
    eventually,
    has_ended,
    infrasage,
    is_waiting,
    scale_runbook,
    write_runbook,
)
from tests.peers.clickhouse import PASSWORD, USER, ClickHouseServer, clickhouse_server
from tests.peers.temporal import real_server

ROLLOUT = timedelta(seconds=1.5)


@dataclass
class Part:
    """A part as its own process."""

    process: asyncio.subprocess.Process
    log: Path

    async def says(self, words: str) -> None:
        async def check() -> bool:
            assert self.process.returncode is None, self.log.read_text()
            return words in self.log.read_text()

        await eventually(check, 60)

    async def terminated(self) -> int:
        """SIGTERM. Returns: the exit code."""
        self.process.terminate()
        async with asyncio.timeout(60):
            return await self.process.wait()


@dataclass
class Site:
    """Where the parts run: what they are told, and the API that answers."""

    folder: Path
    variables: dict[str, str]
    key: str
    port: int
    cluster: SimulatedCluster
    clickhouse: ClickHouseServer

    @asynccontextmanager
    async def part(self, *arguments: str, **variables: str) -> AsyncIterator[Part]:
        path = self.folder / f"{arguments[0]}-{len(list(self.folder.glob('*.log')))}.log"
        with path.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "cli.main", *arguments),
                cwd=self.folder,
                env=environment(**{**self.variables, **variables}),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
            )
        try:
            yield Part(process, path)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    @asynccontextmanager
    async def api(self, **variables: str) -> AsyncIterator[Part]:
        async with self.part("api", "--port", str(self.port), **variables) as api:
            await api.says("The API listens on")
            yield api

    async def command(self, *arguments: str) -> Json:
        url = f"http://127.0.0.1:{self.port}"
        outcome = await infrasage(*arguments, "--json", cwd=self.folder, INFRASAGE_URL=url, INFRASAGE_API_KEY=self.key)
        assert outcome.code == 0, outcome.err
        return outcome.json

    async def until(self, incident_id: str, holds: object) -> Json:
        seen: list[Json] = []

        async def check() -> bool:
            async with httpx.AsyncClient(trust_env=False) as http:
                url = f"http://127.0.0.1:{self.port}/api/v1/incidents/{incident_id}"
                answer = await http.get(url, headers={"X-API-Key": self.key})
            seen[:] = [answer.json()] if answer.is_success else []
            return bool(seen) and bool(holds(seen[0]))  # type: ignore[operator]

        await eventually(check, 60, lambda: f"{seen}")
        return seen[0]


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("parts")
    key = generate_key()
    keys = [{"name": "operator", "role": "operator", "scope": "full", "key_sha256": hash_key(key)}]
    write_runbook(folder / "runbooks", scale_runbook())
    async with AsyncExitStack() as stack:
        # A namespace without our search attributes: registering them is the worker's work.
        temporal = await stack.enter_async_context(real_server(search_attributes={}))
        clickhouse = await stack.enter_async_context(clickhouse_server(folder / "clickhouse"))
        cluster = await stack.enter_async_context(SimulatedCluster(rollout=ROLLOUT))
        cluster.add_deployment("production", "payment-api", 3)
        variables = {
            "TEMPORAL_ADDRESS": temporal.address,
            "CLICKHOUSE_HOST": "127.0.0.1",
            "CLICKHOUSE_PORT": str(clickhouse.port),
            "CLICKHOUSE_USER": USER,
            "CLICKHOUSE_PASSWORD": PASSWORD,
            "INFRASAGE_API_KEYS": json.dumps(keys),
            "KUBECONFIG": str(cluster.write_kubeconfig(folder / "kubeconfig")),
        }
        yield Site(folder, variables, key, free_port(), cluster, clickhouse)


async def test_the_story_runs_on_parts_and_both_drain_on_sigterm(site: Site) -> None:
    async with site.part("worker") as worker, site.api() as api:
        await worker.says("The worker runs on")
        anomaly = an_anomaly()
        incident_id = anomaly["anomaly_id"]
        (site.folder / "anomaly.json").write_text(json.dumps(anomaly))
        assert (await site.command("fire", "anomaly.json"))["created"] is True
        await site.until(incident_id, is_waiting)
        async with httpx.AsyncClient(trust_env=False) as http:
            url = f"http://127.0.0.1:{site.port}/api/v1/incidents/{incident_id}/decision"
            assert (await http.post(url, json={"decision": "approve"}, headers={"X-API-Key": site.key})).status_code == 202
        await eventually(lambda: _true(len(site.cluster.writes) == 1))

        # In the middle of the step: the worker finishes it, and nobody has to do it again.
        assert await worker.terminated() == 0

        assert site.cluster.replicas("production", "payment-api") == 5
        async with site.part("worker") as successor:
            await successor.says("The worker runs on")
            story = await site.until(incident_id, has_ended)
            assert story["runbooks"][0]["status"] == "succeeded"
            rows = (await site.command("audit", incident_id))["rows"]
            assert "approval.approved" in [row["action"] for row in rows]
            assert await successor.terminated() == 0
        assert await api.terminated() == 0
        assert len(site.cluster.writes) == 1
        run_id = f"{incident_id}/scale-out-payment-api"
        assert await attempts(site.variables["TEMPORAL_ADDRESS"], run_id, "step.execute") == [1, 1, 1]


async def test_a_worker_starts_while_clickhouse_is_down_and_migrates_when_it_is_back(site: Site) -> None:
    await site.clickhouse.refuse()
    try:
        async with site.part("worker", CLICKHOUSE_DATABASE="later") as worker:
            await worker.says("what is to be recorded waits until it answers")
            await worker.says("The worker runs on")
            await site.clickhouse.serve()
            await worker.says("applied the migration")
            assert await worker.terminated() == 0
    finally:
        await site.clickhouse.serve()


async def test_a_worker_with_a_wrong_clickhouse_password_says_so_without_repeating_it(site: Site) -> None:
    variables = {**site.variables, "CLICKHOUSE_PASSWORD": "not-the-password"}
    outcome = await infrasage("worker", cwd=site.folder, **variables)
    assert outcome.code == 1
    assert outcome.err.count("Error: ") == 1
    assert "not-the-password" not in outcome.err


async def test_a_worker_of_a_namespace_that_is_not_there_says_so(site: Site) -> None:
    outcome = await infrasage("worker", cwd=site.folder, **{**site.variables, "TEMPORAL_NAMESPACE": "no-such-namespace"})
    assert outcome.code == 1
    assert "The worker cannot work in the namespace no-such-namespace" in outcome.err
    assert outcome.err.count("Error: ") == 1 and "Traceback" not in outcome.err


async def test_an_api_without_clickhouse_serves_everything_but_the_audit_log(site: Site) -> None:
    async with site.api(CLICKHOUSE_HOST="") as api, httpx.AsyncClient(trust_env=False) as http:
        await api.says("CLICKHOUSE_HOST is not set: the audit log cannot be read here")
        url, headers = f"http://127.0.0.1:{site.port}/api/v1", {"X-API-Key": site.key}
        assert (await http.get(f"{url}/incidents", headers=headers)).status_code == 200
        audit = await http.get(f"{url}/audit", headers=headers)
        assert audit.status_code == 503
        assert "the embedded ClickHouse can be read by `infrasage up` alone" in audit.json()["detail"]


async def test_an_api_starts_before_temporal_and_says_that_it_is_not_ready(site: Site) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    async with site.api(TEMPORAL_ADDRESS=nobody), httpx.AsyncClient(trust_env=False, timeout=20) as http:
        assert (await http.get(f"http://127.0.0.1:{site.port}/healthz")).status_code == 200
        assert (await http.get(f"http://127.0.0.1:{site.port}/readyz")).status_code == 503
        answer = await http.post(
            f"http://127.0.0.1:{site.port}/api/v1/anomalies", json=an_anomaly(), headers={"X-API-Key": site.key}
        )
        assert answer.status_code == 503


async def _true(value: bool) -> bool:
    return value
