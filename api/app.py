"""The app factory of the HTTP edge: routes, errors, metrics. It holds clients and settings and nothing else."""

from collections.abc import Sequence

from fastapi import APIRouter, FastAPI

from activities.messages.parts import Surroundings
from api import alertmanager, anomalies, audit, health, incidents, problems, runbooks
from api.auth import FixedKeys, KeyRing
from api.metrics import MeasuredRequests, Metrics
from api.services import AuditReader, RunbookSource, Services
from api.slack import edge
from api.slack.edge import SlackEdge
from api.slack.guard import Guard
from api.slack.private import PrivateLine
from api.temporal import TemporalAccess
from domain.incident import SlackMode
from domain.settings import Settings


def create_app(
    settings: Settings,
    temporal: TemporalAccess,
    records: AuditReader,
    runbooks_source: RunbookSource,
    *,
    surroundings: Surroundings | None = None,
    bot: PrivateLine | None = None,
    keys: KeyRing | None = None,
    routers: Sequence[APIRouter] = (),
) -> FastAPI:
    """Build the app.

    surroundings: what alerts refer to; by default the settings' URL, and buttons if there is a bot.
    bot: answers a person alone when a click could not be stored and its `response_url` does not serve. Closed by the caller.
    keys: where API keys are looked up; by default those of the settings. None there means that nobody gets in.
    routers: further routes, the web console's.
    """
    metrics = Metrics()
    services = Services(
        settings=settings,
        temporal=temporal,
        records=records,
        runbooks=runbooks_source,
        surroundings=surroundings
        or Surroundings(console_url=settings.infrasage_url, interactive=settings.slack_mode is SlackMode.BOT),
        metrics=metrics,
    )
    app = FastAPI(title="InfraSage", openapi_url=None, redirect_slashes=False)
    app.state.services = services
    app.state.keys = keys or FixedKeys(settings.infrasage_api_keys)
    app.state.slack_guard = _guard(settings, metrics)
    app.state.slack_edge = SlackEdge(services, bot)
    problems.install(app)
    app.add_middleware(MeasuredRequests, metrics=metrics)
    for router in (
        health.router,
        anomalies.router,
        alertmanager.router,
        incidents.router,
        runbooks.router,
        audit.router,
        edge.router,
        *routers,
    ):
        app.include_router(router)
    return app


def _guard(settings: Settings, metrics: Metrics) -> Guard | None:
    """None, and so 404 on the Slack routes, without a signing secret: an empty one would let everybody in."""
    secret = settings.slack_signing_secret.get_secret_value() if settings.slack_signing_secret else ""
    return Guard(secret, metrics) if secret.strip() else None
