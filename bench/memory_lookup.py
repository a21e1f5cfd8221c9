"""How long the look-up of a similar incident takes among 100,000 remembered ones, on the embedded engine.

    python -m bench.memory_lookup [--incidents 100000] [--lookups 100]

Two fillings: incidents spread over 300 services, and all of them of one service and metric (the worst case: every one is compared).
Each is printed as absolute times and as a ratio to a floor of the same run: a full scan of the column that is
compared. The bound of the project is 100 ms.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from activities.clients.clickhouse import CALL_TIMEOUT, ClickHouse
from activities.clients.clickhouse_embedded import EmbeddedEngine
from activities.clients.clickhouse_tables import MEMORY, memory_row
from domain.anomaly import Anomaly
from domain.memory import RememberedIncident

BOUND_MS = 100
ROWS_PER_INSERT = 10_000
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


async def timed(call: Callable[[], Awaitable[Any]], times: int) -> list[float]:
    """Milliseconds of each call, after three that do not count."""
    for _ in range(3):
        await call()
    durations: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        await call()
        durations.append((time.perf_counter() - began) * 1_000)
    return sorted(durations)


def summary(name: str, durations: list[float], floor: float) -> str:
    p50, p99 = statistics.median(durations), durations[min(len(durations) - 1, int(len(durations) * 0.99))]
    return f"  {name:<28} p50 {p50:7.2f} ms   p99 {p99:7.2f} ms   {p50 / floor:5.1f} × floor"


async def measure(name: str, services: int, metrics: int, options: argparse.Namespace) -> bool:
    """Fill, look up, print. Returns: whether p99 is within the bound."""
    rng = random.Random(7)
    cause = causes(rng)
    with tempfile.TemporaryDirectory() as folder:
        engine = EmbeddedEngine(Path(folder) / "clickhouse", "default", call_timeout=CALL_TIMEOUT * 12)
        clickhouse = ClickHouse(engine)
        try:
            await clickhouse.migrate()
            now = datetime.now(UTC)
            print(f"{name}: filling with {options.incidents:,} incidents …", flush=True)
            for begin in range(0, options.incidents, ROWS_PER_INSERT):
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
                    for number in range(begin, min(begin + ROWS_PER_INSERT, options.incidents))
                ]
                await engine.insert(MEMORY, rows, f"bench-{begin}")

            found = 0

            async def look_up(service: str) -> None:
                nonlocal found
                anomaly = incident(-1, service, METRICS[0], next(cause), now).anomaly
                found += await clickhouse.find_similar(anomaly) is not None

            floor = await timed(lambda: engine.select(FLOOR), options.lookups)
            known = await timed(lambda: look_up("service-0"), options.lookups)
            strange = await timed(lambda: look_up("service-new"), options.lookups)
        finally:
            await clickhouse.aclose()
    median_floor = statistics.median(floor)
    print(summary("floor: scan of one column", floor, median_floor))
    print(summary("look-up, known service", known, median_floor))
    print(summary("look-up, unknown service", strange, median_floor))
    print(f"  {found} of {2 * (options.lookups + 3)} look-ups found something")
    return max(known[-1], strange[-1]) < BOUND_MS


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--incidents", type=int, default=100_000)
    parser.add_argument("--lookups", type=int, default=100)
    options = parser.parse_args()
    spread = await measure("300 services, 6 metrics", 300, len(METRICS), options)
    hot = await measure("one service, one metric", 1, 1, options)
    print(f"bound {BOUND_MS} ms: {'kept' if spread and hot else 'MISSED'}")
    return 0 if spread and hot else 1


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
