"""`infrasage api`: the HTTP edge, against a Temporal and a ClickHouse that run elsewhere."""

import asyncio
from contextlib import AsyncExitStack

from api.app import create_app
from api.temporal import TemporalAccess
from cli.logs import log_to_stderr
from cli.output import remark, warn
from cli.parts import listen, running_server, stop_signals, until_stopped
from cli.wiring import RunbookFiles, connect_temporal, open_bot, records_reader, surroundings_of
from domain.settings import Settings, load_settings


def run_api(host: str, port: int) -> None:
    """Run until SIGTERM or SIGINT, then drain. Temporal may come later: until then `/readyz` says so.

    Raises: what keeps the API from starting, or ended it.
    """
    settings = load_settings()
    log_to_stderr()
    if not settings.infrasage_api_keys:
        warn("INFRASAGE_API_KEYS is not set: nobody can use this API but Slack.")
    if settings.clickhouse_host is None:
        warn("CLICKHOUSE_HOST is not set: the audit log cannot be read here, the embedded one belongs to `infrasage up`.")
    asyncio.run(_run(settings, host, port))


async def _run(settings: Settings, host: str, port: int) -> None:
    with stop_signals() as stop:
        async with AsyncExitStack() as stack:
            listener = listen(host, port)
            stack.callback(listener.close)
            client = await connect_temporal(lazy=True)
            records = records_reader(settings)
            stack.push_async_callback(records.aclose)
            bot = open_bot(settings)
            if bot is not None:
                stack.push_async_callback(bot.aclose)
            app = create_app(
                settings,
                TemporalAccess(client),
                records,
                RunbookFiles(settings.runbooks_dir),
                surroundings=surroundings_of(settings),
                bot=bot,
            )
            api = await stack.enter_async_context(running_server(app, listener))
            remark(f"The API listens on http://{host}:{port}.")
            await until_stopped(stop, api)
            remark(f"Stopping ({stop.reason}): requests that have begun are answered …")
    remark("Stopped.")
