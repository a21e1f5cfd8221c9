"""What an action of a kubernetes step is, and what several actions share: names, rehearsals, waiting, cancellation."""

import asyncio
import contextlib
from collections.abc import Awaitable, Generator
from datetime import timedelta
from typing import Any, Protocol

from temporalio import activity

from activities.errors import Conflict, InvalidStep, OrchestratorError, Refused, StepFailed, TransientError, Unreachable
from activities.steps import heartbeat
from activities.steps.kubernetes_port import ClusterPort
from domain import expressions
from domain.base import Durable
from domain.incident import StepRequest, UndoRequest
from domain.plan import Fact, StepPlan, StepResult, Undo
from domain.steps import KubernetesStep

NO_DRY_RUN = "does not support dry run"
"""How the API server refuses a dry run because of an admission webhook (k8s.io/apiserver, webhook/errors/statuserror.go)."""


class Verb(Protocol):
    """One action, or several that differ in a word."""

    def wish(self, step: KubernetesStep, request: StepRequest) -> Durable:
        """The resolved request. Pure. Raises: InvalidStep, ExpressionError."""
        ...

    async def plan(self, cluster: ClusterPort, request: StepRequest, wished: dict[str, Any]) -> StepPlan:
        """`wished` is the JSON form of `wish`."""
        ...

    async def execute(self, cluster: ClusterPort, request: StepRequest) -> StepResult: ...

    async def undo(self, cluster: ClusterPort, request: UndoRequest) -> StepResult: ...


class DeploymentRequest(Durable):
    """The part of a resolved request that says which Deployment."""

    namespace: str
    deployment: str

    @property
    def facts(self) -> tuple[Fact, ...]:
        return (Fact(label="Namespace", value=self.namespace), Fact(label="Deployment", value=self.deployment))


def deployment_of(step: KubernetesStep, request: StepRequest) -> dict[str, str]:
    """The keys of a DeploymentRequest with their names filled in; the client checks what they became."""
    if step.namespace is None or step.deployment is None:
        raise InvalidStep(f"step {request.number} needs the keys namespace and deployment")
    return {
        "namespace": expressions.render(step.namespace, request.names),
        "deployment": expressions.render(step.deployment, request.names),
    }


def titled(step: KubernetesStep, **filled: object) -> str:
    """The title of the step with what its keys became."""
    return step.model_copy(update=filled).title


def deadline_of(step: KubernetesStep) -> float:
    """When the step's time is over, on the event loop's clock."""
    return asyncio.get_running_loop().time() + step.timeout_seconds


async def rehearse(write: Awaitable[object]) -> None:
    """Await a dry run, so that what the cluster would refuse is refused before anybody is asked.

    A cluster whose admission webhooks take no dry run is asked nothing. A world that moves just now is planned again.
    """
    try:
        await write
    except Refused as refusal:
        if NO_DRY_RUN not in str(refusal):
            raise
    except Conflict as conflict:
        raise Unreachable(f"it changed while it was planned: {conflict}") from None


@contextlib.contextmanager
def answer_may_be_lost(undo: Undo | None) -> Generator[None]:
    """Around a write: the answer may be lost and not the write; should this be the last attempt, the undo finds out."""
    try:
        yield
    except TransientError as error:
        error.undo = undo
        raise


@contextlib.contextmanager
def cancellable(doing: str, undo: Undo | None) -> Generator[None]:
    """Around what changes something: a run that is cancelled meanwhile is told what has to be taken back.

    Raises: StepFailed. A worker that stops is another matter: the next attempt takes it from here.
    """
    try:
        yield
    except asyncio.CancelledError:
        details = activity.cancellation_details()
        if details is None or not details.cancel_requested:
            raise
        raise StepFailed(f"the run was cancelled while {doing}", undo=undo) from None


def is_later_attempt() -> bool:
    return activity.info().attempt > 1


async def wait_for_rollout(
    cluster: ClusterPort,
    of: DeploymentRequest,
    *,
    done: str,
    deadline: float,
    undo: Undo | None,
    poll_interval: timedelta,
) -> None:
    """Wait until every pod is there.

    done: what was changed, as the beginning of a sentence (`payment-api was set to 5 replicas`).
    Raises: StepFailed with the undo: from here on, something was changed.
    """
    progress = "nothing was heard of its pods"
    try:
        async with asyncio.timeout_at(deadline):
            while True:
                is_complete, progress = await _look(cluster, of)
                if is_complete:
                    return
                heartbeat.say(progress)
                await asyncio.sleep(poll_interval.total_seconds())
    except TimeoutError:
        raise StepFailed(f"{done}, but the rollout did not complete in time ({progress})", undo=undo) from None
    except OrchestratorError as error:
        raise StepFailed(f"{done}, but the rollout failed ({error})", undo=undo) from None


async def _look(cluster: ClusterPort, of: DeploymentRequest) -> tuple[bool, str]:
    """Look at the rollout once: whether it is complete, and how far it is. Raises: Refused when the cluster gave up.

    A look that fails for the moment is no reason to give up the wait, which has its own end.
    """
    try:
        rollout = await cluster.rollout_status(of.namespace, of.deployment)
    except TransientError as error:
        return False, str(error)
    if rollout.is_observed and rollout.has_failed:
        raise Refused(rollout.progress)
    return rollout.is_complete, rollout.progress
