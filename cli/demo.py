"""`make demo`: the stage for the whole story, set up and taken down; nothing of it is left behind. The story is `demo_story`."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import SecretStr
from pydantic_settings import PydanticBaseSettingsSource

from cli.api_client import Api
from cli.demo_slack import CHANNEL, SIGNING_SECRET, TOKEN, DemoSlack
from cli.demo_story import NAMESPACE, REPLICAS_BEFORE, SAMPLE, SERVICE, DemoStory
from cli.embedded import free_port
from cli.logs import log_to_stderr
from cli.output import Failure, out, say, waiting
from cli.parts import stop_signals
from cli.simulated_cluster import SimulatedCluster
from cli.stack import StackOptions, running_stack
from domain.settings import Settings

RUNBOOKS = SAMPLE.parent.parent / "runbooks"

ROLLOUT = timedelta(seconds=1)
"""How long the simulated cluster takes for new pods."""

WIDTH_COLUMNS = 112


class _GivenSettings(Settings):
    """Settings from nothing but the arguments: the demo must not post to a Slack, or scale a cluster, that somebody configured."""

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[Any], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def run_demo(*, yes: bool) -> None:
    """Play the story. Raises: Failure naming the part that did not happen."""
    if not SAMPLE.is_file() or not RUNBOOKS.is_dir():
        raise Failure(f"The demo needs samples/{SAMPLE.name} and runbooks/ of a checkout: run it there, with `make demo`.")
    log_to_stderr(logging.WARNING)
    out.width = min(out.width, WIDTH_COLUMNS)
    asyncio.run(_until_over(yes=yes))


async def _until_over(*, yes: bool) -> None:
    """The story, or its end by Ctrl-C; either way everything is stopped and removed."""
    with stop_signals() as stop:
        story = asyncio.create_task(_played(yes=yes))
        asked = asyncio.create_task(stop.wait())
        await asyncio.wait({story, asked}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if stop.is_asked and not story.done():
            story.cancel()
            await asyncio.gather(story, return_exceptions=True)  # what it has to say is that it was cancelled
            raise Failure("The demo was interrupted; it is stopped and removed.", exit_code=130)
        await story


async def _played(*, yes: bool) -> None:
    began = time.monotonic()
    async with _staged() as story:
        await story.play(yes=yes)
    say()
    say(f"Every part happened and was checked, in {time.monotonic() - began:.0f} s. Nothing is left behind.", style="bold green")
    say("Keep it running with `make up`; the README tells how to connect Slack and a real cluster.")


@asynccontextmanager
async def _staged() -> AsyncGenerator[DemoStory]:
    """The embedded stack on free ports in a temporary folder, a simulated Slack and a simulated cluster."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="infrasage-demo-")))
        with waiting("Starting Temporal, ClickHouse, the worker, the API, and a simulated Slack and cluster"):
            cluster = await stack.enter_async_context(SimulatedCluster(rollout=ROLLOUT))
            cluster.add_deployment(NAMESPACE, SERVICE, REPLICAS_BEFORE)
            slack = await stack.enter_async_context(DemoSlack())
            settings = _GivenSettings(
                runbooks_dir=RUNBOOKS,
                kubeconfig=cluster.write_kubeconfig(folder / "kubeconfig"),
                slack_bot_token=SecretStr(TOKEN),
                slack_signing_secret=SecretStr(SIGNING_SECRET),
                slack_channel=CHANNEL,
                slack_api_url=slack.api_url,
            )
            options = StackOptions(folder / "data", port=free_port(), temporal_port=free_port(), ui_port=free_port())
            running = await stack.enter_async_context(running_stack(settings, options))
        api = stack.enter_context(Api(running.url, running.operator_key))
        yield DemoStory(running, api, cluster, slack)
