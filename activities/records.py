"""The activities that write records: audit rows, runs of runbooks, anomalies, and incident memory."""

from typing import Protocol

from temporalio import activity

from activities.errors import OrchestratorError, to_application_error
from domain.audit import RecordBatch
from domain.incident import RememberRequest
from domain.memory import RememberedIncident, minutes_between


class IncidentRecords(Protocol):
    """Where records are kept. Both methods may be called twice with the same argument, and raise errors of the tree.

    `first_try`: nobody can have written any of it, so it need not be looked for, which costs more than writing it.
    """

    async def append(self, batch: RecordBatch, *, first_try: bool = False) -> None: ...

    async def remember(self, incident: RememberedIncident, *, first_try: bool = False) -> None: ...


class RecordsActivities:
    """`records.append` and `records.remember`."""

    def __init__(self, records: IncidentRecords) -> None:
        self._records = records

    @activity.defn(name="records.append")
    async def append(self, batch: RecordBatch) -> None:
        """Write a batch. Safe to run twice: a row is known by its event id, anomaly id, or run and status."""
        try:
            # Anomalies come here only because triage, which may have written them all the same, got no answer.
            first_try = activity.info().attempt == 1 and not batch.again and not batch.anomalies
            await self._records.append(batch, first_try=first_try)
        except OrchestratorError as error:
            raise to_application_error(error) from None

    @activity.defn(name="records.remember")
    async def remember(self, request: RememberRequest) -> None:
        """Keep a resolved incident for the next similar one. Safe to run twice: the anomaly id has one entry, the latest."""
        try:
            await self._records.remember(remembered(request), first_try=activity.info().attempt == 1)
        except OrchestratorError as error:
            raise to_application_error(error) from None


def remembered(request: RememberRequest) -> RememberedIncident:
    """What is kept of a resolution: the resolver by name, and the minutes from the anomaly's timestamp to the resolution."""
    anomaly, resolution = request.anomaly, request.resolution
    return RememberedIncident(
        anomaly=anomaly,
        resolution=resolution.text,
        resolved_by=resolution.by.name,
        resolved_at=resolution.at,
        minutes_to_resolve=minutes_between(anomaly.timestamp, resolution.at),
        runbook_outcomes=request.runbook_outcomes,
    )
