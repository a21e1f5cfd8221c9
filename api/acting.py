"""What people do to incidents and runs, on whichever surface: find what it is about, check what can be checked, signal.

Nothing is decided here. A signal that is stored may still be refused by its workflow (a late click, a second resolution), which
then tells the person; these checks only spare people the detour where the answer is known already.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from api.problems import Problem
from api.reading import incident_status, known, look
from api.temporal import RUN, Execution, NotRunning, NoWorker, TemporalAccess
from domain.approval import Choice, Decision, ReplyTo
from domain.base import Actor
from domain.incident import (
    AcknowledgeRequest,
    HaltRequest,
    IncidentStatus,
    IncidentView,
    Resolution,
    ResolveRequest,
    RunbookView,
    SettleRequest,
    StepView,
)

PEEK_SECONDS = 0.7
"""For asking a worker who it was that resolved the incident: worth a moment; without an answer the refusal names nobody."""


class SeveralOpen(Problem):
    """More than one thing is open, and none was named; a surface without a way to name one words it anew."""

    def __init__(self, detail: str) -> None:
        super().__init__(409, detail)


@dataclass(frozen=True)
class Asked:
    """Who asks, when the request arrived, and where a person can be answered alone."""

    by: Actor
    received_at: datetime
    reply_to: ReplyTo | None = None


async def resolve(temporal: TemporalAccess, incident_id: str, text: str, asked: Asked) -> None:
    """Signal the resolution. Needs no worker.

    Raises Problem 404 (unknown), 409 (already resolved: by whom and when; closed; no incident), TemporalUnavailable.
    """
    execution = await known(temporal, incident_id)
    if execution.kind == RUN:
        raise Problem(409, f"{incident_id} is a run and not an incident: it cannot be resolved, only halted.")
    if incident_status(execution) in (IncidentStatus.RESOLVED, IncidentStatus.CLOSED):
        raise await _over(temporal, execution)
    request = ResolveRequest(text=text, by=asked.by, received_at=asked.received_at, reply_to=asked.reply_to)
    try:
        await temporal.signal(incident_id, "resolve", request)
    except NotRunning:
        raise await _over(temporal, await known(temporal, incident_id)) from None


async def acknowledge(temporal: TemporalAccess, incident_id: str, asked: Asked) -> None:
    """Signal that somebody is on it. Needs no worker. Raises Problem 404, 409, TemporalUnavailable."""
    execution = await known(temporal, incident_id)
    if execution.kind == RUN:
        raise Problem(409, f"{incident_id} is a run and not an incident: there is nothing to acknowledge.")
    try:
        await temporal.signal(incident_id, "acknowledge", AcknowledgeRequest(by=asked.by, received_at=asked.received_at))
    except NotRunning:
        raise await _over(temporal, execution) from None


@dataclass(frozen=True)
class Target:
    """Which request or step is meant, where several are open. `digest`: of the plan that the person saw."""

    runbook: str | None = None
    step: int | None = None
    digest: str | None = None

    def fits(self, run: RunbookView, step: StepView) -> bool:
        return (self.runbook is None or run.name == self.runbook) and (self.step is None or step.index == self.step)

    def __str__(self) -> str:
        named = [f"runbook {self.runbook}"] if self.runbook is not None else []
        named += [f"step {self.step}"] if self.step is not None else []
        return f" in {', '.join(named)}" if named else ""


async def decide(
    temporal: TemporalAccess, incident_id: str, choice: Choice, reason: str, target: Target, asked: Asked
) -> tuple[RunbookView, StepView]:
    """Signal a decision on the one open approval that `target` leaves. Returns: the run and the step it is about.

    Raises Problem 404, 409 (none open, several, or another plan than the one seen), NoWorker, TemporalUnavailable.
    """
    story = await look(temporal, incident_id)
    run, step = _the_one(story.open_approvals(), target, incident_id, "approval")
    if step.approval is None:
        raise RuntimeError("an open approval is an approval")
    ref = step.approval.ref
    if target.digest is not None and target.digest != ref.digest:
        raise Problem(
            409, f"{run.name} step {step.index} was planned anew since you looked: look again, and decide on what is open."
        )
    decision = Decision(choice=choice, ref=ref, by=asked.by, received_at=asked.received_at, reason=reason, reply_to=asked.reply_to)
    await _signal_run(temporal, run, "decide", decision)
    return run, step


async def settle(
    temporal: TemporalAccess, incident_id: str, choice: Literal["done", "retry", "halt"], target: Target, asked: Asked
) -> tuple[RunbookView, StepView]:
    """Signal how a step of unknown outcome stands. Raises Problem 404, 409, NoWorker, TemporalUnavailable."""
    story = await look(temporal, incident_id)
    run, step = _the_one(story.unknown_steps(), target, incident_id, "step of unknown outcome")
    request = SettleRequest(step=step.index, choice=choice, by=asked.by, received_at=asked.received_at, reply_to=asked.reply_to)
    await _signal_run(temporal, run, "settle", request)
    return run, step


async def halt(temporal: TemporalAccess, incident_id: str, reason: str, runbook: str | None, asked: Asked) -> list[str]:
    """Signal every running run of an incident, or the one named, to stop before its next step. Returns: the names of the runbooks.

    Raises Problem 404, 409 (nothing runs), NoWorker, TemporalUnavailable.
    """
    story = await look(temporal, incident_id)
    running = [run for run in story.runs if run.finished_at is None and runbook in (None, run.name)]
    halted: list[str] = []
    for run in running:
        try:
            await temporal.signal(run.workflow_id, "halt", HaltRequest(reason=reason or f"halted by {asked.by.name}", by=asked.by))
        except NotRunning:
            continue  # it ended meanwhile, which is what was asked for
        halted.append(run.name)
    if not halted:
        raise Problem(409, f"No runbook{f' {runbook}' if runbook else ''} of {incident_id} is running: there is nothing to halt.")
    return halted


def _the_one(
    candidates: list[tuple[RunbookView, StepView]], target: Target, incident_id: str, what: str
) -> tuple[RunbookView, StepView]:
    """Raises Problem 409 unless exactly one fits: a guess could approve the wrong step."""
    fitting = [(run, step) for run, step in candidates if target.fits(run, step)]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise Problem(409, f"{incident_id} has no open {what}{target}.")
    choices = "; ".join(f"{run.name} step {step.index}: {step.summary[:100]}" for run, step in fitting[:10])
    raise SeveralOpen(f"{incident_id} has several: name one by its runbook and step ({choices}).")


async def _signal_run(temporal: TemporalAccess, run: RunbookView, name: str, argument: Decision | SettleRequest) -> None:
    try:
        await temporal.signal(run.workflow_id, name, argument)
    except NotRunning:
        raise Problem(409, f"The run of {run.name} ended meanwhile: nothing was changed.") from None


async def _resolution(temporal: TemporalAccess, incident_id: str) -> Resolution | None:
    try:
        view = await temporal.view(incident_id, IncidentView, seconds=PEEK_SECONDS)
    except NoWorker:
        return None
    return view.resolution if view else None


async def _over(temporal: TemporalAccess, execution: Execution) -> Problem:
    """Why an incident that has ended cannot be acted on."""
    incident_id = execution.workflow_id
    if incident_status(execution) is IncidentStatus.RESOLVED:
        resolution = await _resolution(temporal, incident_id)
        if resolution is not None:
            return _already_resolved(incident_id, resolution)
        return Problem(409, f"{incident_id} was already resolved.")
    return Problem(409, f"{incident_id} is closed: nothing can be changed any more.")


def _already_resolved(incident_id: str, resolution: Resolution) -> Problem:
    return Problem(409, f"{incident_id} was already resolved by {resolution.by.name} at {resolution.at:%Y-%m-%d %H:%M:%S} UTC.")
