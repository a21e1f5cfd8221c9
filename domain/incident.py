"""Incidents and runs as the workflows take them in, keep them and show them."""

from datetime import timedelta
from enum import StrEnum
from typing import Literal

from pydantic import Field

from domain.anomaly import Anomaly, Severity
from domain.approval import ApprovalRef, ApprovalStatus, ReplyTo
from domain.audit import AuditAction, AuditEvent, RecordBatch, RecordedAnomaly
from domain.base import SYSTEM, Actor, Durable, UtcDatetime
from domain.expressions import Scalar
from domain.memory import SimilarIncident
from domain.narration import PostedMessage
from domain.plan import Fact, StepPlan, Undo
from domain.runbook import Runbook, Step


class IncidentStatus(StrEnum):
    OPEN = "open"
    SUPPRESSED = "suppressed"
    """Open, but not alerted."""
    RESOLVED = "resolved"
    CLOSED = "closed"
    """Aged out, or recovered and quiet."""


class RunStatus(StrEnum):
    RUNNING = "running"
    AWAITING_APPROVAL = "awaiting_approval"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    HALTED = "halted"
    ROLLED_BACK = "rolled_back"
    UNKNOWN = "unknown"
    """A step's outcome is unknown: a human has to say how it stands."""


class StepStatus(StrEnum):
    PENDING = "pending"
    AWAITING_APPROVAL = "awaiting_approval"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    ROLLED_BACK = "rolled_back"
    UNKNOWN = "unknown"


class SlackMode(StrEnum):
    """What the configured Slack can do: nothing, post, or also thread, update, react and answer."""

    OFF = "off"
    WEBHOOK = "webhook"
    BOT = "bot"


class EscalationKind(StrEnum):
    TICKET = "ticket"
    PAGE = "page"


# --- triage -------------------------------------------------------------------------------------------------------


class Verdict(Durable):
    """Whether the anomaly is alerted, and if not, why: the reason is recorded and shown."""

    alert: bool
    reason: str | None = None


class TriageRequest(Durable):
    anomaly: Anomaly
    event_id: str
    """UUID of the audit row `anomaly.recorded`, so that a second attempt writes the same row."""
    at: UtcDatetime


class Triage(Durable):
    """What triage found; the runbooks travel on as they are now."""

    severity: Severity
    verdict: Verdict
    similar: SimilarIncident | None = None
    runbooks: tuple[Runbook, ...] = ()
    faults: tuple[str, ...] = ()
    """Runbooks that could not be considered (a file that does not load, a condition that fails): one sentence each."""
    library: dict[str, Runbook] = Field(default_factory=dict[str, Runbook])
    """The runbooks that the selected ones call."""
    recorded: bool = True
    """False when ClickHouse did not take the anomaly in time: the scribe then records it."""
    slack: SlackMode = SlackMode.OFF
    offers: tuple[EscalationKind, ...] = ()
    """The escalations that are configured: only their buttons show."""
    max_open: timedelta = timedelta(days=30)
    recovered_close: timedelta = timedelta(hours=24)


def anomaly_records(request: TriageRequest, severity: Severity, verdict: Verdict) -> RecordBatch:
    """The row of `anomalies` and its audit row `anomaly.recorded`: the same rows whoever writes them, triage or the scribe."""
    anomaly = request.anomaly
    return RecordBatch(
        anomalies=(
            RecordedAnomaly(
                anomaly=anomaly,
                severity=severity,
                alerted=verdict.alert,
                suppressed_reason=verdict.reason or "",
                recorded_at=request.at,
            ),
        ),
        audit=(
            AuditEvent(
                event_id=request.event_id,
                at=request.at,
                incident_id=anomaly.anomaly_id,
                action=AuditAction.ANOMALY_RECORDED,
                detail={
                    "text": f"{anomaly.service_id} {anomaly.metric_name}: score {anomaly.anomaly_score:g} ({severity.value})",
                    "service_id": anomaly.service_id,
                    "metric_name": anomaly.metric_name,
                    "score": anomaly.anomaly_score,
                    "severity": severity.value,
                    "alert": verdict.alert,
                    "reason": verdict.reason,
                },
            ),
        ),
    )


# --- signals ------------------------------------------------------------------------------------------------------


class ResolveRequest(Durable):
    """Signal `resolve` of an incident."""

    text: str
    by: Actor
    received_at: UtcDatetime
    reply_to: ReplyTo | None = None


class EscalateRequest(Durable):
    """Signal `escalate` of an incident: the ticket and on-call buttons."""

    kind: EscalationKind
    by: Actor
    received_at: UtcDatetime
    reply_to: ReplyTo | None = None


class AcknowledgeRequest(Durable):
    """Signal `acknowledge` of an incident."""

    by: Actor
    received_at: UtcDatetime


class RecoverRequest(Durable):
    """Signal `recover` of an incident, and of its runs: the source says it is over."""

    recovered_at: UtcDatetime


class HaltRequest(Durable):
    """Signal `halt` of a run: stop before the next step; an open approval is cancelled."""

    reason: str
    by: Actor = SYSTEM


