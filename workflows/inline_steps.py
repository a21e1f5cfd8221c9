"""The steps that the workflow is itself: a wait is a durable timer, a runbook is a child workflow."""

import asyncio
from collections.abc import Callable
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.exceptions import ChildWorkflowError, WorkflowAlreadyStartedError
from temporalio.workflow import ChildWorkflowHandle, ParentClosePolicy

from domain import expressions
from domain.conditions import Scalar
from domain.incident import HaltRequest, RecoverRequest, RunbookResult, RunStatus
from domain.inputs import InputError, bind_inputs
from domain.plan import StepPlan, StepResult
from domain.runbook import RunbookStep, WaitStep
from workflows import ids, search
from workflows.failures import Outcome, StepFailure
from workflows.narrator import Narrator
from workflows.run_state import RunState, StepState

Child = ChildWorkflowHandle[Any, RunbookResult]
Halted = Callable[[], HaltRequest | None]


class InlineSteps:
    """The waits and the called runbooks of one run."""

    def __init__(self, run: RunState, narrator: Narrator) -> None:
        self._run = run
        self._narrator = narrator
        self._child: Child | None = None
        self._signals: set[asyncio.Task[None]] = set()

    def plan(self, state: StepState) -> StepPlan:
        """Raises: StepFailure when the step cannot be rendered."""
        step = state.step
        if isinstance(step, WaitStep):
            ends_at = step.ends_at(workflow.now())
            return StepPlan(
                title=step.title,
                change=f"goes on at {ends_at:%Y-%m-%d %H:%M:%S} UTC if it begins now",
                request={"minutes": step.minutes, "until": step.until},
            )
        if isinstance(step, RunbookStep):
            inputs = self._inputs(step)
            given = ", ".join(f"{name}={value}" for name, value in inputs.items())
            called = self._run.input.library[step.runbook]
            return StepPlan(
                title=step.title,
                change=f"{len(called.steps)} steps{f' with {given}' if given else ''}, each asking as it says itself",
                request={"runbook": step.runbook, "inputs": inputs, "version": called.version},
            )
        raise RuntimeError(f"a step of type {step.type} is not run by the workflow")

    async def run(self, state: StepState, halted: Halted) -> StepResult:
        """Be the step. A halt ends a wait at once, and is passed on to a called run. Raises: StepFailure."""
        step = state.step
        if isinstance(step, WaitStep):
            return await self._wait(step, halted)
        if isinstance(step, RunbookStep):
            return await self.run_runbook(state, step, halted)
        raise RuntimeError(f"a step of type {step.type} is not run by the workflow")

    def halt(self, request: HaltRequest) -> None:
        """Pass a halt on to the run that was called."""
        self._signal("halt", request)

    def recover(self, request: RecoverRequest) -> None:
        """Pass a recovery on to the run that was called, for its open card."""
        self._signal("recover", request)

    async def _wait(self, step: WaitStep, halted: Halted) -> StepResult:
        begun_at = workflow.now()
        remaining = step.ends_at(begun_at) - begun_at
        try:
            await workflow.wait_condition(lambda: halted() is not None, timeout=remaining, timeout_summary=step.title)
        except TimeoutError:
            return StepResult(summary=f"Waited until {workflow.now():%H:%M:%S} UTC")
        return StepResult(summary="The wait was ended by a halt")

    async def run_runbook(self, state: StepState, step: RunbookStep, halted: Halted) -> StepResult:
        """Run another runbook to its end. Its undos become this step's. Raises: StepFailure."""
        child = await self._start(state, step)
        self._child, state.run = child, child.id
        try:
            result, was_late = await self._ended(child, step)
        except ChildWorkflowError as error:
            raise StepFailure(Outcome.UNKNOWN, f"The run of {step.runbook} ended in Temporal without a result.") from error
        finally:
            self._child = None
        state.undos = list(result.undos)
        words = f"Runbook {step.runbook} {result.status.value.replace('_', ' ')}: {result.summary}"
        if result.status is RunStatus.SUCCEEDED:
            return StepResult(summary=words)
        outcome = Outcome.HALTED if result.status is RunStatus.HALTED and not was_late else Outcome.FAILED
        raise StepFailure(outcome, words)

    async def _ended(self, child: Child, step: RunbookStep) -> tuple[RunbookResult, bool]:
        """Wait for the called run; one that is late is halted before its next step. Returns: its result, whether it was late."""
        try:
            return await asyncio.wait_for(asyncio.shield(child), step.timeout_seconds), False
        except TimeoutError:
            await child.signal("halt", HaltRequest(reason=f"it did not end within {step.timeout_seconds:g} s"))
        return await child, True

    async def _start(self, state: StepState, step: RunbookStep) -> Child:
        run = self._run.input
        called = run.library[step.runbook]
        attributes = [
            SearchAttributePair(search.SERVICE, run.service_id),
            SearchAttributePair(search.RUNBOOK, called.name),
            SearchAttributePair(search.STATUS, RunStatus.RUNNING.value),
        ]
        values = {**run.names, **self._inputs(step)}
        try:
            return await workflow.start_child_workflow(
                "RunbookWorkflow",
                run.model_copy(
                    update={
                        "runbook": called,
                        "names": values,
                        "thread": self._narrator.thread,
                        "dry_run": self._run.is_dry,
                    }
                ),
                result_type=RunbookResult,
                id=ids.called_workflow_id(self._run.workflow_id, state.number, called.name),
                parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
                search_attributes=TypedSearchAttributes(attributes),
                static_summary=f"{called.name}, called by {run.runbook.name}",
            )
        except WorkflowAlreadyStartedError as error:
            raise StepFailure(Outcome.FAILED, f"Runbook {step.runbook} was already run for this step.") from error

    def _inputs(self, step: RunbookStep) -> dict[str, Scalar]:
        called = self._run.input.library.get(step.runbook)
        if called is None:
            raise StepFailure(Outcome.FAILED, f"There is no runbook named {step.runbook} in this run.")
        try:
            given = {
                name: expressions.render(value, self._run.names) if isinstance(value, str) else value
                for name, value in step.inputs.items()
            }
            return bind_inputs(called.inputs, given)
        except (InputError, expressions.ExpressionError) as error:
            raise StepFailure(Outcome.FAILED, f"Runbook {step.runbook}: {error}.") from error

    def _signal(self, name: str, argument: HaltRequest | RecoverRequest) -> None:
        """Handlers do not await: the signal is sent by a task of its own."""
        child = self._child
        if child is None:
            return

        async def send() -> None:
            try:
                await child.signal(name, argument)
            except Exception as error:  # it ended in this very moment, and its outcome arrives by itself
                workflow.logger.info("run %s did not take the signal %s: %s", child.id, name, error)

        task = asyncio.create_task(send())
        self._signals.add(task)
        task.add_done_callback(self._signals.discard)
