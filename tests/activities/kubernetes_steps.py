"""A simulated cluster and the step activities that act on it, for the tests of kubernetes steps."""

import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from temporalio.exceptions import ApplicationError

from activities.secrets import Secrets
from activities.steps import StepActivities, register
from activities.steps.kubernetes import ClusterPort, KubernetesSteps
from domain.incident import StepRequest
from domain.plan import StepPlan, StepResult, Undo
from domain.runbook import Step
from tests.activities.steps import QUICK, a_request, an_undo_request, attempt, failure_of, with_plan
from tests.peers.cluster import TroubledCluster, connected

WHERE = ("production", "payment-api")


def activities_on(cluster: ClusterPort | None) -> StepActivities:
    types = register([KubernetesSteps(cluster, poll_interval=QUICK, eviction_pause=2 * QUICK)])
    return StepActivities(types, Secrets({}), heartbeat_interval=QUICK)


@dataclass
class World:
    api: TroubledCluster
    activities: StepActivities
    step: Step
    """What is planned and executed where a test names nothing else."""

    async def plan(self, request: StepRequest | None = None) -> StepPlan:
        return await attempt(self.activities.plan, request or a_request(self.step))

    async def planned(self, request: StepRequest | None = None) -> StepRequest:
        """The request with its plan, approved."""
        wish = request or a_request(self.step)
        return with_plan(wish, await self.plan(wish), approved=True)

    async def execute(self, request: StepRequest, *, number: int = 1) -> StepResult:
        return await attempt(self.activities.execute, request, number=number)

    async def fails(self, request: StepRequest, *, number: int = 1) -> ApplicationError:
        return await failure_of(self.execute(request, number=number))

    async def undo(self, undo: Undo | None) -> StepResult:
        assert undo is not None
        return await attempt(self.activities.undo, an_undo_request(self.step, undo))

    @property
    def replicas(self) -> int:
        return self.api.replicas(*WHERE)

    @property
    def our_writes(self) -> list[tuple[int, int]]:
        return [(write.before, write.after) for write in self.api.writes if write.field_manager == "infrasage"]

    @property
    def our_templates(self) -> list[str]:
        """The image after each template write of ours."""
        return [write.image for write in self.api.workloads.template_writes if write.field_manager == "infrasage"]

    @property
    def image(self) -> str:
        return self.api.deployment(*WHERE)["spec"]["template"]["spec"]["containers"][0]["image"]

    @property
    def revision(self) -> str:
        return self.api.deployment(*WHERE)["metadata"]["annotations"]["deployment.kubernetes.io/revision"]


@contextlib.asynccontextmanager
async def a_world(
    folder: Path,
    step: Step,
    *,
    rollout: timedelta = timedelta(0),
    clock: Callable[[], float] = time.monotonic,
) -> AsyncGenerator[World]:
    """A cluster with the Deployment payment-api of 3 replicas and image payment-api:2.3.0, and the node node-1."""
    async with TroubledCluster(rollout=rollout, clock=clock) as api:
        api.add_deployment(*WHERE, 3, "payment-api:2.3.0")
        api.nodes.add("node-1")
        async with connected(api.write_kubeconfig(folder / "kubeconfig")) as cluster:
            yield World(api, activities_on(cluster), step)
