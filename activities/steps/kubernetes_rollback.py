"""The action `rollout-undo`: give a Deployment an earlier template, as `kubectl rollout undo` does, guarded by the one it has."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal

from pydantic import Field

from activities.clients.cluster_objects import Revision, TemplateState
from activities.errors import Conflict, InvalidStep, PlanChanged, Unreachable, clip
from activities.steps.base import CHANGE_LIMIT_CHARACTERS, left_by, plan_of, read_as, step_of
from activities.steps.kubernetes_port import ClusterPort
from activities.steps.kubernetes_restart import require_not_paused
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
from domain.base import Durable
from domain.incident import StepRequest, UndoRequest
from domain.plan import StepPlan, StepResult, Undo
from domain.steps import KubernetesStep


class RollbackRequest(DeploymentRequest):
    """The resolved request of a rollback."""

    action: Literal["rollout-undo"] = "rollout-undo"
    to_revision: int | None
    """None: the one before; which that is, the plan observes."""


class RollbackObservation(Durable):
    """What the plan of a rollback saw, and which template it chose.

    A template is known by its digest: its revision number moves when it is used again, and the annotation that counts lags
    behind a template that was just written.
    """

    revision: int
    template: str
    to_revision: int
    to_template: str

    @property
    def has_nothing_to_change(self) -> bool:
        return self.template == self.to_template


class RollbackUndo(DeploymentRequest):
    """The request that takes a rollback back."""

    action: Literal["rollout-undo"] = "rollout-undo"
    before_undo: str = Field(alias="from")
    """Digest of the template that the step left."""
    after_undo: str = Field(alias="to")
    """Digest of the template that the step found."""
    revision: int
    """Which it was then, for words."""


class Rollback:
    """Target state: the write names the template that it expects and the template that it wants."""

    def __init__(self, poll_interval: timedelta) -> None:
        self._poll_interval = poll_interval

    def wish(self, step: KubernetesStep, request: StepRequest) -> RollbackRequest:
        return RollbackRequest.model_validate({**deployment_of(step, request), "to_revision": step.to_revision})

    async def plan(self, cluster: ClusterPort, request: StepRequest, wished: dict[str, Any]) -> StepPlan:
        wish = RollbackRequest.model_validate(wished)
        now = await cluster.read_template(wish.namespace, wish.deployment)
        require_not_paused(wish, now)
        if not now.is_observed:  # the one before the newest is not yet known
            raise Unreachable(f"the cluster has not noticed the newest change of {wish.deployment} in {wish.namespace} yet")
        target = chosen(wish, await cluster.read_revisions(wish.namespace, now))
        observed = RollbackObservation(
            revision=now.revision, template=now.digest, to_revision=target.number, to_template=target.digest
        )
        if not observed.has_nothing_to_change:
            await rehearse(cluster.roll_back(wish.namespace, now, target, dry_run=True))
        return StepPlan(
            title=titled(step_of(request, KubernetesStep), deployment=wish.deployment),
            change=clip(_change(now, target), CHANGE_LIMIT_CHARACTERS),
            facts=wish.facts,
            request=wished,
            observed=observed.model_dump(mode="json"),
        )

    async def execute(self, cluster: ClusterPort, request: StepRequest) -> StepResult:
        step, plan = step_of(request, KubernetesStep), plan_of(request)
        deadline = deadline_of(step)
        wish = read_as(RollbackRequest, plan.request, f"the plan of step {request.number}")
        seen = read_as(RollbackObservation, plan.observed, f"the plan of step {request.number}")
        now = await cluster.read_template(wish.namespace, wish.deployment)
        repeated = is_later_attempt() and not seen.has_nothing_to_change and now.digest == seen.to_template
        if not repeated:
            _require_as_planned(wish, now, seen)
        if seen.has_nothing_to_change:
            summary = f"{wish.deployment} already has the template of revision {seen.to_revision}, nothing was changed"
            return StepResult(summary=summary, outputs={"revision_before": seen.revision, "revision_restored": seen.to_revision})
        undo = _undo(wish, seen)
        with cancellable(f"{wish.deployment} was being rolled back", undo):
            if not repeated:
                require_not_paused(wish, now)
                target = await _kept(cluster, wish, now, seen.to_template, seen.to_revision)
                with answer_may_be_lost(undo):
                    await cluster.roll_back(wish.namespace, now, target)
            if step.waits:
                done = f"{wish.deployment} was given the template of revision {seen.to_revision}"
                await wait_for_rollout(cluster, wish, done=done, deadline=deadline, undo=undo, poll_interval=self._poll_interval)
        return StepResult(
            summary=f"{wish.deployment} rolled back from revision {seen.revision} to {seen.to_revision}",
            outputs={"revision_before": seen.revision, "revision_restored": seen.to_revision},
            undo=undo,
            repeated=repeated,
        )

    async def undo(self, cluster: ClusterPort, request: UndoRequest) -> StepResult:
        """Give back the template that the step found. A template that is neither is a Conflict and stays."""
        back = read_as(RollbackUndo, left_by(request).request, f"the undo of step {request.number}")
        now = await cluster.read_template(back.namespace, back.deployment)
        repeated = now.digest == back.after_undo
        if not repeated:
            if now.digest != back.before_undo:
                raise Conflict(
                    f"{back.deployment} in {back.namespace} is at revision {now.revision} ({clip(now.image, 200)}),"
                    " which is not what the step left: nothing was changed"
                )
            require_not_paused(back, now)
            await cluster.roll_back(back.namespace, now, await _kept(cluster, back, now, back.after_undo, back.revision))
        return StepResult(
            summary=f"{back.deployment} has the template of revision {back.revision} again",
            outputs={"revision_restored": back.revision},
            repeated=repeated,
        )


def chosen(wish: RollbackRequest, kept: Sequence[Revision]) -> Revision:
    """The revision to go back to, as kubectl chooses: the wished one, else the second newest. Raises: InvalidStep.

    kept: newest first.
    """
    where = f"{wish.deployment} in {wish.namespace}"
    if wish.to_revision is None:
        if len(kept) < 2:
            raise InvalidStep(f"{where} has no earlier revision to go back to")
        return kept[1]
    found = next((one for one in kept if one.number == wish.to_revision), None)
    if found is None:
        numbers = ", ".join(str(one.number) for one in kept) or "none"
        raise InvalidStep(f"{where} has no revision {wish.to_revision}; kept are {clip(numbers, 100)}")
    return found


async def _kept(cluster: ClusterPort, of: DeploymentRequest, now: TemplateState, digest: str, number: int) -> Revision:
    """Find a template among the kept ones, under whichever number. Raises: Conflict when it is no longer kept."""
    for one in await cluster.read_revisions(of.namespace, now):
        if one.digest == digest:
            return one
    raise Conflict(f"{of.deployment} in {of.namespace} no longer keeps the template of revision {number}: nothing was changed")


def _require_as_planned(wish: RollbackRequest, now: TemplateState, seen: RollbackObservation) -> None:
    if (now.revision, now.digest) == (seen.revision, seen.template):
        return
    error = Conflict if is_later_attempt() else PlanChanged
    raise error(
        f"{wish.deployment} in {wish.namespace} is at revision {now.revision} ({clip(now.image, 200)}),"
        f" and no longer what the plan saw as revision {seen.revision}: nothing was changed"
    )


def _change(now: TemplateState, target: Revision) -> str:
    if now.digest == target.digest:
        return f"revision {now.revision} has the template of revision {target.number}, nothing to change"
    images = f"image {now.image} → {target.image}" if now.image != target.image else f"the same image {now.image}"
    return f"revision {now.revision} → {target.number}, {images}"


def _undo(wish: RollbackRequest, seen: RollbackObservation) -> Undo:
    back = RollbackUndo.model_validate(
        {
            "namespace": wish.namespace,
            "deployment": wish.deployment,
            "from": seen.to_template,
            "to": seen.template,
            "revision": seen.revision,
        }
    )
    return Undo(
        title=f"Give deployment {wish.deployment} the template of revision {seen.revision} again",
        request=back.model_dump(mode="json", by_alias=True),
    )
