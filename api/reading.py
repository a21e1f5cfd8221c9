"""Looking at incidents: the views of an incident and of its runs, asked for together, and the lists.

Only Temporal is asked. What the API shows is what the workflows say of themselves; nothing is cached.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from api.problems import Problem
from api.temporal import INCIDENT, RUN, Execution, NoWorker, TemporalAccess
from domain.approval import ApprovalStatus
from domain.incident import IncidentStatus, IncidentView, RunbookView, RunStatus, StepStatus, StepView
from workflows import search

DESCRIBE_SECONDS = 1.0
VIEWS_SECONDS = 2.0
"""For the views of an incident and of all its runs together. With the first bound, a look takes 3 s at the most."""


@dataclass(frozen=True)
class Story:
    """An incident with its runs, or a run of its own (started by hand) without an incident."""

    id: str
    incident: IncidentView | None
    runs: tuple[RunbookView, ...]

    def open_approvals(self) -> list[tuple[RunbookView, StepView]]:
        """Every request that waits for a decision now."""
        return [
            (run, step)
            for run in self.runs
            for step in run.steps
            if step.approval is not None and step.approval.status is ApprovalStatus.OPEN
        ]

    def unknown_steps(self) -> list[tuple[RunbookView, StepView]]:
        """Every step of which a human has to say how it stands."""
        return [
            (run, step) for run in self.runs if run.finished_at is None for step in run.steps if step.status is StepStatus.UNKNOWN
        ]


def unknown_id(incident_id: str) -> Problem:
    return Problem(404, f"There is no incident {incident_id[:300]}: check the id, or list what there is.")


async def known(temporal: TemporalAccess, incident_id: str) -> Execution:
    """What Temporal knows of an incident or a run. Raises Problem 404, TemporalUnavailable."""
    execution = await temporal.describe(incident_id, seconds=DESCRIBE_SECONDS)
    if execution is None:
        raise unknown_id(incident_id)
    return execution


async def look(temporal: TemporalAccess, incident_id: str) -> Story:
    """The story of an incident, or of a run, by its workflow id; within 3 s. Raises Problem 404, TemporalUnavailable, NoWorker."""
    execution = await known(temporal, incident_id)
    try:
        async with asyncio.timeout(VIEWS_SECONDS):
            if execution.kind == RUN:
                run = await temporal.view(incident_id, RunbookView)
                if run is None:
                    raise unknown_id(incident_id)
                return Story(incident_id, None, await _with_called(temporal, [run]))
            incident = await temporal.view(incident_id, IncidentView)
            if incident is None:
                raise unknown_id(incident_id)
            runs = await asyncio.gather(*(_run(temporal, name, id_, incident) for name, id_ in incident.runbooks.items()))
            return Story(incident_id, incident, await _with_called(temporal, runs))
    except TimeoutError:
        raise NoWorker(incident_id) from None


async def _with_called(temporal: TemporalAccess, runs: Sequence[RunbookView]) -> tuple[RunbookView, ...]:
    """The runs, and after them those that their `runbook` steps started, at any depth: an approval may be open in any of them."""
    found = list(runs)
    called = [step.run for run in runs for step in run.steps if step.run is not None]
    while called:
        views = [view for view in await asyncio.gather(*(temporal.view(id_, RunbookView) for id_ in called)) if view is not None]
        found += views
        called = [step.run for view in views for step in view.steps if step.run is not None]
    return tuple(found)


async def _run(temporal: TemporalAccess, name: str, workflow_id: str, incident: IncidentView) -> RunbookView:
    view = await temporal.view(workflow_id, RunbookView)
    if view is not None:
        return view
    # It ended longer ago than Temporal keeps histories; how it ended is in `infrasage_runbook_executions`.
    return RunbookView(
        name=name,
        workflow_id=workflow_id,
        incident_id=incident.incident_id,
        service_id=incident.anomaly.service_id,
        environment=incident.anomaly.environment,
        status=RunStatus.UNKNOWN,
        summary="Temporal no longer keeps this run; the audit log tells how it ended.",
        started_at=incident.opened_at,
        finished_at=incident.opened_at,
        steps=(),
    )


@dataclass(frozen=True)
class ListedIncident:
    """One line of the list: what is known without asking a worker."""

    incident_id: str
    status: IncidentStatus
    service_id: str | None
    severity: str | None
    metric_name: str | None
    anomaly_score: float | None  # 0..1
    opened_at: datetime
    closed_at: datetime | None


async def list_incidents(
    temporal: TemporalAccess, *, status: IncidentStatus | None, service_id: str | None, limit: int
) -> list[ListedIncident]:
    """The newest incidents that fit, open ones first. Raises TemporalUnavailable."""

    def fits(found: Execution) -> bool:
        return (status is None or incident_status(found) is status) and (service_id is None or found.service == service_id)

    filters = {search.SERVICE: service_id} if service_id is not None else {}
    # An incident that was ended from outside (terminated in Temporal) keeps its last status word, but counts as closed.
    if status is not None and status is not IncidentStatus.CLOSED:
        filters[search.STATUS] = status.value
    return [_listed(found) for found in await temporal.executions(INCIDENT, filters, fits, limit)]


def incident_status(found: Execution) -> IncidentStatus:
    """The status word of an incident, from what Temporal itself knows."""
    if found.status == IncidentStatus.RESOLVED:
        return IncidentStatus.RESOLVED
    if not found.running:
        return IncidentStatus.CLOSED
    return IncidentStatus(found.status) if found.status in set(IncidentStatus) else IncidentStatus.OPEN


def _listed(found: Execution) -> ListedIncident:
    metric, score = found.memo.get("metric_name"), found.memo.get("anomaly_score")
    return ListedIncident(
        incident_id=found.workflow_id,
        status=incident_status(found),
        service_id=found.service,
        severity=found.severity,
        metric_name=metric if isinstance(metric, str) else None,
        anomaly_score=float(score) if isinstance(score, int | float) else None,
        opened_at=found.started_at,
        closed_at=found.closed_at,
    )


@dataclass(frozen=True)
class ListedRun:
    """One line of the list of runs."""

    workflow_id: str
    runbook: str | None
    service_id: str | None
    status: RunStatus
    started_at: datetime
    finished_at: datetime | None


async def list_runs(
    temporal: TemporalAccess, *, status: RunStatus | None, runbook: str | None, service_id: str | None, limit: int
) -> list[ListedRun]:
    """The newest runs that fit, running ones first, those started by hand included. Raises TemporalUnavailable."""

    def fits(found: Execution) -> bool:
        return (
            (status is None or run_status(found) is status)
            and (runbook is None or found.runbook == runbook)
            and (service_id is None or found.service == service_id)
        )

    wanted = {search.RUNBOOK: runbook, search.SERVICE: service_id}
    filters = {key: value for key, value in wanted.items() if value is not None}
    if status is not None and status is not RunStatus.HALTED:
        filters[search.STATUS] = status.value
    return [
        ListedRun(
            workflow_id=found.workflow_id,
            runbook=found.runbook,
            service_id=found.service,
            status=run_status(found),
            started_at=found.started_at,
            finished_at=found.closed_at,
        )
        for found in await temporal.executions(RUN, filters, fits, limit)
    ]


def run_status(found: Execution) -> RunStatus:
    """The status word of a run; one that was ended from outside counts as halted."""
    status = RunStatus(found.status) if found.status in set(RunStatus) else RunStatus.RUNNING
    live = (RunStatus.RUNNING, RunStatus.AWAITING_APPROVAL)
    return RunStatus.HALTED if not found.running and status in live else status
