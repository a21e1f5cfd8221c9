"""The story of one run: for each step plan, ask, execute, report; and take it back when a step fails."""

import asyncio
from dataclasses import dataclass

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ActivityError

from domain import expressions
from domain.approval import ApprovalStatus, Decision
from domain.audit import AuditAction
from domain.incident import (
    HaltRequest,
    RecoverRequest,
    RunbookInput,
    RunbookResult,
    RunbookView,
    RunStatus,
    SettleRequest,
    StepRequest,
    StepStatus,
    UndoRequest,
)
from domain.narration import AlertState, PostedMessage, Tone
from domain.plan import StepPlan, StepResult, Undo
from domain.runbook import RunbookStep, Step
from workflows import presets, search
from workflows.approvals import Approvals, why_not
from workflows.failures import Outcome, StepFailure, failure_of
from workflows.inline_steps import InlineSteps
from workflows.narrator import Narrator
from workflows.rollback import roll_back
from workflows.run_state import RunState, StepState
from workflows.scribe import Scribe, Subject
from workflows.signals import read_signal


@dataclass
class _Stop(Exception):
    """The run ends here, as `status`, because of `sentence`."""

    status: RunStatus
    sentence: str


@workflow.defn(name="RunbookWorkflow")
class RunbookWorkflow:
    """One run of a runbook, with the definition it was started with."""

    @workflow.init
    def __init__(self, input: RunbookInput) -> None:
        info = workflow.info()
        self._run = RunState(workflow_id=info.workflow_id, input=input, started_at=workflow.now())
        self._scribe = Scribe(Subject(input.incident_id, input.runbook.name))
        self._narrator = Narrator(input.slack, input.thread)
        self._approvals = Approvals(self._run, self._scribe, self._narrator)
        self._inline = InlineSteps(self._run, self._narrator)
        self._halt: HaltRequest | None = None
        self._settlement: SettleRequest | None = None
        self._settled_by = ""
        self._status_shown: RunStatus | None = None

    @workflow.run
    async def run(self, input: RunbookInput) -> RunbookResult:
        self._begin()
        try:
            await self._steps()
        except _Stop as stop:
            self._run.status, self._run.summary = stop.status, stop.sentence
        except asyncio.CancelledError:
            if workflow.cancellation_reason() is None:
                raise  # not an exit: the run is only leaving a worker's memory
            self._cancelled()
            await self._finish()
            raise
        await self._finish()
        undos = tuple(undo for state in self._run.steps for undo in state.undos)
        return RunbookResult(status=self._run.status, summary=self._run.summary, undos=undos)

    # --- signals and the query ----------------------------------------------------------------------------------

    @workflow.signal(name="decide", description="Approve or reject the open request (domain.approval.Decision)")
    def decide(self, raw: RawValue) -> None:
        decision = read_signal(raw, Decision)
        if decision is None:
            self._scribe.record(AuditAction.APPROVAL_REFUSED, "An answer could not be read and changed nothing")
            return
        self._approvals.judge(decision)

    @workflow.signal(name="halt", description="Stop before the next step (domain.incident.HaltRequest)")
    def halt(self, raw: RawValue) -> None:
        # An unreadable wish to stop is still a wish to stop.
        request = read_signal(raw, HaltRequest) or HaltRequest(reason="halted by a signal that could not be read")
        self._halt = self._halt or request
        self._inline.halt(self._halt)

    @workflow.signal(name="settle", description="Say how a step of unknown outcome stands (domain.incident.SettleRequest)")
    def settle(self, raw: RawValue) -> None:
        request = read_signal(raw, SettleRequest)
        if request is None:
            self._scribe.record(AuditAction.APPROVAL_REFUSED, "A word on an unknown outcome could not be read")
            return
        state = self._run.find(request.step)
        if state is None or state.status is not StepStatus.UNKNOWN or self._settlement is not None:
            self._narrator.answer(request.reply_to, "That step's outcome is not in question: nothing changed.")
            return
        self._settlement = request

    @workflow.signal(name="recover", description="The source says the anomaly is over (domain.incident.RecoverRequest)")
    def recover(self, raw: RawValue) -> None:
        request = read_signal(raw, RecoverRequest)
        if request is None:
            return  # the incident, which has the same signal from the same sender, notes it
        self._run.recovered_at = request.recovered_at
        self._approvals.show_open()
        self._inline.recover(request)

    @workflow.signal(name="attach_thread", description="The alert was delivered after all (domain.narration.PostedMessage)")
    def attach_thread(self, raw: RawValue) -> None:
        thread = read_signal(raw, PostedMessage)
        if thread is not None:
            self._narrator.attach(thread)

    @workflow.query(name="view", description="How the run stands")
    def view(self) -> RunbookView:
        return self._run.view(self._scribe.timeline)

    # --- the story ----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        run = self._run
        kind = "Dry run" if run.is_dry else "Runbook"
        self._scribe.record(
            AuditAction.RUNBOOK_STARTED,
            f"{kind} {run.input.runbook.name} started on {run.input.service_id}",
            by=run.input.started_by,
            definition=run.input.runbook.version,
            steps=len(run.steps),
            dry_run=run.is_dry,
        )
        self._narrator.show(AlertState.RUNNING)
        self._changed()

    async def _steps(self) -> None:
        for state in self._run.steps:
            self._stop_if_asked()
            if not self._applies(state):
                continue
            try:
                await (self._plan_only(state) if self._run.is_dry else self._step(state))
            except StepFailure as failure:
                await self._failed(state, failure)
        self._run.status, self._run.summary = RunStatus.SUCCEEDED, self._outcome_in_words()

    async def _step(self, state: StepState) -> None:
        """Plan, ask, execute; again from the plan when the world moved in between. Raises: StepFailure, _Stop."""
        for round_number in range(1, presets.ROUNDS_LIMIT + 1):
            if state.step.reads_world or state.step.require_approval:
                state.plan = await self._plan(state)
                self._changed()
                if state.step.require_approval:
                    await self._ask(state, state.plan, round_number)
            self._stop_if_asked()
            try:
                await self._execute(state)
                return
            except StepFailure as failure:
                if failure.outcome is not Outcome.MOVED:
                    raise
                self._narrator.note(f"{self._run.position(state)}: {failure.sentence} Planning again.", Tone.WARNING)
                state.remark = failure.sentence
        raise StepFailure(Outcome.FAILED, f"the world changed {presets.ROUNDS_LIMIT} times between plan and execution")

    def _applies(self, state: StepState) -> bool:
        condition = state.step.when
        if condition is None:
            return True
        try:
            if expressions.holds(condition, self._run.names):
                return True
        except expressions.ExpressionError as error:
            state.remark = str(error)
            raise _Stop(RunStatus.HALTED, f"{self._run.position(state)}: {error}") from error
        state.status, state.remark = StepStatus.SKIPPED, f"not needed: {condition}"
        self._scribe.record(
            AuditAction.STEP_SKIPPED, f"Skipped “{state.title}”: {condition} does not hold", step=state.number, when=condition
        )
        self._changed()
        return False

    async def _plan_only(self, state: StepState) -> None:
        state.plan = plan = await self._plan(state)
        if isinstance(state.step, RunbookStep):
            await self._inline.run_runbook(state, state.step, lambda: self._halt)
        state.status, state.remark = StepStatus.SKIPPED, "dry run"
        self._narrator.note(f"{self._run.position(state)} would do: {plan.title} — {plan.change}")
        self._scribe.record(
            AuditAction.STEP_PLANNED,
            f"Would do “{plan.title}”: {plan.change}",
            step=state.number,
            digest=plan.digest,
            change=plan.change,
        )
        self._changed()

    async def _plan(self, state: StepState) -> StepPlan:
        if state.step.runs_in_workflow:
            return self._inline.plan(state)
        try:
            return await workflow.execute_activity(
                "step.plan",
                self._request(state),
                result_type=StepPlan,
                **presets.PLAN,
                summary=f"{self._run.position(state)}: {state.step.title}",
            )
        except ActivityError as error:
            failure = failure_of(error)
            # Nothing was run: a plan that was not made is never an unknown outcome.
            raise StepFailure(Outcome.FAILED, failure.sentence) from error

    async def _ask(self, state: StepState, plan: StepPlan, round_number: int) -> None:
        """Wait for a decision. Returns when approved. Raises: _Stop when rejected, expired or cancelled."""
        self._approvals.open(state, plan, round_number)
        self._enter(state, StepStatus.AWAITING_APPROVAL, RunStatus.AWAITING_APPROVAL)
        self._narrator.show(AlertState.WAITING)
        gate = await self._approvals.decided(state, lambda: self._halt)
        self._narrator.show(AlertState.RUNNING)
        if gate.status is ApprovalStatus.APPROVED:
            self._enter(state, StepStatus.RUNNING, RunStatus.RUNNING)
            return
        state.status, state.remark = StepStatus.SKIPPED, gate.status.value
        raise _Stop(RunStatus.HALTED, why_not(gate))

    async def _execute(self, state: StepState) -> None:
        """Run the step, and ask a human if its outcome got lost. Raises: StepFailure (never of unknown outcome), _Stop."""
        self._enter(state, StepStatus.RUNNING, RunStatus.RUNNING)
        while True:
            try:
                if state.step.runs_in_workflow:
                    result = await self._inline.run(state, lambda: self._halt)
                    self._stop_if_asked()
                else:
                    result = await self._by_activity(state)
                    state.undos = self._undos_of(state, result)
                break
            except (StepFailure, _Stop) as failure:
                if isinstance(failure, _Stop) or failure.outcome is Outcome.HALTED:
                    state.status, state.remark = StepStatus.SKIPPED, "halted"
                    raise _Stop(RunStatus.HALTED, failure.sentence) from failure
                if failure.outcome is not Outcome.UNKNOWN:
                    raise
                if await self._settled(state, failure.sentence):
                    result = StepResult(summary=f"{state.title}: marked as done by {self._settled_by}")
                    break
        state.result = result
        state.status, state.remark = StepStatus.SUCCEEDED, ""
        self._run.learn(state)
        self._scribe.record(AuditAction.STEP_SUCCEEDED, result.summary, step=state.number, outputs=result.outputs)
        if state.step.type != "slack":  # its message is there to be read
            self._narrator.note(f"{self._run.position(state)} done: {result.summary}", Tone.SUCCESS)
        self._changed()

    async def _by_activity(self, state: StepState) -> StepResult:
        """Raises: StepFailure."""
        if state.step.type == "slack":
            await self._narrator.caught_up()
        try:
            return await workflow.execute_activity(
                "step.execute",
                self._request(state),
                result_type=StepResult,
                **presets.execute(state.step),
                summary=f"{self._run.position(state)}: {state.title}",
            )
        except ActivityError as error:
            if workflow.cancellation_reason() is not None:
                raise asyncio.CancelledError from error
            failure = failure_of(error)
            if failure.undo is not None:
                state.undos = [self._undo_request(state, failure.undo)]
            raise failure from error

    def _undos_of(self, state: StepState, result: StepResult) -> list[UndoRequest]:
        """The runbook's own `undo:` step wins over what the step type offers."""
        if state.step.undo is not None:
            return [self._undo_request(state, None, state.step.undo)]
        return [self._undo_request(state, result.undo)] if result.undo is not None else []

    async def _settled(self, state: StepState, sentence: str) -> bool:
        """Ask a human what became of the step. Returns: True for done, False for retry. Raises: _Stop for halt."""
        state.remark, self._settlement = sentence, None
        self._enter(state, StepStatus.UNKNOWN, RunStatus.UNKNOWN)
        self._scribe.record(AuditAction.STEP_UNKNOWN, f"Outcome of “{state.title}” is unknown: {sentence}", step=state.number)
        self._narrator.note(
            f"{self._run.position(state)} may or may not have happened: {state.title}. {sentence} "
            f"Look, then say how it stands: infrasage settle {self._run.input.incident_id} done, retry or halt.",
            Tone.WARNING,
        )
        self._narrator.show(AlertState.FAILED)
        self._scribe.urge()
        await workflow.wait_condition(lambda: self._settlement is not None or self._halt is not None)
        if self._settlement is None:
            raise _Stop(RunStatus.HALTED, f"{self._run.position(state)} is of unknown outcome, and the run was halted")
        word: SettleRequest = self._settlement
        self._settled_by = word.by.name
        self._scribe.record(
            AuditAction.STEP_SETTLED,
            f"{word.by.name} says of “{state.title}”: {word.choice}",
            by=word.by,
            step=state.number,
            choice=word.choice,
        )
        self._narrator.show(AlertState.RUNNING)
        if word.choice == "halt":
            raise _Stop(RunStatus.HALTED, f"{word.by.name} halted the run: {state.title} is of unknown outcome")
        self._enter(state, StepStatus.RUNNING, RunStatus.RUNNING)
        return word.choice == "done"

    async def _failed(self, state: StepState, failure: StepFailure) -> None:
        """Report the failed step, and do what the runbook says of failures. Raises: _Stop, unless it says `continue`."""
        state.status, state.remark = StepStatus.FAILED, failure.sentence
        self._scribe.record(
            AuditAction.STEP_FAILED, f"“{state.title}” failed: {failure.sentence}", step=state.number, error=failure.sentence
        )
        self._narrator.note(f"{self._run.position(state)} failed: {state.title}. {failure.sentence}", Tone.FAILURE)
        self._changed()
        sentence = f"{self._run.position(state)} failed: {failure.sentence.rstrip('.')}"
        match state.step.on_failure or ("rollback" if self._run.input.runbook.rollback_on_failure else "halt"):
            case "continue":
                return
            case "halt":
                raise _Stop(RunStatus.FAILED, sentence)
            case "rollback":
                undone, stuck = await roll_back(self._run, self._scribe, self._narrator)
        if stuck:
            raise _Stop(RunStatus.FAILED, f"{sentence}. Not taken back: {'; '.join(stuck)}")
        if undone:
            raise _Stop(RunStatus.ROLLED_BACK, f"{sentence}. Taken back: {'; '.join(undone)}")
        raise _Stop(RunStatus.FAILED, f"{sentence}. Nothing had to be taken back")

    async def _finish(self) -> None:
        """Tell and record the end; returns when ClickHouse has every row and Slack every message it will get."""
        run = self._run
        run.finished_at = workflow.now()
        for state in run.steps:
            if state.status is StepStatus.PENDING:
                state.status = StepStatus.SKIPPED
        self._scribe.record(
            AuditAction.RUNBOOK_FINISHED,
            f"Runbook {run.input.runbook.name} {_in_words(run.status)}: {run.summary}",
            status=run.status.value,
        )
        self._scribe.write(run.execution())
        tone = {RunStatus.SUCCEEDED: Tone.SUCCESS, RunStatus.FAILED: Tone.FAILURE}.get(run.status, Tone.WARNING)
        self._narrator.note(f"Runbook {run.input.runbook.name} {_in_words(run.status)}: {run.summary}", tone)
        self._narrator.show(None if run.status is RunStatus.SUCCEEDED else AlertState.FAILED)
        self._changed()
        await asyncio.gather(self._scribe.drain(), self._narrator.drain())

    # --- helpers ------------------------------------------------------------------------------------------------

    def _outcome_in_words(self) -> str:
        if self._run.is_dry:
            return "Planned only, nothing was run"
        done = sum(state.status is StepStatus.SUCCEEDED for state in self._run.steps)
        failed = sum(state.status is StepStatus.FAILED for state in self._run.steps)
        passed_over = f", {failed} failed and passed over" if failed else ""
        return f"{done} of {len(self._run.steps)} steps done{passed_over}"

    def _stop_if_asked(self) -> None:
        if self._halt is not None:
            raise _Stop(RunStatus.HALTED, self._halt.reason)
        if workflow.cancellation_reason() is not None:
            raise asyncio.CancelledError  # an activity finished although the run was cancelled, and swallowed that

    def _cancelled(self) -> None:
        self._run.status, self._run.summary = RunStatus.HALTED, "the run was cancelled in Temporal"
        for state in self._run.steps:
            if state.status is StepStatus.RUNNING:
                state.status, state.remark = StepStatus.UNKNOWN, "cancelled while it ran"
                self._scribe.record(AuditAction.STEP_UNKNOWN, f"“{state.title}” was cancelled while it ran", step=state.number)
            elif state.status is StepStatus.AWAITING_APPROVAL:
                self._approvals.cancel(state, HaltRequest(reason=self._run.summary))
                self._approvals.show(state)
                state.status = StepStatus.SKIPPED

    def _enter(self, state: StepState, step: StepStatus, run: RunStatus) -> None:
        state.status, self._run.status = step, run
        self._changed()

    def _changed(self) -> None:
        workflow.set_current_details(self._run.details())
        if self._run.status is not self._status_shown:
            self._status_shown = self._run.status
            workflow.upsert_search_attributes([search.STATUS.value_set(self._run.status.value)])

    def _request(self, state: StepState) -> StepRequest:
        gate = state.gate
        return StepRequest(
            workflow_id=self._run.workflow_id,
            incident_id=self._run.input.incident_id,
            runbook=self._run.input.runbook.name,
            number=state.number,
            step=state.step,
            names=self._run.names,
            anomaly=self._run.input.anomaly,
            fixed_at=workflow.now(),
            thread=self._narrator.thread,
            plan=state.plan,
            approved_digest=gate.ref.digest if gate is not None and gate.status is ApprovalStatus.APPROVED else None,
        )

    def _undo_request(self, state: StepState, undo: Undo | None, step: Step | None = None) -> UndoRequest:
        return UndoRequest(
            workflow_id=self._run.workflow_id,
            incident_id=self._run.input.incident_id,
            runbook=self._run.input.runbook.name,
            number=state.number,
            step=step or state.step,
            undo=undo,
            names=self._run.names,
            thread=self._narrator.thread,
        )


def _in_words(status: RunStatus) -> str:
    return status.value.replace("_", " ")
