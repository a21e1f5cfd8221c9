"""Counters of this process for Prometheus, prefix `infrasage_`. Labels are routes and fixed words, never ids or names of people."""

import time

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

LATENCY_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0)
"""Buckets; 3 s is Slack's own limit for an answer."""


class Metrics:
    """One registry per app, so that two apps in one process do not share counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "infrasage_http_requests", "Answers by route and status.", ("method", "route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "infrasage_http_request_seconds",
            "Time from request to answer.",
            ("route",),
            buckets=LATENCY_SECONDS,
            registry=self.registry,
        )
        self.anomalies = Counter(
            "infrasage_anomalies",
            "Anomalies received, by sender and what became of them (created, repeated, conflict, recovered, ignored, refused).",
            ("sender", "result"),
            registry=self.registry,
        )
        self.clicks = Counter(
            "infrasage_slack_clicks",
            "Slack clicks and commands, by action and outcome (signalled, answered, unavailable).",
            ("action", "outcome"),
            registry=self.registry,
        )
        self.forged = Counter(
            "infrasage_slack_refused", "Slack requests whose signature was refused, by reason.", ("reason",), registry=self.registry
        )

    def text(self) -> bytes:
        """Everything in the text format that Prometheus scrapes."""
        return generate_latest(self.registry)


class MeasuredRequests:
    """ASGI middleware that counts and times every HTTP request."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500
        began = time.monotonic()

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            route = route_of(scope)
            method = scope["method"] if route != UNMATCHED else "other"
            self._metrics.requests.labels(method, route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.monotonic() - began)


UNMATCHED = "unmatched"


def route_of(scope: Scope) -> str:
    """The template of the route that answered (`/api/v1/incidents/{id}`), so that ids never become labels."""
    return getattr(scope.get("route"), "path", UNMATCHED)
