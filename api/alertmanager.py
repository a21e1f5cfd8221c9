"""`POST /api/v1/alertmanager`: Prometheus Alertmanager's webhook (version 4). Firing starts an incident, resolved signals recovery.

Alertmanager retries any 5xx and drops anything else without telling anybody. So: 503 only when Temporal did not take one of the
alerts (what it took is idempotent), and 200 with a result for each alert otherwise, which the log repeats for those refused.
The body may have 1 MiB instead of 64 KiB: a group carries every alert of an outage, about 1 KiB each.
"""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends

from api.alertmanager_format import Alert, Notification, Unusable, incident_id, read_alert, recovered_at, to_anomaly
from api.auth import may_ingest
from api.bodies import json_body
from api.intake import take_in
from api.problems import Problem
from api.services import Needed, Services
from api.temporal import NotRunning, within
from domain.incident import RecoverRequest
from workflows.ids import incident_workflow_id

GROUP_LIMIT_BYTES = 1024 * 1024

GROUP_SECONDS = 9.0
"""For a whole group: Alertmanager gives up after `group_interval`, which is 10 s at the least (dispatch.go)."""

CONCURRENT_ALERTS = 16
"""Of one group at Temporal at a time: an outage must not keep the clicks of its own incidents waiting."""

log = logging.getLogger(__name__)

router = APIRouter(dependencies=[Depends(may_ingest)])


@router.post("/api/v1/alertmanager")
async def post_alerts(
    notification: Annotated[Notification, Depends(json_body(Notification, limit_bytes=GROUP_LIMIT_BYTES))], needed: Needed
) -> dict[str, Any]:
    """200 `{"alerts": [{"fingerprint", "incident_id", "result", "detail"}]}`, in the order of the group; 503 as the module says.

    `result`: `created`, `repeated` (a reminder of the same outbreak), `recovered`, `ignored` (resolved, but the incident is unknown
    or closed), `refused` (`detail` says why).
    """
    now = datetime.now(UTC)
    slots = asyncio.Semaphore(CONCURRENT_ALERTS)

    async def one(raw: dict[str, Any]) -> dict[str, Any]:
        async with slots:
            return await _take(raw, now, needed)

    async with within(GROUP_SECONDS):
        outcomes = await asyncio.gather(*(one(raw) for raw in notification.alerts), return_exceptions=True)
    results: list[dict[str, Any]] = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        results.append(outcome)
        needed.metrics.anomalies.labels("alertmanager", outcome["result"]).inc()
    return {"alerts": results}


async def _take(raw: dict[str, Any], now: datetime, needed: Services) -> dict[str, Any]:
    """What became of one alert. Raises TemporalUnavailable."""
    fingerprint = str(raw.get("fingerprint", ""))[:64]
    try:
        alert = read_alert(raw)
        identity = incident_id(alert)
        result = await _recover(alert, now, needed) if alert.status == "resolved" else await _fire(alert, needed)
    except Unusable as error:
        log.warning("alert %s was refused: %s", fingerprint, error)
        return {"fingerprint": fingerprint, "incident_id": None, "result": "refused", "detail": str(error)}
    return {"fingerprint": fingerprint, "incident_id": identity, "result": result, "detail": ""}


async def _fire(alert: Alert, needed: Services) -> str:
    """An outbreak that is known counts as repeated even where its texts changed: annotations carry the current value."""
    try:
        intake = await take_in(needed.temporal, to_anomaly(alert), needed.settings.severity_bands)
    except Problem as problem:
        if problem.status == 422:
            raise Unusable(problem.detail) from None
        raise
    return "created" if intake == "created" else "repeated"


async def _recover(alert: Alert, now: datetime, needed: Services) -> str:
    request = RecoverRequest(recovered_at=recovered_at(alert, now))
    try:
        await needed.temporal.signal(incident_workflow_id(incident_id(alert)), "recover", request)
    except NotRunning:
        return "ignored"
    return "recovered"
