"""What is told in Slack, as content: which message, to whom. How it looks is the business of `activities.messages`."""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from domain.anomaly import Anomaly, Severity
from domain.approval import ApprovalRef, ApprovalStatus, ReplyTo
from domain.base import Actor, Durable, UtcDatetime
from domain.memory import SimilarIncident
from domain.plan import Fact


class PostedMessage(Durable):
    """A message that Slack has: what replies, updates and reactions refer to."""

    channel: str
    """Channel id (`C…`)."""
    ts: str
    """Slack's message id within the channel."""


class Alert(Durable):
    """The alert of an anomaly."""

    kind: Literal["alert"] = "alert"
    anomaly: Anomaly
    severity: Severity
    similar: SimilarIncident | None = None


class ApprovalCard(Durable):
    """A request for approval, and later its outcome."""

    kind: Literal["approval"] = "approval"
    workflow_id: str
    """Of the run that asks: where the decision is signalled to."""
    incident_id: str
    runbook: str
    service_id: str
    environment: str | None = None
    step: int
    step_count: int
    title: str
    change: str
    facts: tuple[Fact, ...] = ()
    ref: ApprovalRef
    timeout: timedelta
    deadline_at: UtcDatetime | None = None
    on_timeout: str = "halt"
    status: ApprovalStatus = ApprovalStatus.OPEN
    decided_by: Actor | None = None
    decided_at: UtcDatetime | None = None
    reason: str = ""
    recovered_at: UtcDatetime | None = None
    """When the source said that the anomaly is over, while the card is open."""


class Tone(StrEnum):
    """How a note is marked, beside its words."""

    INFO = "info"
    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"


class Note(Durable):
    """One line or paragraph of plain text in the thread; foreign text is welcome, markup in it stays text."""

    kind: Literal["note"] = "note"
    text: str
    tone: Tone = Tone.INFO


Message = Annotated[Alert | ApprovalCard | Note, Field(discriminator="kind")]


class AlertState(StrEnum):
    """What the reaction on the alert says; each is one emoji."""

    WAITING = "waiting"
    RUNNING = "running"
    RESOLVED = "resolved"
    FAILED = "failed"


class Post(Durable):
    """Post a message: as a reply if `thread` is given, else in `channel` (default: the configured one)."""

    op: Literal["post"] = "post"
    key: str
    """How the workflow refers to the message later, e.g. `approval-2-1`."""
    message: Message
    thread: PostedMessage | None = None
    channel: str | None = None


class Update(Durable):
    """Replace a message that was posted."""

    op: Literal["update"] = "update"
    posted: PostedMessage
    message: Message


class React(Durable):
    """Show a state as a reaction, in place of another. A failing reaction never matters."""

    op: Literal["react"] = "react"
    posted: PostedMessage
    add: AlertState | None = None
    remove: AlertState | None = None


class Tell(Durable):
    """Answer one person alone (an ephemeral message)."""

    op: Literal["tell"] = "tell"
    reply_to: ReplyTo
    text: str


Telling = Annotated[Post | Update | React | Tell, Field(discriminator="op")]


class Delivery(Durable):
    """A batch for one activity, in order."""

    tellings: tuple[Telling, ...]


class Delivered(Durable):
    """What became of one telling: `posted` for a post of the bot, `error` when Slack refused it for good."""

    posted: PostedMessage | None = None
    error: str | None = None


class DeliveryReport(Durable):
    """The outcomes of the first `len(outcomes)` tellings, at least one; the rest was not tried and is to be handed over again."""

    outcomes: tuple[Delivered, ...]
