"""`infrasage worker`: the workflows and activities, against a Temporal and a ClickHouse that run elsewhere."""

import asyncio

from cli.logs import log_to_stderr
from cli.output import Failure, remark, waiting
from cli.parts import running_worker, stop_signals, until_stopped
from cli.wiring import NO_DATA_DIR, connect_temporal, have_search_attributes, migrated, open_world
from domain.settings import Settings, load_settings


def run_worker() -> None:
    """Run until SIGTERM or SIGINT, then drain. Raises: what keeps the worker from starting, or ended it."""
    settings = load_settings()
    if settings.clickhouse_host is None:
        raise Failure(
            "CLICKHOUSE_HOST must be set for `infrasage worker`: the embedded ClickHouse belongs to one process, `infrasage up`."
        )
    log_to_stderr()
    asyncio.run(_run(settings))


async def _run(settings: Settings) -> None:
    with stop_signals() as stop:
        async with open_world(settings, NO_DATA_DIR) as world:
            with waiting("Connecting to Temporal and ClickHouse"):
                client = await connect_temporal()
                await have_search_attributes(client)
            async with migrated(world.records), running_worker(client, world.activities()) as worker:
                remark(f"The worker runs on {client.service_client.config.target_host}, namespace {client.namespace}.")
                await until_stopped(stop, worker)
                remark(f"Stopping ({stop.reason}): the worker finishes what it has begun …")
    remark("Stopped.")
