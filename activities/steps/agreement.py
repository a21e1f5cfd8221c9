"""Whether a plan may run: it must be this step's, and approved where the step asks. Pure; fails closed."""

from typing import Any

from activities.errors import PlanChanged
from domain.base import sha256_of
from domain.incident import StepRequest
from domain.plan import StepPlan


def require_plannable_now(request: StepRequest) -> None:
    """Refuse to plan at the last moment what somebody had to see first.

    Raises: PlanChanged for a step that reads the world, that asks for approval, or that was approved by a digest.
    """
    if request.step.require_approval or request.approved_digest is not None:
        raise PlanChanged(f"step {request.number} needs an approved plan and came without one: nothing was run")
    if request.step.reads_world:
        raise PlanChanged(f"step {request.number} must be planned before it runs: nothing was run")


def require_agreement(request: StepRequest, plan: StepPlan, rendered: dict[str, Any]) -> None:
    """Hold the plan against the step as it renders now, and the approval against the plan.

    Raises: PlanChanged when the plan is of something else, when a needed approval is missing, or is of another plan.
    """
    if sha256_of(plan.request) != sha256_of(rendered):
        raise PlanChanged(f"step {request.number} is not what was planned: nothing was run")
    if request.approved_digest is None and request.step.require_approval:
        raise PlanChanged(f"step {request.number} was not approved: nothing was run")
    if request.approved_digest is not None and request.approved_digest != plan.digest:
        raise PlanChanged(f"step {request.number} is not what was approved: nothing was run")
