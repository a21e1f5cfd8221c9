"""The step type `kubernetes`: change the replica count of a Deployment, guarded by the count that the plan saw."""

import asyncio
import re
from datetime import timedelta
from typing import Any, ClassVar, Literal, Protocol

from pydantic import Field
from temporalio import activity

from activities.errors import InvalidStep, NotConfigured, OrchestratorError, PlanChanged, Refused, StepFailed, TransientError, clip
from activities.steps import heartbeat
from activities.steps.base import left_by, plan_of, read_as, step_of
from domain import expressions
from domain.base import Durable
from domain.incident import StepRequest, UndoRequest
from domain.plan import Fact, StepPlan, StepResult, Undo
from domain.steps import REPLICAS_LIMIT, KubernetesStep

POLL_INTERVAL = timedelta(seconds=1)

_COUNT = re.compile(r"[0-9]{1,9}")


class Scale(Protocol):
    """The replica count that a Deployment asks for."""

    @property
    def replicas(self) -> int: ...


class Rollout(Protocol):
    """How far a Deployment's pods have come."""

    @property
    def is_complete(self) -> bool: ...

    @property
    def is_observed(self) -> bool:
        """Whether the counts and `has_failed` are about the newest spec yet."""
        ...

    @property
    def has_failed(self) -> bool: ...

    @property
    def progress(self) -> str: ...


class ClusterPort(Protocol):
    """What this step type needs of a cluster; every method raises InvalidStep, Refused, RateLimited or Unreachable."""

    async def read_scale(self, namespace: str, deployment: str) -> Scale: ...

    async def set_replicas(self, namespace: str, deployment: str, *, expected: int, target: int) -> Scale:
        """Change `expected` to `target` in one atomic request; a count that is neither is a Conflict and stays.

        Raises: StepFailed without an undo when the cluster stored a count that is not `target`.
        """
        ...

    async def rollout_status(self, namespace: str, deployment: str) -> Rollout: ...


class ScaleRequest(Durable):
    """The resolved request of a scale."""

    action: Literal["scale"] = "scale"
    namespace: str
    deployment: str
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