class SettleRequest(Durable):
    """Signal `settle` of a run: what a human says about a step whose outcome is unknown."""

    step: int
    """1-based."""
    choice: Literal["done", "retry", "halt"]
    by: Actor
    received_at: UtcDatetime
    reply_to: ReplyTo | None = None


# --- runs ---------------------------------------------------------------------------------------------------------


class RunbookInput(Durable):
    """Everything a run needs: it never looks anything up that could have changed since."""

    incident_id: str
    """The anomaly id, or the run's own workflow id when it was started by hand."""
    runbook: Runbook
    service_id: str
    environment: str | None = None
    anomaly: Anomaly | None = None
    """What started the run; None when a person did."""
    names: dict[str, Scalar] = Field(default_factory=dict[str, Scalar])
    """For conditions and `{{ name }}`."""
    started_by: Actor = SYSTEM
    slack: SlackMode = SlackMode.OFF
    thread: PostedMessage | None = None
    dry_run: bool = False
    library: dict[str, Runbook] = Field(default_factory=dict[str, Runbook])
    """The runbooks that `runbook` steps call, at any depth, as they were when the run was started."""


class StepRequest(Durable):
    """Input of the step activities."""

    workflow_id: str
    """Key of effects, together with `number`."""
    incident_id: str
    runbook: str
    number: int
    """1-based."""
    step: Step
    names: dict[str, Scalar]
    anomaly: Anomaly | None = None
    fixed_at: UtcDatetime
    """The workflow's time when the step began: the same in every attempt."""
    thread: PostedMessage | None = None
    plan: StepPlan | None = None
    """For `execute`: what was planned, and approved if the step asks. None only for a step type whose plan reads nothing."""
    approved_digest: str | None = None
    """For `execute` after an approval: `plan.digest` must equal it."""


class UndoRequest(Durable):
    """Input of the undo activity."""

    workflow_id: str
    incident_id: str
    runbook: str
    number: int
    step: Step
    undo: Undo | None = None
    """None: `step` is itself what takes the step back, as the runbook says (`undo:`)."""
    names: dict[str, Scalar]
    thread: PostedMessage | None = None

    @property
    def title(self) -> str:
        return self.undo.title if self.undo else self.step.title


class RunbookResult(Durable):
    status: RunStatus
    summary: str
    undos: tuple[UndoRequest, ...] = ()
    """What would take the run back, in the order in which it was done: for the run that called it as a step."""


# --- views --------------------------------------------------------------------------------------------------------


class TimelineEntry(Durable):
    at: UtcDatetime
    action: AuditAction
    text: str
    """One sentence for a reader."""
    actor: str
    runbook: str = ""
    step: int | None = None


class ApprovalView(Durable):
    ref: ApprovalRef
    status: ApprovalStatus
    title: str
    change: str
    facts: tuple[Fact, ...] = ()
    opened_at: UtcDatetime
    deadline_at: UtcDatetime | None = None
    decided_by: str | None = None
    decided_at: UtcDatetime | None = None
    reason: str = ""


class StepView(Durable):
    index: int
    """1-based."""
    type: str
    name: str | None = None
    summary: str
    """What it will do; once it ran, what it did."""
    change: str = ""
    status: StepStatus = StepStatus.PENDING
    approval: ApprovalView | None = None
    run: str | None = None
    """Workflow id of the run that a `runbook` step started."""


class RunbookView(Durable):
    """Query `view` of a run."""

    name: str
    workflow_id: str
    incident_id: str
    service_id: str
    environment: str | None = None
    status: RunStatus
    summary: str = ""
    started_at: UtcDatetime
    finished_at: UtcDatetime | None = None
    started_by: str = SYSTEM.name
    dry_run: bool = False
    steps: tuple[StepView, ...]
    timeline: tuple[TimelineEntry, ...] = ()


class Resolution(Durable):
    text: str
    by: Actor
    at: UtcDatetime


class AlertView(Durable):
    """What became of the alert."""

    sent: bool = False
    reason: str | None = None
    """Why it was suppressed, or why Slack did not take it."""
    posted: PostedMessage | None = None


class IncidentView(Durable):
    """Query `view` of an incident; the API joins the views of its runs."""

    incident_id: str
    status: IncidentStatus
    severity: Severity | None = None
    """None until triage is done."""
    anomaly: Anomaly
    similar: SimilarIncident | None = None
    alert: AlertView = AlertView()
    runbooks: dict[str, str] = Field(default_factory=dict)
    """Runbook name → workflow id of its run."""
    faults: tuple[str, ...] = ()
    opened_at: UtcDatetime
    acknowledged_by: str | None = None
    recovered_at: UtcDatetime | None = None
    resolution: Resolution | None = None
    closed_reason: str | None = None
    timeline: tuple[TimelineEntry, ...] = ()


class IncidentInput(Durable):
    """Input of `IncidentWorkflow`."""

    anomaly: Anomaly


class RememberRequest(Durable):
    """Input of the activity that writes incident memory."""

    anomaly: Anomaly
    resolution: Resolution
    runbook_outcomes: dict[str, str] = Field(default_factory=dict[str, str])
