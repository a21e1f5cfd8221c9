"""How a run asks for approval: it gives the pure gate of `domain.approval` durable time, a card, and answers for the clickers."""

from collections.abc import Callable

from temporalio import workflow

from domain.approval import ApprovalRef, ApprovalStatus, Decision, Gate
from domain.audit import AuditAction
from domain.incident import HaltRequest
from domain.plan import StepPlan
from workflows import ids
from workflows.narrator import Narrator
from workflows.run_state import RunState, StepState
from workflows.scribe import Scribe


class Approvals:
    """The requests of one run, at most one of them open."""

    def __init__(self, run: RunState, scribe: Scribe, narrator: Narrator) -> None:
        self._run = run
        self._scribe = scribe
        self._narrator = narrator

    def open(self, state: StepState, plan: StepPlan, round_number: int) -> None:
        """Ask: from now on decisions on this plan count."""
        timeout = state.step.approval_timeout
        state.gate = Gate(
            ref=ApprovalRef(step=state.number, round=round_number, digest=plan.digest),
            title=plan.title,
            timeout=timeout,
            opened_at=workflow.now(),
        )
        self._scribe.record(
            AuditAction.APPROVAL_REQUESTED,
            f"Approval requested: {plan.title} ({plan.change})",
            step=state.number,
            digest=plan.digest,
            change=plan.change,
            round=round_number,
            timeout_seconds=timeout.total_seconds(),
        )
        self.show(state)
        self._scribe.urge()

    async def decided(self, state: StepState, halted: Callable[[], HaltRequest | None]) -> Gate:
        """Wait until the gate is approved, rejected, expired or, because of a halt, cancelled. Returns: the gate as it ended.

        Its clock starts when the card is delivered, or after `DELIVERY_WAIT` without delivery. Durable: survives restarts.
        """
        key = ids.approval_key(state.number, _gate_of(state).ref.round)
        await self._narrator.delivered(key, unless=lambda: not _gate_of(state).is_open or halted() is not None)
        if _gate_of(state).is_open:
            state.gate = _gate_of(state).started(workflow.now())
        while (gate := _gate_of(state)).is_open:
            halt = halted()
            if halt is not None:
                self.cancel(state, halt)
                break
            remaining = gate.remaining(workflow.now())
            if not remaining:
                state.gate = gate.expired()
                break
            try:
                await workflow.wait_condition(
                    lambda: not _gate_of(state).is_open or halted() is not None,
                    timeout=remaining,
                    timeout_summary=f"approval of {self._run.position(state)}: {state.title}",
                )
            except TimeoutError:
                continue
        ended = _gate_of(state)
        if ended.status is ApprovalStatus.EXPIRED:
            self._scribe.record(AuditAction.APPROVAL_EXPIRED, f"Nobody decided on “{state.title}” in time", step=state.number)
        self.show(state)
        return ended

    def judge(self, decision: Decision) -> None:
        """Apply one decision as it arrives, whatever the story is at; record it, and answer who is refused."""
        state = self._run.find(decision.ref.step)
        if state is None or state.gate is None:
            self._refuse(decision, "Nothing is waiting for an approval there: your answer changed nothing.")
            return
        state.gate, judgement = state.gate.judge(decision, workflow.now())
        if not judgement.accepted:
            self._refuse(decision, judgement.sentence)
            return
        approved = state.gate.status is ApprovalStatus.APPROVED
        because = f": {decision.reason}" if decision.reason else ""
        self._scribe.record(
            AuditAction.APPROVAL_APPROVED if approved else AuditAction.APPROVAL_REJECTED,
            f"{decision.by.name} {state.gate.status.value} “{state.title}”{because}",
            by=decision.by,
            step=state.number,
            digest=decision.ref.digest,
            reason=decision.reason,
            received_at=decision.received_at.isoformat(),
        )

    def cancel(self, state: StepState, halt: HaltRequest) -> None:
        """Close an open request because the run ends; a gate that is decided stays as it is."""
        if state.gate is None or not state.gate.is_open:
            return
        state.gate = state.gate.cancelled(halt.reason)
        self._scribe.record(
            AuditAction.APPROVAL_CANCELLED,
            f"Approval of “{state.title}” cancelled: {halt.reason}",
            by=halt.by,
            step=state.number,
        )

    def show(self, state: StepState) -> None:
        """Post the card of the step's request, or bring it up to date."""
        self._narrator.say(ids.approval_key(state.number, _gate_of(state).ref.round), self._run.card(state))

    def show_open(self) -> None:
        """Bring the card of the open request up to date, if there is one."""
        for state in self._run.steps:
            if state.gate is not None and state.gate.is_open:
                self.show(state)

    def _refuse(self, decision: Decision, sentence: str) -> None:
        self._scribe.record(
            AuditAction.APPROVAL_REFUSED,
            f"{decision.by.name}: {sentence}",
            by=decision.by,
            step=decision.ref.step,
            choice=decision.choice.value,
        )
        self._narrator.answer(decision.reply_to, sentence)


def why_not(gate: Gate) -> str:
    """One sentence on a gate that did not end approved."""
    match gate.status:
        case ApprovalStatus.REJECTED:
            who = gate.decided_by.name if gate.decided_by else "somebody"
            return f"{who} rejected “{gate.title}”{f': {gate.reason}' if gate.reason else ''}"
        case ApprovalStatus.EXPIRED:
            return f"nobody decided on “{gate.title}” in time"
        case _:
            return gate.reason


def _gate_of(state: StepState) -> Gate:
    if state.gate is None:
        raise RuntimeError("the step has no gate")
    return state.gate
