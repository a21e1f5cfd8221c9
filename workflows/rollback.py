"""Taking a run back: its undos in reverse order, each reported; what cannot be undone is named and does not stop the rest."""

from temporalio import workflow
from temporalio.exceptions import ActivityError

from domain.audit import AuditAction
from domain.incident import StepRequest, StepStatus, UndoRequest
from domain.narration import Tone
from domain.plan import StepPlan, StepResult
from workflows import presets
from workflows.failures import failure_of
from workflows.narrator import Narrator
from workflows.run_state import RunState, StepState
from workflows.scribe import Scribe


async def roll_back(run: RunState, scribe: Scribe, narrator: Narrator) -> tuple[list[str], list[str]]:
    """Undo in reverse order what was done. Returns: what was taken back, and what could not be, a sentence each."""
    undone: list[str] = []
    stuck: list[str] = []
    for state in reversed(run.steps):
        while state.undos:
            request = state.undos.pop()
            try:
                result = await _undo(run, state, request)
            except ActivityError as error:
                sentence = failure_of(error).sentence
                stuck.append(f"{request.title} ({sentence})")
                scribe.record(AuditAction.STEP_ROLLBACK_FAILED, f"“{request.title}” failed: {sentence}", step=state.number)
                narrator.note(f"{run.position(state)} could not be taken back: {request.title}. {sentence}", Tone.FAILURE)
                continue
            undone.append(result.summary)
            state.remark = result.summary
            if state.status is StepStatus.SUCCEEDED:
                state.status = StepStatus.ROLLED_BACK
            scribe.record(AuditAction.STEP_ROLLED_BACK, result.summary, step=state.number)
            narrator.note(f"{run.position(state)} taken back: {result.summary}", Tone.WARNING)
    return undone, stuck


async def _undo(run: RunState, state: StepState, request: UndoRequest) -> StepResult:
    summary = f"undo {run.position(state)}: {request.title}"
    if request.undo is not None:
        return await workflow.execute_activity("step.undo", request, result_type=StepResult, **presets.UNDO, summary=summary)
    step = request.step
    as_step = StepRequest(
        workflow_id=f"{request.workflow_id}/undo",  # its effects have a key of their own
        incident_id=request.incident_id,
        runbook=request.runbook,
        number=request.number,
        step=step,
        names=request.names,
        fixed_at=workflow.now(),
        thread=request.thread,
    )
    if step.reads_world:
        plan = await workflow.execute_activity("step.plan", as_step, result_type=StepPlan, **presets.PLAN, summary=summary)
        as_step = as_step.model_copy(update={"plan": plan})
    return await workflow.execute_activity(
        "step.execute", as_step, result_type=StepResult, **presets.execute(step), summary=summary
    )
