"""How long the look-up of a similar incident takes among 100,000 remembered ones, on the embedded engine.

    python -m bench.memory_lookup [--incidents 100000] [--lookups 100]

Two fillings: incidents spread over 300 services, and all of them of one service and metric (the worst case: every one is compared).
Each is printed as absolute times and as a ratio to a floor of the same run: a full scan of the column that is compared. The CPU
time tells how much of it is work, where other processes share the machine. The bound of the project is 100 ms.
"""

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from activities.clients.clickhouse import ClickHouse
from activities.clients.clickhouse_embedded import EmbeddedEngine
from activities.clients.clickhouse_tables import MEMORY, memory_row
from domain.anomaly import Anomaly
from domain.memory import RememberedIncident

BOUND_MS = 100
ROWS_PER_INSERT = 10_000
FILL_TIMEOUT = timedelta(minutes=1)
FLOOR = "SELECT count() FROM infrasage_incident_memory WHERE cause_key != ''"

METRICS = ("cpu_usage_percent", "memory_rss_bytes", "p99_latency_ms", "error_rate", "disk_used_percent", "queue_depth")
WHAT = (
    "CPU saturation", "Memory leak", "Disk full", "Slow queries", "Lock contention", "Thread starvation", "Retry storm",
    "Cache stampede", "Consumer lag", "Replica failover", "Packet loss", "Certificate expired", "Quota exceeded",
)  # fmt: skip
WHERE = (
    "in the DB connection pool", "on node", "in the session cache", "between zones", "in the ingress", "in the message broker",
    "in the search index", "on the primary", "in the sidecar", "in the object store", "in the DNS resolver",
)  # fmt: skip
WHY = (
    "after deploy of", "because the limit was lowered to", "because log rotation was off since", "during the backup of",
    "after traffic doubled over", "because a feature flag opened for", "after the config change to", "while rebalancing",
)  # fmt: skip


def causes(rng: random.Random) -> Iterator[str]:
    """Sentences as root-cause analysis writes them: few patterns, many details."""
    while True:
        detail = f"v{rng.randint(1, 9)}.{rng.randint(0, 30)}.{rng.randint(0, 9)}"
        sentence = f"{rng.choice(WHAT)} {rng.choice(WHERE)} {rng.choice(WHY)} {detail}, seen by {rng.randint(1, 40)} pods."
        yield sentence if rng.random() < 0.5 else f"{sentence} {rng.choice(WHAT)} {rng.choice(WHERE)} followed."


def incident(number: int, service: str, metric: str, cause: str, at: datetime) -> RememberedIncident:
    anomaly = Anomaly(
        anomaly_id=f"anom-{number}",
        service_id=service,
        metric_name=metric,
        timestamp=at,
        anomaly_score=0.9,
        root_cause=cause,
    )
    return RememberedIncident(
        anomaly=anomaly,
        resolution="Scaled from 3 to 5 pods.",
        resolved_by="ada",
        resolved_at=at + timedelta(minutes=12),
        minutes_to_resolve=12,
        runbook_outcomes={"scale-out": "succeeded"},
    )


@dataclass(frozen=True)
class Timing:
    """What one kind of call took, in milliseconds."""

    p50: float
    p99: float
    cpu: float
    """CPU time of the median call, all threads of the process together."""

    def line(self, name: str, floor: "Timing") -> str:
        return (
            f"  {name:<26} p50 {self.p50:7.2f} ms  p99 {self.p99:7.2f} ms  cpu {self.cpu:6.2f} ms"
            f"   {self.p50 / floor.p50:4.1f} × floor (cpu {self.cpu / floor.cpu:4.1f} ×)"
        )


async def timed(call: Callable[[], Awaitable[Any]], times: int) -> Timing:
    """Time `call`, after three calls that do not count."""
    for _ in range(3):
        await call()
    walls: list[float] = []
    cpus: list[float] = []
    for _ in range(times):
        wall, cpu = time.perf_counter(), time.process_time()
        await call()
        walls.append((time.perf_counter() - wall) * 1_000)
        cpus.append((time.process_time() - cpu) * 1_000)
    walls.sort()
    return Timing(statistics.median(walls), walls[min(times - 1, int(times * 0.99))], statistics.median(cpus))


async def fill(engine: EmbeddedEngine, incidents: int, services: int, metrics: int) -> None:
    rng = random.Random(7)
    cause = causes(rng)
    now = datetime.now(UTC)
    for begin in range(0, incidents, ROWS_PER_INSERT):
        rows = [
            memory_row(
                incident(
                    number,
                    f"service-{rng.randrange(services)}",
                    METRICS[rng.randrange(metrics)],
                    next(cause),
                    now - timedelta(minutes=rng.randrange(1_000_000)),
                )
            )
            for number in range(begin, min(begin + ROWS_PER_INSERT, incidents))
        ]
        await engine.insert(MEMORY, rows, f"bench-{begin}")


async def measure(name: str, services: int, metrics: int, options: argparse.Namespace) -> bool:
    """Fill, look up, print. Returns: whether p99 is within the bound."""
    cause = causes(random.Random(8))
    found = 0
    with tempfile.TemporaryDirectory() as folder:
        engine = EmbeddedEngine(Path(folder) / "clickhouse", "default", call_timeout=FILL_TIMEOUT)
        clickhouse = ClickHouse(engine)

        async def look_up(service: str) -> None:
            nonlocal found
            anomaly = incident(-1, service, METRICS[0], next(cause), datetime.now(UTC)).anomaly
            found += await clickhouse.find_similar(anomaly) is not None

        try:
            await clickhouse.migrate()
            print(f"{name}: filling with {options.incidents:,} incidents …", flush=True)
            await fill(engine, options.incidents, services, metrics)
            floor = await timed(lambda: engine.select(FLOOR), options.lookups)
            known = await timed(lambda: look_up("service-0"), options.lookups)
            strange = await timed(lambda: look_up("service-new"), options.lookups)
        finally:
            await clickhouse.aclose()
    print(floor.line("floor: scan of one column", floor))
    print(known.line("look-up, known service", floor))
    print(strange.line("look-up, unknown service", floor))
    print(f"  {found} of {2 * (options.lookups + 3)} look-ups found something")
    return max(known.p99, strange.p99) < BOUND_MS


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--incidents", type=int, default=100_000)
    parser.add_argument("--lookups", type=int, default=100)
    options = parser.parse_args()
    spread = await measure("300 services, 6 metrics", 300, len(METRICS), options)
    hot = await measure("one service, one metric", 1, 1, options)
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    print(f"p99 below {BOUND_MS} ms: {'yes' if spread and hot else 'NO'} (load average {load:.1f} on {cores} cores)")
    return 0 if spread and hot else 1


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
