"""The embedded stack in one process: Temporal's server beside it, the worker and the API on one event loop and one ClickHouse."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from temporalio.client import Client

from api.auth import FixedKeys
from cli import local_stack
from cli.embedded import TemporalServer, TemporalServerOptions
from cli.local_stack import RunningStack
from cli.output import Failure
from cli.parts import listen, running_server, running_worker
from cli.wiring import World, migrated, open_world
from domain.access import ApiKey, Role, generate_key
from domain.settings import Settings
from workflows import search
from workflows.connection import orchestrator_plugin

FIRST_KEY_NAME = "admin"


@dataclass(frozen=True)
class StackOptions:
    """Where the stack lives and answers."""

    data_dir: Path
    port: int
    temporal_port: int
    ui_port: int
    host: str = "127.0.0.1"
    temporal_synchronous: Literal["full", "normal"] = "full"
    headless: bool = False
    """Without the Temporal UI."""


@dataclass(frozen=True)
class Stack:
    """A stack that runs."""

    url: str
    """Of the API and the console, on this machine."""
    temporal: str
    """`host:port`."""
    temporal_ui: str | None
    operator_key: str
    """In clear, for the commands of the person who started it."""
    new_key: str | None
    """In clear, at the first start only, and only where no keys are configured."""
    world: World
    parts: tuple[asyncio.Task[None], ...]
    """End only if something failed."""


@contextlib.asynccontextmanager
async def running_stack(settings: Settings, options: StackOptions) -> AsyncGenerator[Stack]:
    """Start everything; leaving stops it in reverse: no more requests, the worker drained, ClickHouse closed, the server ended.

    Raises: EmbeddedStackError, NotConfigured, Failure; nothing is left running then.
    """
    async with contextlib.AsyncExitStack() as stack:
        server = TemporalServer(_server_options(options))
        # First of all, because it takes the data directory for this process.
        await stack.enter_async_context(server)
        listener = listen(options.host, options.port)
        stack.callback(listener.close)
        url = f"http://{'127.0.0.1' if options.host in ('0.0.0.0', '::') else options.host}:{options.port}"  # noqa: S104 compared
        if "infrasage_url" not in settings.model_fields_set:
            settings = settings.model_copy(update={"infrasage_url": f"http://localhost:{options.port}"})
        keys = _Keys.of(settings, options.data_dir)
        world = await stack.enter_async_context(open_world(settings, options.data_dir, allow_loopback=True))
        client = await _client(server)
        await stack.enter_async_context(migrated(world.records))
        worker = await stack.enter_async_context(running_worker(client, world.activities()))
        app = world.app(client, FixedKeys(keys.known))
        api = await stack.enter_async_context(running_server(app, listener))
        temporal = asyncio.create_task(server.wait_closed(), name="Temporal server")
        stack.callback(temporal.cancel)
        keys.keep(options.data_dir)  # as late as this: a key that nobody was shown must not be the one that counts
        local_stack.announce(options.data_dir, RunningStack(url=url, temporal=server.address))
        stack.callback(local_stack.retract, options.data_dir)
        yield Stack(
            url=url,
            temporal=server.address,
            temporal_ui=server.ui_url,
            operator_key=keys.operator_key,
            new_key=keys.new_key,
            world=world,
            parts=(temporal, worker, api),
        )


def _server_options(options: StackOptions) -> TemporalServerOptions:
    return TemporalServerOptions(
        data_dir=options.data_dir,
        port=options.temporal_port,
        ui_port=options.ui_port,
        synchronous=options.temporal_synchronous,
        search_attributes={key.name: "Keyword" for key in search.ALL},
        headless=options.headless,
    )


async def _client(server: TemporalServer) -> Client:
    """Not `connect`, which reads TEMPORAL_*: those are about another server than this one."""
    try:
        return await Client.connect(server.address, plugins=[orchestrator_plugin()])
    except RuntimeError:
        raise Failure(f"The embedded Temporal server does not answer at {server.address}; its log is {server.log_path}.") from None


@dataclass(frozen=True)
class _Keys:
    """The keys that open a stack."""

    known: tuple[ApiKey, ...]
    operator_key: str
    new_key: str | None
    made: tuple[ApiKey, ...] = ()
    """Not written down yet."""

    @classmethod
    def of(cls, settings: Settings, data_dir: Path) -> Self:
        """Those of the settings, those kept in `data_dir`, and the operator's; where there would be none but that, a new one."""
        configured, kept = settings.infrasage_api_keys, local_stack.kept_keys(data_dir)
        new_key = generate_key() if kept is None and not configured else None
        made = (local_stack.named_key(new_key, FIRST_KEY_NAME, Role.ADMIN, ()),) if new_key else ()
        shared = (*configured, *(kept or ()), *made)
        operator_key = local_stack.operator_key(data_dir)
        operator = local_stack.named_key(operator_key, local_stack.person(), Role.OPERATOR, shared)
        return cls((*shared, operator), operator_key, new_key, made)

    def keep(self, data_dir: Path) -> None:
        if self.made:
            local_stack.keep_keys(data_dir, self.made)
