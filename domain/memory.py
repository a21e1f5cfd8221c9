"""Incident memory: what is remembered of a resolved incident, and how a similar one is recalled."""

from domain.anomaly import Anomaly
from domain.base import Durable, UtcDatetime


class RememberedIncident(Durable):
    """One row of `infrasage_incident_memory`."""

    anomaly: Anomaly
    resolution: str
    resolved_by: str
    resolved_at: UtcDatetime
    minutes_to_resolve: float
    """From the anomaly's timestamp to the resolution; never negative."""
    runbook_outcomes: dict[str, str]
    """Runbook name → status word of its run."""


class SimilarIncident(Durable):
    """The best match above the threshold, as the alert shows it."""

    anomaly_id: str
    occurred_at: UtcDatetime
    minutes_to_resolve: float
    resolution: str
    similarity: float  # 0..1
