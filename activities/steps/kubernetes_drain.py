"""The action `drain`: cordon a node and evict its pods within their disruption budgets, as `kubectl drain` does.

It leaves what `--ignore-daemonsets` leaves, and refuses what needs `--force` or `--delete-emptydir-data`. Pods that have finished
are left too: they run nothing, and their logs are of use.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from activities.clients.cluster_objects import PodOnNode
from activities.errors import OrchestratorError, RateLimited, Refused, StepFailed, TransientError, clip
from activities.steps import heartbeat
from activities.steps.base import CHANGE_LIMIT_CHARACTERS, plan_of, read_as, step_of
from activities.steps.kubernetes_node import NodeObservation, NodeRequest, is_own_work, node_request, undo_node, undo_of
from activities.steps.kubernetes_port import ClusterPort
from activities.steps.kubernetes_verb import answer_may_be_lost, cancellable, deadline_of, rehearse, titled
from domain.incident import StepRequest, UndoRequest
from domain.plan import Fact, StepPlan, StepResult, Undo
from domain.steps import KubernetesStep

PODS_NAMED_CHARACTERS = 300


class Drain:
    """Safe to run twice: a repeated run goes on with the pods that are still there."""

    def __init__(self, poll_interval: timedelta, eviction_pause: timedelta) -> None:
        self._poll_interval = poll_interval
        self._eviction_pause = eviction_pause

    def wish(self, step: KubernetesStep, request: StepRequest) -> NodeRequest:
        return node_request(step, request, "drain")

    async def plan(self, cluster: ClusterPort, request: StepRequest, wished: dict[str, Any]) -> StepPlan:
        wish = NodeRequest.model_validate(wished)
        now = await cluster.read_node(wish.node)
        pods = await cluster.list_pods(wish.node)
        require_evictable(wish.node, pods)
        leaving = to_evict(pods)
        if now.is_schedulable:
            await rehearse(cluster.set_schedulable(now, False, dry_run=True))
        if leaving:
            await _rehearse_eviction(cluster, leaving[0])
        cordons = "cordoned, then " if now.is_schedulable else "already cordoned; "
        facts = (
            Fact(label="Node", value=wish.node),
            Fact(label="Pods now", value=_named(leaving) or "none to evict"),
            Fact(label="Evicted are", value="the pods on it when the step runs, which may be others than now"),
        )
        return StepPlan(
            title=titled(step_of(request, KubernetesStep), node=wish.node),
            change=clip(f"{cordons}{_counted(len(leaving))} evicted, {len(pods) - len(leaving)} left", CHANGE_LIMIT_CHARACTERS),
            facts=facts,
            request=wished,
            observed=NodeObservation(is_schedulable=now.is_schedulable).model_dump(mode="json"),
        )

    async def execute(self, cluster: ClusterPort, request: StepRequest) -> StepResult:
        """Cordon, evict, and wait until every pod that was there is gone, within the step's time.

        Raises: PlanChanged and Conflict as a cordon; Refused before anything is changed when a pod may not be evicted;
        StepFailed, with the uncordon where the step cordoned, when pods are left.
        """
        step, plan = step_of(request, KubernetesStep), plan_of(request)
        deadline = deadline_of(step)
        wish = read_as(NodeRequest, plan.request, f"the plan of step {request.number}")
        was_schedulable = read_as(NodeObservation, plan.observed, f"the plan of step {request.number}").is_schedulable
        now = await cluster.read_node(wish.node)
        is_cordoned = is_own_work(now, was_schedulable, False) or not was_schedulable
        undo = undo_of(wish.node, was_schedulable) if was_schedulable else None
        if not is_cordoned:
            require_evictable(wish.node, await cluster.list_pods(wish.node))
        with cancellable(f"node {wish.node} was being drained", undo):
            if not is_cordoned:
                with answer_may_be_lost(undo):
                    await cluster.set_schedulable(now, False)
            evicted = await self._empty(cluster, wish.node, deadline, undo)
        return StepResult(
            summary=f"Node {wish.node} drained: {_counted(evicted)} evicted",
            outputs={"pods_evicted": evicted},
            undo=undo,
            repeated=is_cordoned and was_schedulable and not evicted,
        )

    async def undo(self, cluster: ClusterPort, request: UndoRequest) -> StepResult:
        """Uncordon; the pods come back by themselves, wherever there is room."""
        return await undo_node(cluster, request)

    async def _empty(self, cluster: ClusterPort, node: str, deadline: float, undo: Undo | None) -> int:
        """Evict what is on the node once it is cordoned, and wait for it to be gone. Returns: how many pods.

        Raises: StepFailed with the undo: the node is cordoned from here on.
        """
        round_ = _Round(cluster, node, self._eviction_pause)
        try:
            async with asyncio.timeout_at(deadline):
                while not await round_.look_and_evict():
                    heartbeat.say(round_.progress)
                    await asyncio.sleep(self._poll_interval.total_seconds())
        except TimeoutError:
            raise StepFailed(f"node {node} is cordoned, but not drained in time: {round_.progress}", undo=undo) from None
        except OrchestratorError as error:
            raise StepFailed(f"node {node} is cordoned, but not drained: {error}", undo=undo) from None
        return round_.count


class _Round:
    """The pods of one attempt: those that were on the node when it was first looked at. Later ones are left, as kubectl does."""

    def __init__(self, cluster: ClusterPort, node: str, eviction_pause: timedelta) -> None:
        self._cluster = cluster
        self._node = node
        self._eviction_pause = eviction_pause
        self._wanted: frozenset[str] | None = None
        self._told: set[str] = set()
        self._held: dict[str, tuple[float, str]] = {}
        """By uid: when to try again, on the event loop's clock, and what the cluster said."""
        self.progress = "its pods are not known"

    @property
    def count(self) -> int:
        return len(self._wanted or ())

    async def look_and_evict(self) -> bool:
        """Tell every pod that was not told yet to stop. Returns: whether all are gone. A passing failure is no failure."""
        try:
            pods = await self._cluster.list_pods(self._node)
            if self._wanted is None:
                require_evictable(self._node, pods)
                self._wanted = frozenset(pod.uid for pod in to_evict(pods))
            left = [pod for pod in pods if pod.uid in self._wanted and not pod.stays]
            for pod in left:
                await self._evict(pod)
        except TransientError as error:
            self.progress = clip(str(error), PODS_NAMED_CHARACTERS)
            return False
        said = next((f"; {self._held[pod.uid][1]}" for pod in left if pod.uid in self._held), "")
        self.progress = f"{len(left)} of {_counted(self.count)} still there ({_named(left)}){said}"
        return not left

    async def _evict(self, pod: PodOnNode) -> None:
        now = asyncio.get_running_loop().time()
        if pod.is_leaving or pod.uid in self._told or now < self._held.get(pod.uid, (now, ""))[0]:
            return
        try:
            is_stopping = await self._cluster.evict(pod)
            said = "it was gone, or another pod had its name"
        except RateLimited as error:
            is_stopping, said = False, str(error)
        if is_stopping:
            self._told.add(pod.uid)
            self._held.pop(pod.uid, None)
        else:
            self._held[pod.uid] = (now + self._eviction_pause.total_seconds(), said)


def to_evict(pods: Sequence[PodOnNode]) -> list[PodOnNode]:
    """The pods that have to go, those that are going already included."""
    return [pod for pod in pods if not pod.stays]


def require_evictable(node: str, pods: Sequence[PodOnNode]) -> None:
    """Refuse as kubectl does without --force and --delete-emptydir-data. Raises: Refused that names the pods."""
    obstacles = [f"{pod.namespace}/{pod.name} ({pod.obstacle})" for pod in pods if pod.obstacle]
    if obstacles:
        raise Refused(f"node {node} has pods that may not be evicted: {clip(', '.join(obstacles), PODS_NAMED_CHARACTERS)}")


async def _rehearse_eviction(cluster: ClusterPort, pod: PodOnNode) -> None:
    """Find out whether we may evict at all; that a budget does not allow it now is no reason not to ask."""
    try:
        await rehearse(cluster.evict(pod, dry_run=True))
    except RateLimited:
        return


def _named(pods: Sequence[PodOnNode]) -> str:
    return clip(", ".join(f"{pod.namespace}/{pod.name}" for pod in pods), PODS_NAMED_CHARACTERS)


def _counted(count: int) -> str:
    return "1 pod" if count == 1 else f"{count} pods"
