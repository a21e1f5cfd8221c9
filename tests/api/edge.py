"""The edge under test: the app over ASGI, a Slack peer, keys of every kind, and what stands in for the stores."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import httpx
import uvicorn
from fastapi import FastAPI
from temporalio.client import Client

from activities.clients.slack_web import SlackBot
from api.app import create_app
from api.temporal import TemporalAccess
from domain.access import ApiKey, Role, Scope, generate_key, hash_key
from domain.audit import AuditEvent
from domain.runbook import Runbook
from domain.settings import Settings, load_settings
from tests.peers.slack import SlackPeer, signed_request
from tests.workflows.world import eventually

INTERACTIONS = "/api/v1/slack/interactions"
COMMANDS = "/api/v1/slack/commands"

KINDS = {
    "operator": (Role.OPERATOR, Scope.FULL),
    "admin": (Role.ADMIN, Scope.FULL),
    "viewer": (Role.VIEWER, Scope.FULL),
    "readonly": (Role.ADMIN, Scope.READONLY),
    "ingestion": (Role.VIEWER, Scope.INGESTION),
}


@dataclass
class Shelf:
    """The stores behind the API, filled by the test."""

    rows: list[AuditEvent] = field(default_factory=list)
    runbooks: tuple[Runbook, ...] = ()
    faults: tuple[str, ...] = ()
    failure: Exception | None = None

    async def audit_rows(self, incident_id: str | None, limit: int) -> list[AuditEvent]:
        if self.failure is not None:
            raise self.failure
        return [row for row in self.rows if incident_id in (None, row.incident_id)][:limit]

    def load(self) -> tuple[tuple[Runbook, ...], tuple[str, ...]]:
        return self.runbooks, self.faults


def settings_for(slack: SlackPeer | None, keys: Mapping[str, str], **overrides: Any) -> Settings:
    """Settings from nothing but the arguments; `keys`: name → key in clear, of the kinds in `KINDS`."""
    values: dict[str, Any] = {
        "_env_file": None,
        "infrasage_api_keys": tuple(
            ApiKey(name=kind, role=KINDS[kind][0], scope=KINDS[kind][1], key_sha256=hash_key(key)) for kind, key in keys.items()
        ),
    }
    if slack is not None:
        values |= {
            "slack_bot_token": slack.token,
            "slack_signing_secret": slack.signing_secret,
            "slack_channel": "#ops-alerts",
            "slack_api_url": slack.api_url,
        }
    return load_settings(**{**values, **overrides})


class Edge:
    """One app and its callers. `client` is the Temporal client; `queue` is where the test's worker listens."""

    def __init__(self, client: Client, queue: str, slack: SlackPeer | None = None, **settings: Any) -> None:
        self.slack = slack
        self.shelf = Shelf()
        self.keys = {kind: generate_key() for kind in KINDS}
        self.settings = settings_for(slack, self.keys, **settings)
        token = self.settings.slack_bot_token
        self._bot = SlackBot(token, "#ops-alerts", api_url=self.settings.slack_api_url) if token else None
        self.app: FastAPI = create_app(
            self.settings, TemporalAccess(client, task_queue=queue), self.shelf, self.shelf, bot=self._bot
        )
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://edge", timeout=30)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.http.aclose()
        if self._bot is not None:
            await self._bot.aclose()

    # --- with a key ---------------------------------------------------------------------------------------------

    async def get(self, path: str, *, key: str = "operator", **options: Any) -> httpx.Response:
        return await self.http.get(path, headers={"X-API-Key": self.keys[key]}, **options)

    async def post(self, path: str, json: Any = None, *, key: str = "operator", **options: Any) -> httpx.Response:
        headers = {"X-API-Key": self.keys[key], **options.pop("headers", {})}
        if json is not None:
            options["json"] = json
        return await self.http.post(path, headers=headers, **options)

    # --- as Slack -----------------------------------------------------------------------------------------------

    async def signed(self, path: str, body: str | bytes, **headers: str) -> httpx.Response:
        """What Slack sends: `body`, signed with the app's secret."""
        assert self.slack is not None
        content = body.encode() if isinstance(body, str) else body
        return await self.http.post(
            path, content=content, headers={**signed_request(self.slack.signing_secret, content), **headers}
        )

    def metric(self, name: str, **labels: str) -> float:
        """The value of a counter as it would be scraped; 0 when it was never touched."""
        return self.app.state.services.metrics.registry.get_sample_value(name, labels) or 0.0


def an_id() -> str:
    return f"anom-{uuid4().hex[:10]}"


def a_report(anomaly_id: str | None = None, **overrides: Any) -> dict[str, Any]:
    """The body of a posted anomaly, as JSON values."""
    values: dict[str, Any] = {
        "anomaly_id": anomaly_id or an_id(),
        "service_id": "payment-api",
        "environment": "production",
        "metric_name": "cpu_usage_percent",
        "anomaly_score": 0.93,
        "timestamp": "2026-04-10T12:00:05Z",
    }
    return {**values, **overrides}


@asynccontextmanager
async def listening(edge: Edge) -> AsyncIterator[str]:
    """The app behind uvicorn on a free port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(edge.app, lifespan="off", log_level="warning", timeout_graceful_shutdown=1))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        await eventually(lambda: server.started)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task
