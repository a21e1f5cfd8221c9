"""Nodes and the pods on them: what `kubectl cordon`, `uncordon` and `drain` ask of the API, guarded."""

from lightkube.models.meta_v1 import DeleteOptions, ObjectMeta, OwnerReference, Preconditions
from lightkube.resources.core_v1 import Node, Pod, PodEviction

from activities.clients.cluster_calls import ClusterCalls, node_call
from activities.clients.cluster_failures import ClusterCall, NotApplied
from activities.clients.cluster_objects import NodeState, PodOnNode
from activities.errors import Conflict, InvalidStep, Refused, Unreachable

MIRROR = "kubernetes.io/config.mirror"
"""Annotation of a pod that stands for a static pod of the kubelet; deleting it stops nothing."""

PODS_IN_ONE_ANSWER = 500
"""As kubectl asks for; a node runs 110 pods by default."""


class NodeCalls(ClusterCalls):
    """Reads and guarded writes of nodes, and evictions."""

    async def read_node(self, node: str) -> NodeState:
        """Read whether pods may be scheduled on a node.

        Raises: InvalidStep (bad name, or no such node), Refused, NotConfigured, RateLimited, Unreachable.
        """
        found = await self._call(node_call("get", "nodes", node), self._client.get(Node, node))
        return _state_of(node, found)

    async def set_schedulable(self, at: NodeState, wished: bool, *, dry_run: bool = False) -> None:
        """Change `spec.unschedulable`, if the node is still as `at` saw it.

        Raises: Conflict when somebody else changed it; Unreachable when only something else of the node was written in that
        instant (the kubelet reports its status), so that the next attempt looks again. Nothing was written in both cases.
        Otherwise as `read_node`, where after Unreachable the change may be made.
        """
        patch = {
            # A precondition of the API for every kind of merge patch: another version is answered with 409.
            "metadata": {"resourceVersion": at.version},
            "spec": {"unschedulable": None if wished else True},  # omitempty: false is written by leaving it out
        }
        try:
            await self._call(node_call("patch", "nodes", at.name), self._client.patch(Node, at.name, patch, dry_run=dry_run))
        except NotApplied as refusal:
            raise Refused(str(refusal)) from None
        except Conflict:
            pass
        else:
            return
        if (await self.read_node(at.name)).is_schedulable != at.is_schedulable:
            raise Conflict(f"somebody else {'cordoned' if at.is_schedulable else 'uncordoned'} node {at.name} in the same instant")
        raise Unreachable(f"node {at.name} was being written in the same instant: nothing was changed")

    async def list_pods(self, node: str) -> tuple[PodOnNode, ...]:
        """List every pod of every namespace on a node, in the order of their names; errors as `read_node`."""
        call = node_call("list", "pods", node)

        async def read() -> list[PodOnNode]:
            found = self._client.list(Pod, namespace="*", fields={"spec.nodeName": node}, chunk_size=PODS_IN_ONE_ANSWER)
            return [pod_of(one) async for one in found]

        return tuple(sorted(await self._call(call, read()), key=lambda pod: (pod.namespace, pod.name)))

    async def evict(self, pod: PodOnNode, *, dry_run: bool = False) -> bool:
        """Ask for a pod to stop, within what the PodDisruptionBudgets allow. Safe to run twice.

        Returns: whether it is stopping; False when it is gone already, or another pod has its name.
        Raises: RateLimited when a budget does not allow it now; Refused, NotConfigured, Unreachable.
        """
        missing = f"there is no pod {pod.name} in namespace {pod.namespace}"
        call = ClusterCall("create", "pods/eviction", f"in namespace {pod.namespace}", missing)
        eviction = PodEviction(
            metadata=ObjectMeta(name=pod.name, namespace=pod.namespace),
            # Without it, a StatefulSet's next pod of the same name would be evicted too.
            deleteOptions=DeleteOptions(preconditions=Preconditions(uid=pod.uid)),
        )
        try:
            await self._call(call, self._client.create(eviction, pod.name, namespace=pod.namespace, dry_run=dry_run))
        except (InvalidStep, Conflict):
            return False
        return True


def pod_of(pod: Pod) -> PodOnNode:
    """Take out of a pod what a drain has to know."""
    metadata = pod.metadata or ObjectMeta()
    volumes = (pod.spec and pod.spec.volumes) or []
    return PodOnNode(
        namespace=metadata.namespace or "",
        name=metadata.name or "",
        uid=metadata.uid or "",
        controller=_controller_kind(metadata.ownerReferences or []),
        is_mirror=MIRROR in (metadata.annotations or {}),
        is_finished=pod.status is not None and pod.status.phase in ("Succeeded", "Failed"),
        has_local_storage=any(volume.emptyDir is not None for volume in volumes),
        is_leaving=metadata.deletionTimestamp is not None,
    )


def _controller_kind(owners: list[OwnerReference]) -> str | None:
    return next((owner.kind for owner in owners if owner.controller), None)


def _state_of(name: str, node: Node) -> NodeState:
    metadata = node.metadata or ObjectMeta()
    is_cordoned = node.spec is not None and bool(node.spec.unschedulable)
    return NodeState(name=name, is_schedulable=not is_cordoned, version=metadata.resourceVersion or "")
