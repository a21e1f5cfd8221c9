"""Prometheus Alertmanager's webhook, version 4, and its translation into anomalies: pure functions.

| of the incident | from the alert, first that is there |
|---|---|
| id | `am-<fingerprint>-<startsAt in base 32>`: a repeated notification is the same incident, a new outbreak a new one |
| service | labels `service_id`, `service`, `app`, `job` (required) |
| metric | labels `metric_name`, `metric`, `alertname` (required; Prometheus always sets the last) |
| environment | labels `environment`, `env`, `namespace` |
| score | label or annotation `anomaly_score` (0..1), else by the label `severity`, see `SCORES` |
| root cause | annotations `root_cause`, `description`, `summary` |
| suggested actions | annotations `suggested_actions`, `runbook`, one a line |

Source of the format: Prometheus documentation, Alertmanager, configuration, `<webhook_config>`.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from api.problems import Fault, faults_of
from domain.anomaly import Anomaly, AnomalyReport
from domain.base import Durable, UtcDatetime

SCORES = {
    "critical": 0.95,
    "page": 0.95,
    "high": 0.75,
    "error": 0.75,
    "warning": 0.65,
    "medium": 0.5,
    "info": 0.2,
    "low": 0.2,
    "none": 0.2,
}
"""Score by the label `severity`, in any case; each lies in the band of its own name, and a warning is high, so that
`SLACK_MIN_ANOMALY_SCORE=0.6` lets it through."""

UNKNOWN_SEVERITY_SCORE = 0.65
"""Without a severity, or with one of somebody's own: as a warning. Whoever alerts wants it seen."""

SERVICE_LABELS = ("service_id", "service", "app", "job")
METRIC_LABELS = ("metric_name", "metric", "alertname")
ENVIRONMENT_LABELS = ("environment", "env", "namespace")
CAUSE_ANNOTATIONS = ("root_cause", "description", "summary")
ACTION_ANNOTATIONS = ("suggested_actions", "runbook")

NAME_CHARACTERS = 200
TEXT_CHARACTERS = 8_000
ACTIONS = 50

_FINGERPRINT = re.compile(r"[0-9a-f]{8,64}\Z")
_BULLET = re.compile(r"^(?:[-*•]|\d+[.)])\s+")
_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no letter that reads like a digit


class Alert(Durable):
    """One alert of a group. Unknown keys are ignored: the format is the vendor's."""

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    annotations: dict[str, str] = Field(default_factory=dict[str, str])
    startsAt: UtcDatetime
    endsAt: UtcDatetime | None = None
    fingerprint: str = ""


class Notification(Durable):
    """The body. Alerts are read one by one (`read_alert`), so that one odd alert costs no other."""

    version: Literal["4"]
    alerts: Annotated[list[dict[str, Any]], Field(max_length=10_000)]


class Unusable(ValueError):
    """An alert that cannot become an incident; the text is one sentence that names what is missing."""


def read_alert(raw: Mapping[str, Any]) -> Alert:
    """Raises Unusable."""
    try:
        return Alert.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        raise Unusable(_sentence(faults_of(error.errors(include_input=False)))) from None


def incident_id(alert: Alert) -> str:
    """The same for every notification about one outbreak of one alert, whichever Alertmanager of a cluster sends it."""
    fingerprint = alert.fingerprint
    if not _FINGERPRINT.match(fingerprint):
        labels = json.dumps(alert.labels, sort_keys=True)
        fingerprint = hashlib.sha256(labels.encode()).hexdigest()[:16]
    return f"am-{fingerprint}-{_base32(int(alert.startsAt.timestamp()))}"


def to_anomaly(alert: Alert) -> Anomaly:
    """Raises Unusable: no service, or a value that no anomaly may have. Long texts are shortened, not refused."""
    labels, annotations = alert.labels, alert.annotations
    service, metric = _first(labels, SERVICE_LABELS), _first(labels, METRIC_LABELS)
    if service is None:
        raise Unusable(f"the alert names no service: give it one of the labels {', '.join(SERVICE_LABELS)}")
    if metric is None:
        raise Unusable(f"the alert names no metric: give it one of the labels {', '.join(METRIC_LABELS)}")
    try:
        report = AnomalyReport(
            anomaly_id=incident_id(alert),
            service_id=service,
            metric_name=metric,
            timestamp=alert.startsAt,
            anomaly_score=score(alert),
            environment=_first(labels, ENVIRONMENT_LABELS),
            root_cause=_first(annotations, CAUSE_ANNOTATIONS, TEXT_CHARACTERS),
            suggested_actions=_lines(_first(annotations, ACTION_ANNOTATIONS, TEXT_CHARACTERS) or ""),
        )
    except ValidationError as error:
        raise Unusable(_sentence(faults_of(error.errors(include_input=False)))) from None
    return report.to_anomaly()


def score(alert: Alert) -> float:
    """0..1. An `anomaly_score` that is no such number does not cost the incident: the severity decides then."""
    given = alert.labels.get("anomaly_score") or alert.annotations.get("anomaly_score")
    if given is not None:
        try:
            value = float(given)
        except ValueError:
            value = math.nan
        if 0 <= value <= 1:
            return value
    return SCORES.get(alert.labels.get("severity", "").strip().lower(), UNKNOWN_SEVERITY_SCORE)


def recovered_at(alert: Alert, now: datetime) -> datetime:
    """When the source says it was over: `endsAt`, or now where that is missing or still to come."""
    return alert.endsAt if alert.endsAt and alert.startsAt <= alert.endsAt <= now else now


def _first(values: Mapping[str, str], names: tuple[str, ...], limit: int = NAME_CHARACTERS) -> str | None:
    for name in names:
        value = values.get(name, "").strip()
        if value:
            return value[:limit]
    return None


def _lines(text: str) -> list[str]:
    lines = (_BULLET.sub("", line.strip()) for line in text.splitlines())
    return [line for line in lines if line][:ACTIONS]


def _base32(number: int) -> str:
    digits = ""
    while number > 0:
        number, digit = divmod(number, 32)
        digits = _DIGITS[digit] + digits
    return digits or "0"


def _sentence(faults: list[Fault]) -> str:
    return "; ".join(f"{fault.path}: {fault.reason}" for fault in faults[:3])
