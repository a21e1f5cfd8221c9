"""The approval gate: a pure state machine that is fed decisions and the clock, and says what became of the request.

Why it judges time itself: in Temporal, signals are applied before timers, so a click that arrives after the deadline, or while no
worker is up, would be accepted by a bare timed wait. The gate therefore accepts a decision only if the API received it before
the deadline and the workflow judges it no later than `JUDGEMENT_GRACE` after the deadline. Everything else is expired.
"""

from datetime import datetime, timedelta
from enum import StrEnum

from domain.base import Actor, Durable, UtcDatetime

JUDGEMENT_GRACE = timedelta(seconds=60)
"""Longest time after the deadline in which a decision that was received in time is still judged. It also bounds what a wrong clock
at the edge can do."""

SIGNAL_BUDGET = timedelta(seconds=2)
"""Longest time the API may take to store a decision (Slack wants its answer within 3 s): how long the gate waits past its
deadline for decisions that were received before it."""


class ApprovalStatus(StrEnum):
    OPEN = "open"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class Choice(StrEnum):
    APPROVE = "approve"
    REJECT = "reject"


class ReplyTo(Durable):
    """Where to answer a person alone: a Slack channel and user."""

    channel: str
    user: str


class ApprovalRef(Durable):
    """Which request a decision is about: what the button carries."""

    step: int
    """1-based."""
    round: int
    """1 for the first request of the step; one more each time the step was planned and asked again."""
    digest: str


class Decision(Durable):
    """One person's answer, as the API received it."""

    choice: Choice
    ref: ApprovalRef
    by: Actor
    received_at: UtcDatetime
    reason: str = ""
    reply_to: ReplyTo | None = None


class Judgement(Durable):
    """What became of one decision; `sentence` is the answer to the person alone."""

    accepted: bool
    sentence: str


class Gate(Durable):
    """One request for approval."""

    ref: ApprovalRef
    title: str
    timeout: timedelta
    opened_at: UtcDatetime
    deadline_at: UtcDatetime | None = None
    """None until the clock is started (`started`)."""
    status: ApprovalStatus = ApprovalStatus.OPEN
    decided_by: Actor | None = None
    decided_at: UtcDatetime | None = None
    reason: str = ""

    @property
    def is_open(self) -> bool:
        return self.status is ApprovalStatus.OPEN

    def started(self, now: datetime) -> "Gate":
        """Start the clock: the request was delivered, or its delivery was given up. A clock that runs is never set back."""
        if not self.is_open or self.deadline_at is not None:
            return self
        return self.model_copy(update={"deadline_at": now + self.timeout})

    def remaining(self, now: datetime) -> timedelta:
        """How long to wait before `expired` will close the gate; never negative."""
        if self.deadline_at is None:
            return self.timeout
        return max(self.deadline_at + SIGNAL_BUDGET - now, timedelta(0))

    def judge(self, decision: Decision, now: datetime) -> "tuple[Gate, Judgement]":
        """Apply one decision at the workflow's time `now`. Returns: the gate after it, and the answer to the person."""
        if decision.ref != self.ref:
            return self, _refused(self._not_current())
        if not self.is_open:
            return self, _refused(self._already(decision))
        if self.deadline_at is not None and decision.received_at >= self.deadline_at:
            return self.expired(), _refused(
                f"Too late: the approval of “{self.title}” expired before you answered, the step is not run."
            )
        if self.deadline_at is not None and now > self.deadline_at + JUDGEMENT_GRACE:
            return self.expired(), _refused(
                f"You answered in time, but no worker took your answer within {JUDGEMENT_GRACE.seconds} s of the deadline: "
                f"the approval of “{self.title}” expired, the step is not run."
            )
        status = ApprovalStatus.APPROVED if decision.choice is Choice.APPROVE else ApprovalStatus.REJECTED
        decided = self.model_copy(
            update={"status": status, "decided_by": decision.by, "decided_at": now, "reason": decision.reason}
        )
        return decided, Judgement(accepted=True, sentence=f"{status.value.capitalize()}: {self.title}.")

    def expired(self) -> "Gate":
        """Close it because nobody decided in time. A gate that is decided stays as it is."""
        return self.model_copy(update={"status": ApprovalStatus.EXPIRED}) if self.is_open else self

    def cancelled(self, reason: str) -> "Gate":
        """Close it because the run ends (resolved, halted). A gate that is decided stays as it is."""
        return self.model_copy(update={"status": ApprovalStatus.CANCELLED, "reason": reason}) if self.is_open else self

    def _not_current(self) -> str:
        current = f" The current request, “{self.title}”, is still open." if self.is_open else ""
        return f"That request is not the current one: your answer changed nothing.{current}"

    def _already(self, decision: Decision) -> str:
        if self.decided_by is None:
            ended = "has expired" if self.status is ApprovalStatus.EXPIRED else "was cancelled"
            return f"The approval of “{self.title}” {ended}: your answer changed nothing."
        who = "you" if self.decided_by.id == decision.by.id else self.decided_by.name
        return f"“{self.title}” was already {self.status.value} by {who}; your answer changed nothing."


def _refused(sentence: str) -> Judgement:
    return Judgement(accepted=False, sentence=sentence)
