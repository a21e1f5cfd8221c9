"""`infrasage up`: the whole of InfraSage on this machine, until it is told to stop."""

import asyncio
from contextlib import AsyncExitStack

from rich.text import Text

from cli.logs import log_to_stderr
from cli.output import remark, say, waiting, warn
from cli.parts import stop_signals, until_stopped
from cli.stack import Stack, StackOptions, running_stack
from domain.incident import SlackMode
from domain.runbook import Runbook
from domain.settings import Settings, load_settings


def run_up(options: StackOptions) -> None:
    """Run until SIGTERM or SIGINT. Raises: what keeps the stack from starting, or ended it."""
    settings = load_settings()
    log_to_stderr()
    asyncio.run(_run(settings, options))


async def _run(settings: Settings, options: StackOptions) -> None:
    with stop_signals() as stop:
        async with AsyncExitStack() as stack:
            with waiting("Starting Temporal, ClickHouse, the worker and the API"):
                started = await stack.enter_async_context(running_stack(settings, options))
            _greet(started, await asyncio.to_thread(started.world.runbooks.load))
            await until_stopped(stop, *started.parts)
            remark(f"Stopping ({stop.reason}): no new requests, the worker finishes what it has begun …")
    remark("Stopped.")


def _greet(stack: Stack, runbooks: tuple[tuple[Runbook, ...], tuple[str, ...]]) -> None:
    settings, (usable, faults) = stack.world.settings, runbooks
    lines = [("Console", f"{stack.url}/"), ("API", f"{stack.url}/api/v1")]
    if stack.temporal_ui:
        lines.append(("Temporal UI", stack.temporal_ui))
    lines.append(("Slack", _SLACK[settings.slack_mode]))
    lines.append(("Kubernetes", "not configured: kubernetes steps are refused" if stack.world.cluster is None else "configured"))
    lines.append(("Runbooks", f"{len(usable)} in {settings.runbooks_dir}"))
    if stack.new_key:
        lines.append(("API key", f"{stack.new_key}   (role admin; shown this once, only its hash is kept)"))
    say(Text("InfraSage is up.", style="bold green"))
    for name, value in lines:
        say(Text.assemble((f"  {name:<12}", "bold"), value))
    for fault in faults:
        warn(fault)
    say("Commands in this directory need no key: try `infrasage fire samples/anomaly.json`. Ctrl-C stops.")


_SLACK = {
    SlackMode.OFF: "not configured: alerts and approvals are on the command line",
    SlackMode.WEBHOOK: "webhook: alerts are posted; approvals are on the command line",
    SlackMode.BOT: "bot: alerts and approvals are posted, with buttons",
}
