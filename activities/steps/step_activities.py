"""The activities `step.plan`, `step.execute` and `step.undo`: the rules that hold for every step type, in one place.

What a type does is its own business (`StepType`); whether it may run, that it is heard of while it runs, and what of its
failures is told, is decided here.
"""

import traceback
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.errors import InvalidStep, OrchestratorError, OutcomeUnknown, clip, to_application_error
from activities.secrets import Secrets
from activities.steps.agreement import require_agreement, require_plannable_now
from activities.steps.base import StepType
from activities.steps.heartbeat import HEARTBEAT_INTERVAL, beating
from domain.expressions import ExpressionError
from domain.incident import StepRequest, UndoRequest
from domain.plan import StepPlan, StepResult

_Result = TypeVar("_Result")


class StepActivities:
    """The three activities of runbook steps."""

    def __init__(
        self, step_types: Mapping[str, StepType], secrets: Secrets, *, heartbeat_interval: timedelta = HEARTBEAT_INTERVAL
    ) -> None:
        """Take the step types by `type` (`build_step_types`); `secrets` are kept out of every result and every failure."""
        self._step_types = step_types
        self._secrets = secrets
        self._heartbeat_interval = heartbeat_interval

    @property
    def all(self) -> list[Callable[..., Any]]:
        """What a worker registers."""
        return [self.plan, self.execute, self.undo]

    @activity.defn(name="step.plan")
    async def plan(self, request: StepRequest) -> StepPlan:
        """Say what the step would do. Safe to run twice: it changes nothing."""
        return await self._at_boundary(self._plan(request))

    @activity.defn(name="step.execute")
    async def execute(self, request: StepRequest) -> StepResult:
        """Do what was planned, and approved where the step asks; anything else is refused before anything happens.

        Raises: ApplicationError with a type of the error tree; its detail is the `Undo` where something may have been changed.
        Safe to run twice as far as the step is: one that may happen at most once is refused its second attempt.
        """
        return await self._at_boundary(self._execute(request), at_most_once=request.step.at_most_once)

    @activity.defn(name="step.undo")
    async def undo(self, request: UndoRequest) -> StepResult:
        """Take the step back. Safe to run twice: what is already taken back is success."""
        return await self._at_boundary(self._undo(request))

    async def _plan(self, request: StepRequest) -> StepPlan:
        return await self._step_type(request).plan(request)

    async def _execute(self, request: StepRequest) -> StepResult:
        _refuse_repetition(request)
        step_type = self._step_type(request)
        plan = request.plan
        if plan is None:
            require_plannable_now(request)
            plan = await step_type.plan(request)
        require_agreement(request, plan, step_type.render(request))
        return self._shown(await step_type.execute(request.model_copy(update={"plan": plan})))

    async def _undo(self, request: UndoRequest) -> StepResult:
        return self._shown(await self._step_type(request).undo(request))

    def _step_type(self, request: StepRequest | UndoRequest) -> StepType:
        found = self._step_types.get(request.step.type)
        if found is None:
            raise InvalidStep(f"step {request.number} is of type {request.step.type}, which this worker does not know")
        return found

    def _shown(self, result: StepResult) -> StepResult:
        outputs = {name: self._secrets.redact(value) if isinstance(value, str) else value for name, value in result.outputs.items()}
        return result.model_copy(update={"summary": self._secrets.redact(result.summary), "outputs": outputs})

    async def _at_boundary(self, work: Coroutine[Any, Any, _Result], *, at_most_once: bool = False) -> _Result:
        """Run `work` with heartbeats; every failure leaves as an ApplicationError without cause and without secrets."""
        failure: ApplicationError
        try:
            async with beating(self._heartbeat_interval):
                return await work
        except ExpressionError as error:
            failure = self._told(InvalidStep(str(error)))
        except OrchestratorError as error:
            if at_most_once:
                error.retryable = False  # tried once: whether to try again is for a human to say
            failure = self._told(error)
        except Exception as error:
            failure = self._unforeseen(error, at_most_once=at_most_once)
        raise failure

    def _told(self, error: OrchestratorError) -> ApplicationError:
        error.args = (self._secrets.redact(str(error)),)
        return to_application_error(error)

    def _unforeseen(self, error: Exception, *, at_most_once: bool) -> ApplicationError:
        """A fault of ours: name the place, since the traceback stays here with the values that it holds."""
        place = traceback.extract_tb(error.__traceback__)[-1]
        module = place.filename.replace("\\", "/").rpartition("/")[2]
        sentence = f"unexpected {type(error).__name__} at {module}:{place.lineno}: {error}"
        if at_most_once:
            return self._told(OutcomeUnknown(f"it may or may not have happened: {sentence}"))
        return ApplicationError(clip(self._secrets.redact(sentence)), type=type(error).__name__)


def _refuse_repetition(request: StepRequest) -> None:
    """Raises: OutcomeUnknown when an earlier attempt of a step that may happen once was lost on its way."""
    if request.step.at_most_once and activity.info().attempt > 1:
        raise OutcomeUnknown(
            f"step {request.number} was started before and its outcome was lost: it may have happened and is not repeated"
        )
