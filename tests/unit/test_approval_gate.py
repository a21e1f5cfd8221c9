"""The approval gate: by example, and as a state machine held against an independent model."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from domain.approval import (
    JUDGEMENT_GRACE,
    SIGNAL_BUDGET,
    ApprovalRef,
    ApprovalStatus,
    Choice,
    Decision,
    Gate,
    Judgement,
)
from domain.base import Actor, Source

OPENED = datetime(2026, 4, 10, 12, 0, 5, tzinfo=UTC)
TIMEOUT = timedelta(minutes=10)
DEADLINE = OPENED + TIMEOUT
REF = ApprovalRef(step=2, round=1, digest="d1")
TITLE = "Scale deployment to 5 replicas"
MICROSECOND = timedelta(microseconds=1)

ADA = Actor(id="U0ADA", name="Ada", source=Source.SLACK)
BOB = Actor(id="U0BOB", name="Bob", source=Source.SLACK)
KEY = Actor(id="key:ops", name="ops", source=Source.CLI)


def new_gate(kind: type[Gate] = Gate) -> Gate:
    return kind(ref=REF, title=TITLE, timeout=TIMEOUT, opened_at=OPENED)


def open_gate() -> Gate:
    return new_gate().started(OPENED)


def decision(
    choice: Choice = Choice.APPROVE, by: Actor = ADA, at: datetime = OPENED, ref: ApprovalRef = REF, reason: str = ""
) -> Decision:
    return Decision(choice=choice, ref=ref, by=by, received_at=at, reason=reason)


APPROVE = Choice.APPROVE
REJECT = Choice.REJECT


@pytest.mark.parametrize(("choice", "status"), [(APPROVE, "approved"), (REJECT, "rejected")])
def test_the_first_answer_decides_and_who_and_when_is_kept(choice: Choice, status: str) -> None:
    at = OPENED + timedelta(minutes=3)
    gate, judgement = open_gate().judge(decision(choice, reason="load test", at=at), at)
    assert (gate.status, gate.decided_by, gate.decided_at, gate.reason) == (ApprovalStatus(status), ADA, at, "load test")
    assert judgement == Judgement(accepted=True, sentence=f"{status.capitalize()}: {TITLE}.")


def test_an_answer_before_the_clock_runs_counts() -> None:
    """The request was seen before its delivery was confirmed, perhaps long before: Slack was slow to answer."""
    gate, judgement = new_gate().judge(decision(at=OPENED + timedelta(hours=1)), OPENED + timedelta(hours=1))
    assert judgement.accepted
    assert gate.status is ApprovalStatus.APPROVED


@pytest.mark.parametrize(
    ("received", "judged", "accepted"),
    [
        (-MICROSECOND, timedelta(0), True),
        (-MICROSECOND, SIGNAL_BUDGET, True),
        (-MICROSECOND, JUDGEMENT_GRACE, True),
        (-MICROSECOND, JUDGEMENT_GRACE + MICROSECOND, False),
        (timedelta(minutes=-9), timedelta(hours=9), False),
        (timedelta(0), timedelta(0), False),
        (timedelta(0), timedelta(seconds=-1), False),
        (MICROSECOND, SIGNAL_BUDGET, False),
        (timedelta(hours=1), timedelta(hours=1), False),
    ],
)
def test_an_answer_counts_if_it_was_received_before_the_deadline_and_judged_within_a_minute_of_it(
    received: timedelta, judged: timedelta, accepted: bool
) -> None:
    gate, judgement = open_gate().judge(decision(at=DEADLINE + received), DEADLINE + judged)
    assert judgement.accepted is accepted
    assert gate.status is (ApprovalStatus.APPROVED if accepted else ApprovalStatus.EXPIRED)
    assert (gate.decided_by is not None) is accepted


def test_a_late_answer_is_told_that_it_was_late_and_an_unjudged_one_that_it_was_not() -> None:
    _, late = open_gate().judge(decision(at=DEADLINE), DEADLINE)
    assert late.sentence == f"Too late: the approval of “{TITLE}” expired before you answered, the step is not run."
    _, unjudged = open_gate().judge(decision(at=OPENED), DEADLINE + timedelta(hours=9))
    assert unjudged.sentence == (
        "You answered in time, but no worker took your answer within 60 s of the deadline: "
        f"the approval of “{TITLE}” expired, the step is not run."
    )


@pytest.mark.parametrize(
    ("first", "second", "by", "sentence"),
    [
        (APPROVE, APPROVE, ADA, f"“{TITLE}” was already approved by you; your answer changed nothing."),
        (APPROVE, REJECT, ADA, f"“{TITLE}” was already approved by you; your answer changed nothing."),
        (APPROVE, REJECT, BOB, f"“{TITLE}” was already approved by Ada; your answer changed nothing."),
        (REJECT, APPROVE, BOB, f"“{TITLE}” was already rejected by Ada; your answer changed nothing."),
        (REJECT, APPROVE, KEY, f"“{TITLE}” was already rejected by Ada; your answer changed nothing."),
    ],
)
def test_a_second_click_changes_nothing_and_hears_who_was_first(first: Choice, second: Choice, by: Actor, sentence: str) -> None:
    decided, _ = open_gate().judge(decision(first), OPENED)
    again, judgement = decided.judge(decision(second, by), OPENED + timedelta(seconds=1))
    assert again == decided
    assert judgement == Judgement(accepted=False, sentence=sentence)


def test_a_second_click_after_the_deadline_hears_of_the_decision_and_not_of_expiry() -> None:
    decided, _ = open_gate().judge(decision(), OPENED)
    again, judgement = decided.judge(decision(REJECT, BOB, at=DEADLINE + TIMEOUT), DEADLINE + TIMEOUT)
    assert again == decided
    assert "already approved by Ada" in judgement.sentence


@pytest.mark.parametrize("change", [{"step": 1}, {"step": 3}, {"round": 2}, {"round": 0}, {"digest": "d2"}, {"digest": ""}])
def test_a_click_on_another_request_decides_nothing_here(change: dict[str, Any]) -> None:
    other = REF.model_copy(update=change)
    gate, judgement = open_gate().judge(decision(ref=other), OPENED)
    assert gate == open_gate()
    assert not judgement.accepted
    assert judgement.sentence == (
        f"That request is not the current one: your answer changed nothing. The current request, “{TITLE}”, is still open."
    )
    closed = open_gate().expired()
    same, judgement = closed.judge(decision(ref=other), OPENED)
    assert same == closed
    assert judgement.sentence == "That request is not the current one: your answer changed nothing."


def test_what_expired_is_not_rejected_and_has_nobody_who_decided() -> None:
    gate = open_gate().expired()
    assert (gate.status, gate.decided_by, gate.decided_at) == (ApprovalStatus.EXPIRED, None, None)
    same, judgement = gate.judge(decision(at=OPENED), DEADLINE + SIGNAL_BUDGET)
    assert same == gate
    assert judgement.sentence == f"The approval of “{TITLE}” has expired: your answer changed nothing."


def test_what_was_cancelled_is_not_rejected_and_says_why() -> None:
    gate = open_gate().cancelled("the incident was resolved")
    assert (gate.status, gate.decided_by, gate.reason) == (ApprovalStatus.CANCELLED, None, "the incident was resolved")
    same, judgement = gate.judge(decision(), OPENED)
    assert same == gate
    assert judgement.sentence == f"The approval of “{TITLE}” was cancelled: your answer changed nothing."


def test_what_is_decided_neither_expires_nor_is_cancelled() -> None:
    decided, _ = open_gate().judge(decision(), OPENED)
    assert decided.expired() == decided
    assert decided.cancelled("late") == decided
    assert open_gate().expired().cancelled("late").status is ApprovalStatus.EXPIRED
    assert open_gate().cancelled("early").expired().status is ApprovalStatus.CANCELLED


def test_a_clock_that_runs_is_not_set_back() -> None:
    gate = open_gate()
    assert gate.started(OPENED + timedelta(minutes=9)) == gate
    closed = new_gate().cancelled("halted")
    assert closed.started(OPENED) == closed


def test_the_wait_ends_a_signal_budget_after_the_deadline_and_is_never_negative() -> None:
    assert new_gate().remaining(OPENED + timedelta(days=1)) == TIMEOUT
    gate = open_gate()
    assert gate.remaining(OPENED) == TIMEOUT + SIGNAL_BUDGET
    assert gate.remaining(DEADLINE) == SIGNAL_BUDGET
    assert gate.remaining(DEADLINE + SIGNAL_BUDGET) == timedelta(0)
    assert gate.remaining(DEADLINE + timedelta(days=1)) == timedelta(0)


def test_a_gate_survives_temporal() -> None:
    decided, _ = open_gate().judge(decision(reason="ok"), OPENED + MICROSECOND)
    for gate in (new_gate(), open_gate(), decided, open_gate().cancelled("x")):
        assert Gate.model_validate_json(gate.model_dump_json()) == gate


# --- as a state machine -------------------------------------------------------------------------------------------


class Ledger:
    """The model: it keeps what happened, in order, and derives from that alone what has to be true. Times are seconds."""

    GRACE = 60.0

    def __init__(self) -> None:
        self.deadline: float | None = None
        self.ending: tuple[str, str | None] | None = None
        """The word for how it ended, and who decided."""

    def start(self, now: float) -> None:
        if self.ending is None and self.deadline is None:
            self.deadline = now + TIMEOUT.total_seconds()

    def end(self, word: str) -> None:
        self.ending = self.ending or (word, None)

    def answer(self, word: str, who: str, received: float, now: float) -> bool:
        """Whether the answer decides."""
        if self.ending is not None:
            return False
        in_time = self.deadline is None or received < self.deadline
        judged = self.deadline is None or now - self.deadline <= self.GRACE
        self.ending = (word, who) if in_time and judged else ("expired", None)
        return in_time and judged


class GateMachine(RuleBasedStateMachine):
    """Any interleaving of decisions, moves of the clock, start, timer and cancel. Times are seconds since the gate was opened."""

    gate_type: type[Gate] = Gate

    @initialize(delivered=st.booleans(), back_after=st.sampled_from([None, None, None, -0.000001, 60.0, 60.000001, 61.0]))
    def open(self, delivered: bool, back_after: float | None) -> None:
        """The request is delivered at once or later; perhaps the workers are then down until `back_after` the deadline."""
        self.gate = new_gate(self.gate_type)
        self.ledger = Ledger()
        self.now = 0.0
        self.accepted = 0
        self.first_ending: Gate | None = None
        if delivered:
            self.the_request_is_delivered()
        if self.ledger.deadline is not None and back_after is not None:
            self.now = self.ledger.deadline + back_after

    def _at(self, seconds: float) -> datetime:
        return OPENED + timedelta(seconds=seconds)

    @rule(seconds=st.sampled_from([0.000001, 0.5, 1.0, 2.0, 59.0, 60.0, 61.0, 599.0, 3600.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.ledger.deadline is not None)
    @rule(offset=st.sampled_from([-0.000001, 0.0, 0.000001, 2.0, 60.0, 60.000001, 61.0]))
    def time_passes_until_near_the_deadline(self, offset: float) -> None:
        assert self.ledger.deadline is not None
        self.now = max(self.now, self.ledger.deadline + offset)

    @rule()
    def the_request_is_delivered(self) -> None:
        before = self.gate.deadline_at
        self.gate = self.gate.started(self._at(self.now))
        self.ledger.start(self.now)
        assert before is None or self.gate.deadline_at == before, "the clock was set back"

    @rule()
    def the_timer_fires_if_it_is_due(self) -> None:
        remaining = self.gate.remaining(self._at(self.now))
        due = self.ledger.deadline is not None and self.now >= self.ledger.deadline + 2.0
        assert (remaining == timedelta(0)) == due
        if due:
            self.gate = self.gate.expired()
            self.ledger.end("expired")

    @rule(really=st.sampled_from([False, False, False, True]))
    def the_run_is_halted(self, really: bool) -> None:
        if not really:  # seldom, so that most gates live until something else ends them
            return
        self.gate = self.gate.cancelled("halted")
        self.ledger.end("cancelled")

    @rule(
        choice=st.sampled_from(Choice),
        by=st.sampled_from([ADA, BOB, KEY]),
        about=st.sampled_from(["this", "this", "this", "step", "round", "digest"]),
        anchor=st.sampled_from(["now", "deadline"]),
        offset=st.sampled_from([-3600.0, -61.0, -1.0, -0.000001, 0.0, 0.000001, 1.0, 600.0]),
    )
    def somebody_answers(self, choice: Choice, by: Actor, about: str, anchor: str, offset: float) -> None:
        base = self.ledger.deadline if anchor == "deadline" and self.ledger.deadline is not None else self.now
        received = base + offset
        ref = {
            "this": REF,
            "step": REF.model_copy(update={"step": 1}),
            "round": REF.model_copy(update={"round": 2}),
            "digest": REF.model_copy(update={"digest": "d2"}),
        }[about]
        word = "approved" if choice is Choice.APPROVE else "rejected"
        expected = about == "this" and self.ledger.answer(word, by.id, received, self.now)
        self.gate, judgement = self.gate.judge(decision(choice, by, self._at(received), ref), self._at(self.now))
        assert judgement.accepted == expected, f"answer received at {received}, judged at {self.now}: {judgement.sentence}"
        self.accepted += judgement.accepted
        self._check_sentence(judgement, word, by, about, received)

    def _check_sentence(self, judgement: Judgement, word: str, by: Actor, about: str, received: float) -> None:
        """Each claim in the sentence is held against the model, and the outcome is claimed by every sentence about this request."""
        sentence = judgement.sentence
        ending, decider = self.ledger.ending or (None, None)
        deadline = self.ledger.deadline
        claims = {
            f"{word.capitalize()}: ": judgement.accepted and ending == word and decider == by.id,
            "changed nothing": not judgement.accepted,
            "expired": ending == "expired",
            "was cancelled": ending == "cancelled",
            "already approved": ending == "approved",
            "already rejected": ending == "rejected",
            "by you": decider == by.id,
            "by Ada": decider == ADA.id,
            "by Bob": decider == BOB.id,
            "by ops": decider == KEY.id,
            "is still open": ending is None,
            "not the current one": about != "this",
            "before you answered": deadline is not None and received >= deadline,
            "You answered in time": deadline is not None and received < deadline and self.now > deadline + 60,
            "the step is not run": ending == "expired",
        }
        for claim, true in claims.items():
            assert true or claim not in sentence, f"untrue: {sentence}"
        assert sentence.endswith(".")
        if about == "this":
            assert ending is not None, "an answer about this request leaves it ended"
            assert ending in sentence.lower(), f"the outcome is missing: {sentence}"

    @invariant()
    def the_gate_is_as_the_model_says(self) -> None:
        ending, decider = self.ledger.ending or ("open", None)
        assert self.gate.status.value == ending
        assert (self.gate.decided_by.id if self.gate.decided_by else None) == decider
        deadline = None if self.ledger.deadline is None else self._at(self.ledger.deadline)
        assert self.gate.deadline_at == deadline

    @invariant()
    def at_most_one_answer_decided(self) -> None:
        assert self.accepted <= 1
        assert (self.accepted == 1) == (self.gate.decided_by is not None)

    @invariant()
    def what_has_ended_stays_as_it_ended(self) -> None:
        if self.first_ending is None and not self.gate.is_open:
            self.first_ending = self.gate
        assert self.first_ending is None or self.gate == self.first_ending


class TestGateMachine(GateMachine.TestCase):
    settings = settings(max_examples=150, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def _with_deadline(gate: Gate, deadline_at: datetime | None) -> Gate:
    return gate.model_copy(update={"deadline_at": deadline_at})


class WithoutDeadline(Gate):
    def judge(self, decision: Decision, now: datetime) -> tuple[Gate, Judgement]:
        gate, judgement = super(WithoutDeadline, _with_deadline(self, None)).judge(decision, now)
        return _with_deadline(gate, self.deadline_at), judgement


class DeadlineInclusive(Gate):
    def judge(self, decision: Decision, now: datetime) -> tuple[Gate, Judgement]:
        if decision.received_at == self.deadline_at:
            decision = decision.model_copy(update={"received_at": decision.received_at - MICROSECOND})
        return super().judge(decision, now)


class WithoutGrace(Gate):
    def judge(self, decision: Decision, now: datetime) -> tuple[Gate, Judgement]:
        return super().judge(decision, min(now, self.deadline_at or now))


class GraceOfAnHour(Gate):
    def judge(self, decision: Decision, now: datetime) -> tuple[Gate, Judgement]:
        return super().judge(decision, max(self.opened_at, now - timedelta(hours=1)) if self.deadline_at else now)


class LastClickWins(Gate):
    def judge(self, decision: Decision, now: datetime) -> tuple[Gate, Judgement]:
        reopened = self.model_copy(update={"status": ApprovalStatus.OPEN}) if self.decided_by else self
        return super(LastClickWins, reopened).judge(decision, now)


class AnyRequest(Gate):
    def judge(self, decision: Decision, now: datetime) -> tuple[Gate, Judgement]:
        return super().judge(decision.model_copy(update={"ref": self.ref}), now)


class AnyDigest(Gate):
    def judge(self, decision: Decision, now: datetime) -> tuple[Gate, Judgement]:
        ref = decision.ref.model_copy(update={"digest": self.ref.digest})
        return super().judge(decision.model_copy(update={"ref": ref}), now)


class ClockSetBack(Gate):
    def started(self, now: datetime) -> Gate:
        return super(ClockSetBack, _with_deadline(self, None)).started(now)


class CancelWins(Gate):
    def cancelled(self, reason: str) -> Gate:
        return self.model_copy(update={"status": ApprovalStatus.CANCELLED, "reason": reason})


class ImpatientTimer(Gate):
    def remaining(self, now: datetime) -> timedelta:
        return max(super().remaining(now) - SIGNAL_BUDGET, timedelta(0)) if self.deadline_at else super().remaining(now)


class Flattering(Gate):
    def judge(self, decision: Decision, now: datetime) -> tuple[Gate, Judgement]:
        gate, judgement = super().judge(decision, now)
        return gate, judgement.model_copy(update={"sentence": f"{decision.choice.value.capitalize()}d: {self.title}."})


class ExpiryAsRejection(Gate):
    def expired(self) -> Gate:
        return self.model_copy(update={"status": ApprovalStatus.REJECTED}) if self.is_open else self


@pytest.mark.parametrize(
    "mutant",
    [
        WithoutDeadline,
        DeadlineInclusive,
        WithoutGrace,
        GraceOfAnHour,
        LastClickWins,
        AnyRequest,
        AnyDigest,
        ClockSetBack,
        CancelWins,
        ImpatientTimer,
        Flattering,
        ExpiryAsRejection,
    ],
)
def test_a_gate_without_one_of_its_defences_is_caught_by_the_same_machine(mutant: type[Gate]) -> None:
    class Machine(GateMachine):
        gate_type = mutant

    searching = settings(
        max_examples=2_000,
        stateful_step_count=20,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Machine, settings=searching)  # pyright: ignore[reportUnknownMemberType]
