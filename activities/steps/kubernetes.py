"""The step type `kubernetes`: each action is a verb of its own module; here they are found and given the cluster."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar

from activities.errors import NotConfigured
from activities.steps.base import step_of
from activities.steps.kubernetes_drain import Drain
from activities.steps.kubernetes_node import Cordon
from activities.steps.kubernetes_port import ClusterPort
from activities.steps.kubernetes_restart import Restart
from activities.steps.kubernetes_rollback import Rollback
from activities.steps.kubernetes_scale import Scaling
from activities.steps.kubernetes_verb import Verb
from domain.incident import StepRequest, UndoRequest
from domain.plan import StepPlan, StepResult
from domain.steps import KubernetesStep

__all__ = ["ClusterPort", "KubernetesSteps"]

POLL_INTERVAL = timedelta(seconds=1)

EVICTION_PAUSE = timedelta(seconds=5)
"""Between two tries to evict a pod that a PodDisruptionBudget holds, as kubectl waits (pkg/drain/drain.go)."""


class KubernetesSteps:
    """Safe to run twice: a write says what it expects to find and what it wants to be there afterwards."""

    type: ClassVar[str] = "kubernetes"

    def __init__(
        self,
        cluster: ClusterPort | None,
        *,
        poll_interval: timedelta = POLL_INTERVAL,
        eviction_pause: timedelta = EVICTION_PAUSE,
    ) -> None:
        """Without `cluster` every step is refused; `poll_interval` lies between two looks at a rollout or at a node."""
        self._cluster = cluster
        self._verbs: Mapping[str, Verb] = {
            "scale": Scaling(poll_interval),
            "restart": Restart(poll_interval),
            "rollout-undo": Rollback(poll_interval),
            "cordon": Cordon("cordon"),
            "uncordon": Cordon("uncordon"),
            "drain": Drain(poll_interval, eviction_pause),
        }

    def render(self, request: StepRequest) -> dict[str, Any]:
        step = step_of(request, KubernetesStep)
        return self._verb(step).wish(step, request).model_dump(mode="json")

    async def plan(self, request: StepRequest) -> StepPlan:
        step = step_of(request, KubernetesStep)
        wished = self.render(request)
        return await self._verb(step).plan(self._require_cluster(), request, wished)

    async def execute(self, request: StepRequest) -> StepResult:
        """Do what was planned, within `timeout_seconds` in all.

        Raises: PlanChanged when the world moved since the plan, Conflict when it moved at the last moment (nothing is
        overwritten in either case); StepFailed, with the undo where there is one, when it went wrong after the change.
        """
        return await self._verb(step_of(request, KubernetesStep)).execute(self._require_cluster(), request)

    async def undo(self, request: UndoRequest) -> StepResult:
        """Put back what the step found. A world that is neither that nor what the step left is a Conflict and stays."""
        return await self._verb(step_of(request, KubernetesStep)).undo(self._require_cluster(), request)

    def _verb(self, step: KubernetesStep) -> Verb:
        return self._verbs[step.action]

    def _require_cluster(self) -> ClusterPort:
        if self._cluster is None:
            raise NotConfigured(
                "kubernetes steps need a cluster: set KUBECONFIG to a kubeconfig file, or run in a pod with a service account"
            )
        return self._cluster