class KubernetesSteps:
    """Safe to run twice: a write names the count that it expects and the count that it wants."""

    type: ClassVar[str] = "kubernetes"

    def __init__(self, cluster: ClusterPort | None, *, poll_interval: timedelta = POLL_INTERVAL) -> None:
        """Without `cluster` every step is refused; `poll_interval` lies between two looks at a rollout."""
        self._cluster = cluster
        self._poll_interval = poll_interval

    def render(self, request: StepRequest) -> dict[str, Any]:
        return self._wish(request).model_dump(mode="json")

    async def plan(self, request: StepRequest) -> StepPlan:
        wish = self._wish(request)
        now = (await self._require_cluster().read_scale(wish.namespace, wish.deployment)).replicas
        moves = now != wish.replicas
        return StepPlan(
            title=step_of(request, KubernetesStep).model_copy(update={"replicas": wish.replicas}).title,
            change=f"replicas {now} → {wish.replicas}" if moves else f"replicas {now}, nothing to change",
            facts=(Fact(label="Namespace", value=wish.namespace), Fact(label="Deployment", value=wish.deployment)),
            request=wish.model_dump(mode="json"),
            observed=ScaleObservation(replicas=now).model_dump(mode="json"),
        )

    async def execute(self, request: StepRequest) -> StepResult:
        """Scale and wait for the rollout, at most `timeout_seconds` in all.

        Raises: PlanChanged when the count moved since the plan, Conflict when it moved at the last moment (nothing is
        overwritten in either case); StepFailed with the undo when the rollout does not complete.
        """
        deadline = asyncio.get_running_loop().time() + request.step.timeout_seconds
        plan = plan_of(request)
        wish = read_as(ScaleRequest, plan.request, f"the plan of step {request.number}")
        seen = read_as(ScaleObservation, plan.observed, f"the plan of step {request.number}").replicas
        repeated = await self._is_already_done(wish, seen)
        if seen == wish.replicas:
            summary = f"{wish.deployment} already has {_counted(seen)}, nothing was changed"
            return StepResult(summary=summary, outputs={"replicas_before": seen, "replicas": seen})
        undo = _undo(wish, wish.replicas, seen)
        try:
            if not repeated:
                await self._scale(wish, seen, undo)
            await self._wait_for_rollout(wish, deadline, undo)
        except asyncio.CancelledError:
            if not _is_cancelled_by_request():
                raise  # the worker stops: the next attempt takes it from here
            raise StepFailed(f"the run was cancelled while {wish.deployment} was being scaled", undo=undo) from None
        return StepResult(
            summary=f"{wish.deployment} scaled from {seen} to {_counted(wish.replicas)}",
            outputs={"replicas_before": seen, "replicas": wish.replicas},
            undo=undo,
            repeated=repeated,
        )

    async def undo(self, request: UndoRequest) -> StepResult:
        """Put the count back from what the step left to what it found. A count that is neither is a Conflict and stays."""
        back = read_as(ScaleUndo, left_by(request).request, f"the undo of step {request.number}")
        cluster = self._require_cluster()
        now = (await cluster.read_scale(back.namespace, back.deployment)).replicas
        repeated = now == back.after_undo
        if not repeated:
            await cluster.set_replicas(back.namespace, back.deployment, expected=back.before_undo, target=back.after_undo)
        return StepResult(
            summary=f"{back.deployment} scaled back to {_counted(back.after_undo)}",
            outputs={"replicas_before": now, "replicas": back.after_undo},
            repeated=repeated,
        )

    def _wish(self, request: StepRequest) -> ScaleRequest:
        step = step_of(request, KubernetesStep)
        if step.action != "scale":
            raise InvalidStep(f"kubernetes action {step.action} is not available in this version")
        if step.namespace is None or step.deployment is None or step.replicas is None:
            raise InvalidStep(f"step {request.number} needs the keys namespace, deployment and replicas")
        return ScaleRequest(
            namespace=expressions.render(step.namespace, request.names),
            deployment=expressions.render(step.deployment, request.names),
            replicas=_replicas(step.replicas, request),
        )

    def _require_cluster(self) -> ClusterPort:
        if self._cluster is None:
            raise NotConfigured(
                "kubernetes steps need a cluster: set KUBECONFIG to a kubeconfig file, or run in a pod with a service account"
            )
        return self._cluster

    async def _is_already_done(self, wish: ScaleRequest, seen: int) -> bool:
        """Compare the world with the plan: on a later attempt, the wished count is an earlier attempt's own work.

        Raises: PlanChanged on the first attempt when the count is not the planned one, even if it is the wished one:
        somebody else was at it, and the workflow plans and asks again.
        """
        now = (await self._require_cluster().read_scale(wish.namespace, wish.deployment)).replicas
        if activity.info().attempt > 1 and seen != wish.replicas:
            return now == wish.replicas
        if now != seen:
            raise PlanChanged(
                f"{wish.deployment} in {wish.namespace} has {_counted(now)}, the plan saw {seen}: nothing was changed"
            )
        return False

    async def _scale(self, wish: ScaleRequest, seen: int, undo: Undo) -> None:
        cluster = self._require_cluster()
        try:
            await cluster.set_replicas(wish.namespace, wish.deployment, expected=seen, target=wish.replicas)
        except TransientError as error:
            error.undo = undo  # the answer may be lost and not the write; should this be the last attempt, the undo finds out
            raise
        except StepFailed as error:  # an admission rule stored a count of its own
            left = (await cluster.read_scale(wish.namespace, wish.deployment)).replicas
            raise StepFailed(str(error), undo=_undo(wish, left, seen)) from None

    async def _wait_for_rollout(self, wish: ScaleRequest, deadline: float, undo: Undo) -> None:
        """Wait until every pod is there. Raises: StepFailed with the undo: from here on, something was changed."""
        scaled = f"{wish.deployment} was set to {_counted(wish.replicas)}"
        progress = "nothing was heard of its pods"
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    is_complete, progress = await self._look(wish)
                    if is_complete:
                        return
                    heartbeat.say(progress)
                    await asyncio.sleep(self._poll_interval.total_seconds())
        except TimeoutError:
            raise StepFailed(f"{scaled}, but the rollout did not complete in time ({progress})", undo=undo) from None
        except OrchestratorError as error:
            raise StepFailed(f"{scaled}, but the rollout failed ({error})", undo=undo) from None

    async def _look(self, wish: ScaleRequest) -> tuple[bool, str]:
        """Look at the rollout once: whether it is complete, and how far it is. Raises: Refused when the cluster gave up.

        A look that fails for the moment is no reason to give up the wait, which has its own end.
        """
        try:
            rollout = await self._require_cluster().rollout_status(wish.namespace, wish.deployment)
        except TransientError as error:
            return False, str(error)
        if rollout.is_observed and rollout.has_failed:
            raise Refused(rollout.progress)
        return rollout.is_complete, rollout.progress


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


def _is_cancelled_by_request() -> bool:
    details = activity.cancellation_details()
    return details is not None and details.cancel_requested
