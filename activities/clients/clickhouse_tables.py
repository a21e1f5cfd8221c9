"""The rows of the tables: which columns are written, with which types, and what is read back.

The types are those of the written values; the server converts where a table that was there before has others (`Native` format,
`input_format_native_allow_types_conversion`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

from activities.errors import Refused
from domain.audit import AuditEvent, RecordedAnomaly, RunbookExecution
from domain.base import canonical_json, sha256_of
from domain.memory import RememberedIncident

Row = Sequence[Any]

CAUSE_KEY_CHARACTERS = 300
"""How much of a root cause is compared: its first sentences. The look-up's cost is proportional to it."""

_TIME = "DateTime64(6, 'UTC')"
_EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
_LATEST = datetime(2299, 12, 31, tzinfo=UTC)


@dataclass(frozen=True)
class Table:
    """A table and the columns that are written, with the types of the values."""

    name: str
    columns: Mapping[str, str]


ANOMALIES = Table(
    "anomalies",
    MappingProxyType(
        {
            "anomaly_id": "String",
            "service_id": "String",
            "metric_name": "String",
            "metric_value": "Nullable(Float64)",
            "timestamp": _TIME,
            "anomaly_score": "Float64",
            "environment": "String",
            "root_cause": "String",
            "rca_confidence": "Nullable(Float64)",
            "blast_radius": "Array(String)",
            "suggested_actions": "Array(String)",
            "severity": "String",
            "alerted": "Bool",
            "suppressed_reason": "String",
            "recorded_at": _TIME,
        }
    ),
)

AUDIT = Table(
    "infrasage_audit_log",
    MappingProxyType(
        {
            "event_id": "UUID",
            "at": _TIME,
            "incident_id": "String",
            "runbook": "String",
            "step": "Nullable(UInt32)",
            "action": "String",
            "actor": "String",
            "actor_name": "String",
            "source": "String",
            "detail": "String",
            "position": "UInt32",
        }
    ),
)

EXECUTIONS = Table(
    "infrasage_runbook_executions",
    MappingProxyType(
        {
            "workflow_id": "String",
            "incident_id": "String",
            "runbook": "String",
            "service_id": "String",
            "environment": "String",
            "status": "String",
            "started_at": _TIME,
            "finished_at": f"Nullable({_TIME})",
            "started_by": "String",
            "steps": "String",
            "version": "UInt64",
            "fingerprint": "String",
        }
    ),
)

MEMORY = Table(
    "infrasage_incident_memory",
    MappingProxyType(
        {
            "anomaly_id": "String",
            "service_id": "String",
            "metric_name": "String",
            "environment": "String",
            "occurred_at": _TIME,
            "root_cause": "String",
            "cause_key": "String",
            "anomaly": "String",
            "resolution": "String",
            "resolved_by": "String",
            "resolved_at": _TIME,
            "minutes_to_resolve": "Float64",
            "runbook_outcomes": "Map(String, String)",
            "fingerprint": "String",
        }
    ),
)


def storable_time(at: datetime) -> datetime:
    """Clamp an instant that a sender chose to what DateTime64 holds in every version (1900 to 2299)."""
    return min(max(at, _EARLIEST), _LATEST)


def cause_key(root_cause: str | None) -> str:
    """Reduce a root cause to what is compared: lower case, single spaces, `CAUSE_KEY_CHARACTERS`; empty when unknown."""
    return " ".join((root_cause or "").lower().split())[:CAUSE_KEY_CHARACTERS]


def anomaly_row(recorded: RecordedAnomaly) -> Row:
    """What is unknown is an empty text, or NULL for a number."""
    anomaly = recorded.anomaly
    return (
        anomaly.anomaly_id,
        anomaly.service_id,
        anomaly.metric_name,
        anomaly.metric_value,
        storable_time(anomaly.timestamp),
        anomaly.anomaly_score,
        anomaly.environment or "",
        anomaly.root_cause or "",
        anomaly.rca_confidence,
        list(anomaly.blast_radius),
        list(anomaly.suggested_actions),
        recorded.severity.value,
        recorded.alerted,
        recorded.suppressed_reason,
        recorded.recorded_at,
    )


def event_id(event: AuditEvent) -> UUID:
    """Raises Refused when the id is not a UUID."""
    try:
        return UUID(event.event_id)
    except ValueError:
        raise Refused("an audit row was not written: its event_id is not a UUID") from None


def audit_row(event: AuditEvent, position: int) -> Row:
    """`position` is the place in its batch: events of one workflow task share their instant, and their order is kept."""
    return (
        event_id(event),
        storable_time(event.at),
        event.incident_id,
        event.runbook,
        event.step,
        event.action.value,
        event.actor,
        event.actor_name,
        event.source.value,
        canonical_json(event.detail),
        position,
    )


AUDIT_READ = "toString(event_id), at, incident_id, runbook, step, action, actor, actor_name, source, detail"


def audit_event(row: Row) -> AuditEvent:
    """From the columns of `AUDIT_READ`."""
    identity, at, incident_id, runbook, step, action, actor, actor_name, source, detail = row
    return AuditEvent(
        event_id=identity,
        at=at,
        incident_id=incident_id,
        runbook=runbook,
        step=step,
        action=action,
        actor=actor,
        actor_name=actor_name,
        source=source,
        detail=json.loads(detail),
    )


def fingerprint(model: RunbookExecution | RememberedIncident) -> str:
    """Tell a repeated row from a newer one of the same thing."""
    return sha256_of(model.model_dump(mode="json"))


def execution_row(execution: RunbookExecution) -> Row:
    return (
        execution.workflow_id,
        execution.incident_id,
        execution.runbook,
        execution.service_id,
        execution.environment,
        execution.status,
        storable_time(execution.started_at),
        storable_time(execution.finished_at) if execution.finished_at else None,
        execution.started_by,
        canonical_json(execution.steps),
        execution_version(execution),
        fingerprint(execution),
    )


def execution_version(execution: RunbookExecution) -> int:
    """Order the rows of one run: a finished row wins over a started one, even of the same microsecond, whichever arrives last."""
    latest = storable_time(execution.finished_at or execution.started_at)
    return max(0, int(latest.timestamp() * 1_000_000)) * 2 + (execution.finished_at is not None)


EXECUTIONS_READ = "workflow_id, incident_id, runbook, service_id, environment, status, started_at, finished_at, started_by, steps"


def execution_of(row: Row) -> RunbookExecution:
    """From the columns of `EXECUTIONS_READ`."""
    workflow_id, incident_id, runbook, service_id, environment, status, started_at, finished_at, started_by, steps = row
    return RunbookExecution(
        workflow_id=workflow_id,
        incident_id=incident_id,
        runbook=runbook,
        service_id=service_id,
        environment=environment,
        status=status,
        started_at=started_at,
        finished_at=finished_at,
        started_by=started_by,
        steps=json.loads(steps),
    )


def memory_row(incident: RememberedIncident) -> Row:
    """The anomaly is kept twice: whole, as JSON, and in the columns that the look-up reads."""
    anomaly = incident.anomaly
    return (
        anomaly.anomaly_id,
        anomaly.service_id,
        anomaly.metric_name,
        anomaly.environment or "",
        storable_time(anomaly.timestamp),
        anomaly.root_cause or "",
        cause_key(anomaly.root_cause),
        anomaly.model_dump_json(),
        incident.resolution,
        incident.resolved_by,
        storable_time(incident.resolved_at),
        incident.minutes_to_resolve,
        dict(incident.runbook_outcomes),
        fingerprint(incident),
    )
