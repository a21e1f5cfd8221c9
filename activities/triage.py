"""Triage: how severe an anomaly is, whether it is alerted, what it resembles, which runbooks it starts, and its record.

One activity, because each costs the incident 10 to 50 ms. Whatever is not needed to alert may fail: without ClickHouse there is no
history and the workflow writes the record later; a runbook that cannot be considered is not started, and the incident says so.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from temporalio import activity

from activities.errors import OrchestratorError, clip
from domain.anomaly import Anomaly, Severity
from domain.audit import RecordBatch
from domain.expressions import ExpressionError
from domain.incident import Triage, TriageRequest, anomaly_records
from domain.library import LibraryError, library_of
from domain.memory import SimilarIncident
from domain.runbook import Runbook
from domain.settings import Settings

MEMORY_TIMEOUT = timedelta(seconds=1)
"""A history is worth this much delay of the alert, and no more."""

RECORD_TIMEOUT = timedelta(seconds=2)

FAULTS_LIMIT = 20
FAULT_CHARACTERS = 400
"""The faults of a directory travel with every incident: 20 sentences are enough to send somebody looking."""


class TriageRecords(Protocol):
    """Where anomalies are recorded and incidents are remembered. Raises errors of the tree."""

    async def append(self, batch: RecordBatch, *, first_try: bool = False) -> None: ...

    async def find_similar(self, anomaly: Anomaly) -> SimilarIncident | None: ...


class RunbookSource(Protocol):
    """Where runbook definitions are read, anew each time. Blocking: it reads files."""

    def load(self) -> tuple[tuple[Runbook, ...], tuple[str, ...]]:
        """Returns: the runbooks, and one sentence for each fault."""
        ...


class TriageActivities:
    """`incident.triage`."""

    def __init__(self, settings: Settings, records: TriageRecords, runbooks: RunbookSource) -> None:
        self._settings = settings
        self._rules = settings.rules
        self._records = records
        self._runbooks = runbooks

    @activity.defn(name="incident.triage")
    async def triage(self, request: TriageRequest) -> Triage:
        """Judge an anomaly. Safe to run twice: the record is known by the anomaly id and by `request.event_id`."""
        anomaly = request.anomaly
        severity = self._settings.severity_bands.severity(anomaly.anomaly_score)
        verdict = self._rules.judge(anomaly, request.at)
        similar, (runbooks, library, faults), recorded = await asyncio.gather(
            self._similar(anomaly),
            self._matching(anomaly, severity),
            self._record(anomaly_records(request, severity, verdict)),
        )
        return Triage(
            severity=severity,
            verdict=verdict,
            similar=similar,
            runbooks=runbooks,
            library=library,
            faults=faults,
            recorded=recorded,
            slack=self._settings.slack_mode,
            offers=tuple(sorted(self._settings.offers)),
            max_open=self._settings.max_open,
            recovered_close=self._settings.recovered_close,
        )

    async def _similar(self, anomaly: Anomaly) -> SimilarIncident | None:
        try:
            async with asyncio.timeout(MEMORY_TIMEOUT.total_seconds()):
                return await self._records.find_similar(anomaly)
        except Exception as error:  # whatever it is, an alert without history is better than no alert
            activity.logger.warning("incident memory was not consulted: %s", type(error).__name__)
            return None

    async def _matching(
        self, anomaly: Anomaly, severity: Severity
    ) -> tuple[tuple[Runbook, ...], dict[str, Runbook], tuple[str, ...]]:
        try:
            runbooks, faults = await asyncio.to_thread(self._runbooks.load)
        except Exception as error:  # nothing is started, and the alert goes out
            activity.logger.warning("runbooks were not read: %s", type(error).__name__)
            return (), {}, (f"The runbooks could not be read ({type(error).__name__}): none was considered.",)
        matching, conditions = select_runbooks(runbooks, anomaly, severity)
        callable_ones, library, calls = with_library(matching, runbooks)
        return callable_ones, library, _within_limits([*faults, *conditions, *calls])

    async def _record(self, batch: RecordBatch) -> bool:
        """Returns: whether ClickHouse took it in time; otherwise the workflow writes the same rows later."""
        try:
            async with asyncio.timeout(RECORD_TIMEOUT.total_seconds()):
                await self._records.append(batch, first_try=activity.info().attempt == 1)
        except (OrchestratorError, TimeoutError) as error:
            activity.logger.warning("the anomaly is recorded later: %s", type(error).__name__)
            return False
        return True


def select_runbooks(
    runbooks: Sequence[Runbook], anomaly: Anomaly, severity: Severity
) -> tuple[tuple[Runbook, ...], tuple[str, ...]]:
    """The runbooks whose trigger matches, in their order, and a sentence for each whose condition cannot be evaluated."""
    matching: list[Runbook] = []
    faults: list[str] = []
    for runbook in runbooks:
        try:
            if runbook.trigger is not None and runbook.trigger.matches(anomaly, severity):
                matching.append(runbook)
        except ExpressionError as error:
            faults.append(f"Runbook {runbook.name} was not considered, its trigger has no answer for this anomaly: {error}")
    return tuple(matching), tuple(faults)


def with_library(
    matching: Sequence[Runbook], runbooks: Sequence[Runbook]
) -> tuple[tuple[Runbook, ...], dict[str, Runbook], tuple[str, ...]]:
    """Returns: those of `matching` whose called runbooks are all there, these, and a sentence for each that is left out."""
    startable: list[Runbook] = []
    library: dict[str, Runbook] = {}
    faults: list[str] = []
    for runbook in matching:
        try:
            library |= library_of(runbook, runbooks)
            startable.append(runbook)
        except LibraryError as error:
            faults.append(f"Runbook {runbook.name} was not started: {error}")
    return tuple(startable), library, tuple(faults)


def _within_limits(faults: Sequence[str]) -> tuple[str, ...]:
    shown = [clip(fault, FAULT_CHARACTERS) for fault in faults[:FAULTS_LIMIT]]
    if len(faults) > FAULTS_LIMIT:
        shown[-1] = f"{len(faults) - FAULTS_LIMIT + 1} more faults are not shown: `infrasage runbooks validate` lists them."
    return tuple(shown)
