"""PagerDuty's Events API v2 on loopback: it checks what the real one checks, and keeps alerts by their key."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.peers.http import HttpPeer, Received, answer, http_peer

ROUTING_KEY = "e93facc04764012d7bfb002500d5d1a6"
SEVERITIES = ("critical", "error", "warning", "info")


@dataclass
class PagerDutyPeer:
    """A listening endpoint with its integrations; `alerts` are open or resolved, by routing key and dedup key."""

    http: HttpPeer
    keys: set[str]
    alerts: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    events: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """What was accepted, in order."""
    throttled: int = 0
    """How many of the next requests are answered with 429."""
    broken: int = 0
    """How many of the next requests are taken, and answered with 500."""
    lost: int = 0
    """How many of the next requests are taken, and never answered."""

    @property
    def url(self) -> str:
        return self.http.url("/v2/enqueue")

    def take(self, request: Received) -> tuple[int, dict[str, Any]]:
        """Judge a request as the documentation says."""
        if (request.method, request.target) != ("POST", "/v2/enqueue"):
            return 404, {"status": "not found", "message": "no such resource"}
        if self.throttled:
            self.throttled -= 1
            return 429, {"status": "throttle exceeded", "message": "Requests for this service are arriving too quickly."}
        if not request.headers.get("content-type", "").startswith("application/json"):
            return 400, _invalid("Content-Type must be application/json")
        try:
            event = json.loads(request.body)
        except ValueError:
            return 400, _invalid("JSON parse error")
        errors = self._errors(event)
        if errors:
            return 400, _invalid(*errors)
        self.events.append(event)
        key = event.get("dedup_key", f"generated-{len(self.events)}")
        self.alerts[event["routing_key"], key] = "resolved" if event["event_action"] == "resolve" else "triggered"
        return 202, {"status": "success", "message": "Event processed", "dedup_key": key}

    def _errors(self, event: Any) -> list[str]:
        if not isinstance(event, dict):
            return ["Event object format is unrecognized"]
        errors: list[str] = []
        if event.get("routing_key") not in self.keys:
            errors.append(f"'routing_key' {event.get('routing_key')} is invalid")  # the worst case: it says the key again
        action = event.get("event_action")
        if action not in ("trigger", "acknowledge", "resolve"):
            errors.append("'event_action' is invalid")
        if action != "trigger" and not event.get("dedup_key"):
            errors.append("'dedup_key' is missing or blank")
        if len(event.get("dedup_key", "")) > 255:
            errors.append("'dedup_key' is too long (maximum is 255 characters)")
        if action == "trigger":
            payload = event.get("payload") or {}
            errors += [
                f"'payload.{name}' is missing or blank" for name in ("summary", "source", "severity") if not payload.get(name)
            ]
            if payload.get("severity") not in SEVERITIES:
                errors.append("'payload.severity' is invalid")
            if len(payload.get("summary", "")) > 1_024:
                errors.append("'payload.summary' is too long (maximum is 1024 characters)")
        return errors


def _invalid(*errors: str) -> dict[str, Any]:
    return {"status": "invalid event", "message": "Event object is invalid", "errors": list(errors)}


@asynccontextmanager
async def pagerduty(*keys: str) -> AsyncIterator[PagerDutyPeer]:
    """An endpoint that knows the routing keys."""

    async def reply(request: Received, writer: asyncio.StreamWriter) -> None:
        status, body = peer.take(request)
        if status == 202 and peer.lost:
            peer.lost -= 1
            return
        if status == 202 and peer.broken:
            peer.broken -= 1
            status, body = 500, {}
        headers = {"content-type": "application/json", **({"retry-after": "7"} if status == 429 else {})}
        await answer(status, json.dumps(body).encode(), headers)(request, writer)

    async with http_peer(reply) as http:
        peer = PagerDutyPeer(http, set(keys or (ROUTING_KEY,)))
        yield peer
