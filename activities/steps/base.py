"""What a step type is, and the small things that every type shares."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from activities.errors import InvalidStep, PlanChanged
from domain.incident import StepRequest, UndoRequest
from domain.plan import StepPlan, StepResult, Undo
from domain.runbook import StepBase

CHANGE_LIMIT_CHARACTERS = 500
"""Longest text of the step's own that a plan shows the approver in one place; Slack takes 3,000 in a section."""

_Step = TypeVar("_Step", bound=StepBase)
_Model = TypeVar("_Model", bound=BaseModel)


class StepType(Protocol):
    """How the steps of one `type` are planned, executed and taken back.

    The rules that hold for every type (approval, digest, attempts, heartbeats, conversion of errors) are kept by
    `StepActivities` before and around these methods, and not by the types.
    """

    type: ClassVar[str]

    def render(self, request: StepRequest) -> dict[str, Any]:
        """The resolved request, JSON values only: what is approved and what runs. Pure; secrets stand as `$NAME`.

        Raises: InvalidStep, ExpressionError, NotConfigured.
        """
        ...

    async def plan(self, request: StepRequest) -> StepPlan:
        """Read the world and say what `execute` would do; changes nothing. `plan.request` is what `render` gives."""
        ...

    async def execute(self, request: StepRequest) -> StepResult:
        """Do what `request.plan` says; it is set, belongs to the step, and is approved where the step asks."""
        ...

    async def undo(self, request: UndoRequest) -> StepResult:
        """Take back what `execute` did, by the `Undo` that it left."""
        ...


def step_of(request: StepRequest | UndoRequest, kind: type[_Step]) -> _Step:
    """The step as the model of its own type. Raises: InvalidStep when the request reached the wrong step type."""
    if not isinstance(request.step, kind):
        raise InvalidStep(f"step {request.number} is of type {request.step.type} and was handed to another type")
    return request.step


def plan_of(request: StepRequest) -> StepPlan:
    """The plan to execute. Raises: PlanChanged when there is none."""
    if request.plan is None:
        raise PlanChanged(f"step {request.number} has no plan: nothing was run")
    return request.plan


def left_by(request: UndoRequest) -> Undo:
    """The undo that the step left. Raises: InvalidStep when it left none: a step that takes another back is executed instead."""
    if request.undo is None:
        raise InvalidStep(f"step {request.number} left nothing by which it could be taken back")
    return request.undo


def read_as(model: type[_Model], stored: Mapping[str, Any], what: str) -> _Model:
    """Read what an earlier activity stored. Raises: InvalidStep naming `what`; never the values."""
    try:
        return model.model_validate(stored)
    except ValidationError as error:
        places = ", ".join(".".join(str(part) for part in item["loc"]) for item in error.errors())
        raise InvalidStep(f"{what} cannot be read: check {places}") from None


def cannot_be_undone(request: UndoRequest) -> InvalidStep:
    """The refusal of a type whose steps leave no undo."""
    return InvalidStep(f"step {request.number} is of type {request.step.type}, which cannot be taken back")
