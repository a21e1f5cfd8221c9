"""Taking in an anomaly: one id is one incident, however often and however concurrently it is posted."""

from enum import StrEnum

from temporalio.common import SearchAttributePair

from api.temporal import INCIDENT, INTAKE_SECONDS, TemporalAccess, within
from api.visibility import service_attribute
from domain.anomaly import Anomaly, SeverityBands
from domain.incident import IncidentInput, IncidentStatus
from workflows import search
from workflows.ids import incident_workflow_id

DIGEST_MEMO = "anomaly_digest"
"""Memo of the incident: `Anomaly.digest()` of what started it."""


class Intake(StrEnum):
    CREATED = "created"
    REPEATED = "repeated"
    """The id is known, and this is the same anomaly."""
    CONFLICT = "conflict"
    """The id is known, and belongs to a different anomaly (or to something that is no incident)."""


async def take_in(temporal: TemporalAccess, anomaly: Anomaly, bands: SeverityBands) -> Intake:
    """Start the incident of an anomaly.

    Raises TemporalUnavailable after 5 s in all, and posting the same again is then safe; Problem 422 for a name that is too long.
    Durable: whatever it returns, Temporal has the incident.
    """
    workflow_id = incident_workflow_id(anomaly.anomaly_id)
    digest = anomaly.digest()
    async with within(INTAKE_SECONDS):
        created = await temporal.start(
            INCIDENT,
            IncidentInput(anomaly=anomaly),
            workflow_id=workflow_id,
            attributes=[
                service_attribute(anomaly.service_id),
                SearchAttributePair(search.SEVERITY, bands.severity(anomaly.anomaly_score).value),
                SearchAttributePair(search.STATUS, IncidentStatus.OPEN.value),
            ],
            memo={DIGEST_MEMO: digest, "metric_name": anomaly.metric_name, "anomaly_score": anomaly.anomaly_score},
            summary=f"{anomaly.service_id}: {anomaly.metric_name}",
        )
        if created:
            return Intake.CREATED
        known = await temporal.describe(workflow_id)
    # Deleted between the two calls: it did exist under this id, and what it held can no longer be compared.
    if known is None or known.memo.get(DIGEST_MEMO) != digest:
        return Intake.CONFLICT
    return Intake.REPEATED
