"""The action `restart`: replace the pods of a Deployment as `kubectl rollout restart` does, once however often it is tried."""

from datetime import timedelta
from typing import Any, Literal

from activities.clients.cluster_objects import TemplateState
from activities.errors import Conflict, InvalidStep, PlanChanged, clip
from activities.steps.base import CHANGE_LIMIT_CHARACTERS, plan_of, read_as, step_of
from activities.steps.kubernetes_port import ClusterPort
from activities.steps.kubernetes_verb import (
    DeploymentRequest,
    cancellable,
    deadline_of,
    deployment_of,
    is_later_attempt,
    rehearse,
    titled,
    wait_for_rollout,
)
from domain.base import Durable
from domain.incident import StepRequest, UndoRequest
from domain.plan import Fact, StepPlan, StepResult
from domain.steps import KubernetesStep


class RestartRequest(DeploymentRequest):
    """The resolved request of a restart. The time is no part of it: plan and execution each have their own."""

    action: Literal["restart"] = "restart"


class RestartObservation(Durable):
    """What the plan of a restart saw; the digest of the template covers the other two and every other change."""

    revision: int
    restarted_at: str | None
    template: str


class Restart:
    """Once: the time that is written is the same in every attempt, and writing it twice changes nothing."""

    def __init__(self, poll_interval: timedelta) -> None:
        self._poll_interval = poll_interval

    def wish(self, step: KubernetesStep, request: StepRequest) -> RestartRequest:
        return RestartRequest.model_validate(deployment_of(step, request))

    async def plan(self, cluster: ClusterPort, request: StepRequest, wished: dict[str, Any]) -> StepPlan:
        wish = RestartRequest.model_validate(wished)
        now = await cluster.read_template(wish.namespace, wish.deployment)
        require_not_paused(wish, now)
        await rehearse(cluster.restart(wish.namespace, now, _stamp(request), dry_run=True))
        return StepPlan(
            title=titled(step_of(request, KubernetesStep), deployment=wish.deployment),
            change=f"revision {now.revision} restarted: {_pods(now)}",
            facts=(*wish.facts, Fact(label="Image", value=clip(now.image, CHANGE_LIMIT_CHARACTERS))),
            request=wished,
            observed=_observed(now).model_dump(mode="json"),
        )

    async def execute(self, cluster: ClusterPort, request: StepRequest) -> StepResult:
        step, plan = step_of(request, KubernetesStep), plan_of(request)
        deadline = deadline_of(step)
        wish = read_as(RestartRequest, plan.request, f"the plan of step {request.number}")
        seen = read_as(RestartObservation, plan.observed, f"the plan of step {request.number}")
        now = await cluster.read_template(wish.namespace, wish.deployment)
        repeated = is_later_attempt() and now.restarted_at == _stamp(request)
        with cancellable(f"{wish.deployment} was being restarted", None):
            if not repeated:
                _require_as_planned(wish, now, seen)
                require_not_paused(wish, now)
                await cluster.restart(wish.namespace, now, _stamp(request))
            if step.waits:
                await wait_for_rollout(
                    cluster,
                    wish,
                    done=f"{wish.deployment} was told to restart",
                    deadline=deadline,
                    undo=None,
                    poll_interval=self._poll_interval,
                )
        return StepResult(
            summary=f"{wish.deployment} {'restarted' if step.waits else 'told to restart'}: {_pods(now)}",
            outputs={"restarted_at": _stamp(request), "revision_before": seen.revision},
            repeated=repeated,
        )

    async def undo(self, cluster: ClusterPort, request: UndoRequest) -> StepResult:
        """Raises: InvalidStep: a restart has nothing that could be taken back."""
        raise InvalidStep(f"step {request.number} is a restart, which leaves nothing to take back")


def require_not_paused(wish: DeploymentRequest, now: TemplateState) -> None:
    """Refuse as kubectl does: the change would be stored, and take effect whenever somebody resumes. Raises: InvalidStep."""
    if now.is_paused:
        raise InvalidStep(
            f"{wish.deployment} in {wish.namespace} is paused: resume it first with"
            f" 'kubectl rollout resume deployment/{wish.deployment} --namespace {wish.namespace}'"
        )


def _require_as_planned(wish: RestartRequest, now: TemplateState, seen: RestartObservation) -> None:
    if _observed(now) == seen:
        return
    if now.restarted_at != seen.restarted_at:
        moved = f"{wish.deployment} in {wish.namespace} was restarted at {now.restarted_at or 'an unknown time'}, after the plan"
    else:
        moved = f"{wish.deployment} in {wish.namespace} is no longer the revision {seen.revision} that the plan saw"
    error = Conflict if is_later_attempt() else PlanChanged
    raise error(f"{moved}: nothing was changed")


def _observed(now: TemplateState) -> RestartObservation:
    return RestartObservation(revision=now.revision, restarted_at=now.restarted_at, template=now.digest)


def _stamp(request: StepRequest) -> str:
    """RFC 3339 in UTC with microseconds: kubectl's whole seconds would take two restarts within one for the same."""
    return f"{request.fixed_at:%Y-%m-%dT%H:%M:%S.%fZ}"


def _pods(now: TemplateState) -> str:
    pods = "1 pod" if now.replicas == 1 else f"{now.replicas} pods"
    return f"{pods} stopped at once and then started anew" if now.recreates else f"{pods} replaced one after the other"
