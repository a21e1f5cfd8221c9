"""Anomalies, events, runs and memories for the tests of records."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from domain.anomaly import Anomaly, Severity
from domain.audit import AuditAction, AuditEvent, RecordBatch, RunbookExecution
from domain.base import Actor, Source
from domain.incident import TriageRequest, Verdict, anomaly_records
from domain.memory import RememberedIncident

NOON = datetime(2026, 4, 10, 12, 0, 5, 123457, tzinfo=UTC)
ADA = Actor(id="U0ADA", name="Ada", source=Source.SLACK)
CAUSE = "CPU saturation from DB connection pool exhaustion."

NASTY = (
    "O'Brien's \"pods\" \\ \\' \\N \\0 \\",
    "'; DROP TABLE infrasage_audit_log; --",
    "{name:String} {{ name }} %s %(x)s $1 $x$ ?",
    "tab\t line\n carriage\r end",
    "🚨 déjà vu — 数据库 \u202e\u200b",
    "NULL",
    "",
)
"""Texts that have broken somebody's SQL."""


def an_anomaly(anomaly_id: str, **overrides: Any) -> Anomaly:
    values: dict[str, Any] = {
        "anomaly_id": anomaly_id,
        "service_id": "payment-api",
        "environment": "production",
        "metric_name": "cpu_usage_percent",
        "metric_value": 87.0,
        "anomaly_score": 0.93,
        "timestamp": NOON,
        "root_cause": CAUSE,
        "rca_confidence": 0.92,
        "blast_radius": ("user-service", "checkout-service"),
        "suggested_actions": ("Scale payment-api to 5 pods", "Restart pods"),
    }
    return Anomaly(**{**values, **overrides})


def an_event(incident_id: str = "anom-7f3d", **overrides: Any) -> AuditEvent:
    values: dict[str, Any] = {
        "event_id": str(uuid4()),
        "at": NOON,
        "incident_id": incident_id,
        "action": AuditAction.APPROVAL_APPROVED,
        "runbook": "scale-out-payment-api",
        "step": 2,
        "actor": ADA.id,
        "actor_name": ADA.name,
        "source": ADA.source,
        "detail": {"text": "approved", "digest": "ab" * 32},
    }
    return AuditEvent(**{**values, **overrides})


def a_run(status: str = "running", **overrides: Any) -> RunbookExecution:
    values: dict[str, Any] = {
        "workflow_id": "anom-7f3d/scale-out-payment-api",
        "incident_id": "anom-7f3d",
        "runbook": "scale-out-payment-api",
        "service_id": "payment-api",
        "environment": "production",
        "status": status,
        "started_at": NOON,
        "finished_at": None,
        "started_by": "InfraSage",
        "steps": [{"index": 1, "type": "slack", "summary": "Post a message", "status": "succeeded"}],
    }
    return RunbookExecution(**{**values, **overrides})


def the_record_of(anomaly: Anomaly, *, alert: bool = True, reason: str | None = None) -> RecordBatch:
    """What triage and the scribe write of an anomaly."""
    request = TriageRequest(anomaly=anomaly, event_id=str(uuid4()), at=NOON + timedelta(seconds=1))
    return anomaly_records(request, Severity.CRITICAL, Verdict(alert=alert, reason=reason))


def a_memory(anomaly: Anomaly, **overrides: Any) -> RememberedIncident:
    values: dict[str, Any] = {
        "anomaly": anomaly,
        "resolution": "Scaled from 3 to 5 pods. Memory leak in v2.3.1 DB pool — upgrading to v2.3.2.",
        "resolved_by": "Ada",
        "resolved_at": NOON + timedelta(minutes=12),
        "minutes_to_resolve": 12.0,
        "runbook_outcomes": {"scale-out-payment-api": "succeeded"},
    }
    return RememberedIncident(**{**values, **overrides})
