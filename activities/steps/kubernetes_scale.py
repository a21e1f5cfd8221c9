"""The action `scale`: change the replica count of a Deployment, guarded by the count that the plan saw."""

import re
from datetime import timedelta
from typing import Any, Literal

from pydantic import Field

from activities.errors import InvalidStep, PlanChanged, StepFailed, clip
from activities.steps.base import left_by, plan_of, read_as, step_of
from activities.steps.kubernetes_port import ClusterPort
from activities.steps.kubernetes_verb import (
    DeploymentRequest,
    answer_may_be_lost,
    cancellable,
    deadline_of,
    deployment_of,
    is_later_attempt,
    rehearse,
    titled,
    wait_for_rollout,
)
from domain import expressions
from domain.base import Durable
from domain.incident import StepRequest, UndoRequest
from domain.plan import StepPlan, StepResult, Undo
from domain.steps import REPLICAS_LIMIT, KubernetesStep

_COUNT = re.compile(r"[0-9]{1,9}")


class ScaleRequest(DeploymentRequest):
    """The resolved request of a scale."""

    action: Literal["scale"] = "scale"
    replicas: int


class ScaleObservation(Durable):
    """What the plan of a scale saw."""

    replicas: int


class ScaleUndo(Durable):
    """The request that takes a scale back."""

    action: Literal["scale"] = "scale"
    namespace: str
    deployment: str
    before_undo: int = Field(alias="from")
    after_undo: int = Field(alias="to")


class Scaling:
    """Target state: the write names the count that it expects and the count that it wants."""

    def __init__(self, poll_interval: timedelta) -> None:
        self._poll_interval = poll_interval

    def wish(self, step: KubernetesStep, request: StepRequest) -> ScaleRequest:
        if step.replicas is None:
            raise InvalidStep(f"step {request.number} needs the key replicas")
        where = deployment_of(step, request)
        return ScaleRequest.model_validate({**where, "replicas": _replicas(step.replicas, request)})

    async def plan(self, cluster: ClusterPort, request: StepRequest, wished: dict[str, Any]) -> StepPlan:
        wish = ScaleRequest.model_validate(wished)
        now = (await cluster.read_scale(wish.namespace, wish.deployment)).replicas
        moves = now != wish.replicas
        if moves:
            await rehearse(cluster.set_replicas(wish.namespace, wish.deployment, expected=now, target=wish.replicas, dry_run=True))
        return StepPlan(
            title=titled(step_of(request, KubernetesStep), replicas=wish.replicas),
            change=f"replicas {now} → {wish.replicas}" if moves else f"replicas {now}, nothing to change",
            facts=wish.facts,
            request=wished,
            observed=ScaleObservation(replicas=now).model_dump(mode="json"),
        )

    async def execute(self, cluster: ClusterPort, request: StepRequest) -> StepResult:
        step, plan = step_of(request, KubernetesStep), plan_of(request)
        deadline = deadline_of(step)
        wish = read_as(ScaleRequest, plan.request, f"the plan of step {request.number}")
        seen = read_as(ScaleObservation, plan.observed, f"the plan of step {request.number}").replicas
        repeated = await _is_already_done(cluster, wish, seen)
        if seen == wish.replicas:
            summary = f"{wish.deployment} already has {_counted(seen)}, nothing was changed"
            return StepResult(summary=summary, outputs={"replicas_before": seen, "replicas": seen})
        undo = _undo(wish, wish.replicas, seen)
        with cancellable(f"{wish.deployment} was being scaled", undo):
            if not repeated:
                await _scale(cluster, wish, seen, undo)
            if step.waits:
                done = f"{wish.deployment} was set to {_counted(wish.replicas)}"
                await wait_for_rollout(cluster, wish, done=done, deadline=deadline, undo=undo, poll_interval=self._poll_interval)
        return StepResult(
            summary=f"{wish.deployment} scaled from {seen} to {_counted(wish.replicas)}",
            outputs={"replicas_before": seen, "replicas": wish.replicas},
            undo=undo,
            repeated=repeated,
        )

    async def undo(self, cluster: ClusterPort, request: UndoRequest) -> StepResult:
        """Put the count back from what the step left to what it found. A count that is neither is a Conflict and stays."""
        back = read_as(ScaleUndo, left_by(request).request, f"the undo of step {request.number}")
        now = (await cluster.read_scale(back.namespace, back.deployment)).replicas
        repeated = now == back.after_undo
        if not repeated:
            await cluster.set_replicas(back.namespace, back.deployment, expected=back.before_undo, target=back.after_undo)
        return StepResult(
            summary=f"{back.deployment} scaled back to {_counted(back.after_undo)}",
            outputs={"replicas_before": now, "replicas": back.after_undo},
            repeated=repeated,
        )


async def _is_already_done(cluster: ClusterPort, wish: ScaleRequest, seen: int) -> bool:
    """Compare the world with the plan: on a later attempt, the wished count is an earlier attempt's own work.

    Raises: PlanChanged on the first attempt when the count is not the planned one, even if it is the wished one:
    somebody else was at it, and the workflow plans and asks again.
    """
    now = (await cluster.read_scale(wish.namespace, wish.deployment)).replicas
    if is_later_attempt() and seen != wish.replicas:
        return now == wish.replicas
    if now != seen:
        raise PlanChanged(f"{wish.deployment} in {wish.namespace} has {_counted(now)}, the plan saw {seen}: nothing was changed")
    return False


async def _scale(cluster: ClusterPort, wish: ScaleRequest, seen: int, undo: Undo) -> None:
    try:
        with answer_may_be_lost(undo):
            await cluster.set_replicas(wish.namespace, wish.deployment, expected=seen, target=wish.replicas)
    except StepFailed as error:  # an admission rule stored a count of its own
        left = (await cluster.read_scale(wish.namespace, wish.deployment)).replicas
        raise StepFailed(str(error), undo=_undo(wish, left, seen)) from None


def _replicas(wished: int | str, request: StepRequest) -> int:
    """The wished count, with its name filled in. Raises: InvalidStep for anything but a whole number within the limit."""
    text = expressions.render(str(wished), request.names).strip()
    if not _COUNT.fullmatch(text) or int(text) > REPLICAS_LIMIT:
        allowed = f"allowed is a whole number from 0 to {REPLICAS_LIMIT:,}"
        raise InvalidStep(f"the replicas of step {request.number} are '{clip(text, 50)}': {allowed}")
    return int(text)


def _undo(wish: ScaleRequest, left: int, before: int) -> Undo:
    back = ScaleUndo.model_validate({"namespace": wish.namespace, "deployment": wish.deployment, "from": left, "to": before})
    return Undo(
        title=f"Scale deployment {wish.deployment} back to {_counted(before)}",
        request=back.model_dump(mode="json", by_alias=True),
    )


def _counted(replicas: int) -> str:
    return "1 replica" if replicas == 1 else f"{replicas} replicas"
