"""The audit log: who did what, when, on which surface. Rows are only ever added."""

from enum import StrEnum
from typing import Any

from pydantic import Field

from domain.anomaly import Anomaly, Severity
from domain.base import SYSTEM, Durable, Source, UtcDatetime


class AuditAction(StrEnum):
    ANOMALY_RECORDED = "anomaly.recorded"
    ALERT_SENT = "alert.sent"
    ALERT_SUPPRESSED = "alert.suppressed"
    ALERT_FAILED = "alert.failed"
    RUNBOOK_STARTED = "runbook.started"
    APPROVAL_REQUESTED = "approval.requested"
    APPROVAL_APPROVED = "approval.approved"
    APPROVAL_REJECTED = "approval.rejected"
    APPROVAL_EXPIRED = "approval.expired"
    APPROVAL_CANCELLED = "approval.cancelled"
    APPROVAL_REFUSED = "approval.refused"
    STEP_PLANNED = "step.planned"
    STEP_SUCCEEDED = "step.succeeded"
    STEP_FAILED = "step.failed"
    STEP_SKIPPED = "step.skipped"
    STEP_UNKNOWN = "step.unknown"
    STEP_SETTLED = "step.settled"
    STEP_ROLLED_BACK = "step.rolled_back"
    STEP_ROLLBACK_FAILED = "step.rollback_failed"
    RUNBOOK_FINISHED = "runbook.finished"
    INCIDENT_ACKNOWLEDGED = "incident.acknowledged"
    INCIDENT_ESCALATED = "incident.escalated"
    INCIDENT_RECOVERED = "incident.recovered"
    INCIDENT_RESOLVED = "incident.resolved"
    INCIDENT_CLOSED = "incident.closed"
    INCIDENT_SIGNAL_REFUSED = "incident.signal_refused"
    RUNBOOK_REFUSED = "runbook.refused"


class AuditEvent(Durable):
    """One row of `infrasage_audit_log`."""

    event_id: str
    """A UUID, unique; made once in the workflow, so a repeated insert is the same row."""
    at: UtcDatetime
    incident_id: str
    action: AuditAction
    runbook: str = ""
    step: int | None = None
    """1-based, as people see it."""
    actor: str = SYSTEM.id
    actor_name: str = SYSTEM.name
    source: Source = Source.SYSTEM
    detail: dict[str, Any] = Field(default_factory=dict)


class RunbookExecution(Durable):
    """One row of `infrasage_runbook_executions`: one finished (or started) run of a runbook."""

    workflow_id: str
    incident_id: str
    runbook: str
    service_id: str
    environment: str = ""
    status: str
    started_at: UtcDatetime
    finished_at: UtcDatetime | None = None
    started_by: str
    steps: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    """Per step: `index`, `type`, `summary`, `status`."""


class RecordedAnomaly(Durable):
    """One row of `anomalies`: the anomaly and the verdict on alerting it."""

    anomaly: Anomaly
    severity: Severity
    alerted: bool
    suppressed_reason: str = ""
    recorded_at: UtcDatetime


class RecordBatch(Durable):
    """What is written in one activity, in order."""

    audit: tuple[AuditEvent, ...] = ()
    executions: tuple[RunbookExecution, ...] = ()
    anomalies: tuple[RecordedAnomaly, ...] = ()
    again: bool = False
    """It was offered before by another activity, which may have written a part of it."""
