"""The nodes of the simulated cluster and the pods on them: cordons, evictions, and budgets that hold pods back.

These pods stand for themselves: they belong to no simulated Deployment, and nothing starts them again elsewhere.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass

from cli.simulated_answers import Denied
from cli.simulated_deployment import JsonObject, now_as_text

API_OF_CONTROLLERS = {"ReplicaSet": "apps/v1", "DaemonSet": "apps/v1", "StatefulSet": "apps/v1", "Job": "batch/v1"}


@dataclass(frozen=True)
class NodeWrite:
    """One cordon or uncordon that was stored."""

    node: str
    unschedulable: bool
    field_manager: str


class Nodes:
    """What is stored of nodes and pods."""

    def __init__(self, stop_seconds: float, clock: Callable[[], float], next_version: Callable[[], str]) -> None:
        """stop_seconds: how long an evicted pod takes to be gone."""
        self.writes: list[NodeWrite] = []
        self.evictions: list[tuple[str, str]] = []
        """Namespace and name of each pod that was told to stop, in order."""
        self._stop_seconds = stop_seconds
        self._clock = clock
        self._next_version = next_version
        self._nodes: dict[str, JsonObject] = {}
        self._pods: dict[tuple[str, str], JsonObject] = {}
        self._stopping: dict[tuple[str, str], float] = {}
        self._held: set[tuple[str, str]] = set()

    def add(self, name: str) -> None:
        """Add a node on which pods may be scheduled."""
        self._nodes[name] = {
            "kind": "Node",
            "apiVersion": "v1",
            "metadata": {
                "name": name,
                "uid": str(uuid.uuid4()),
                "resourceVersion": self._next_version(),
                "creationTimestamp": now_as_text(),
                "labels": {"kubernetes.io/hostname": name},
            },
            "spec": {},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }

    def add_pod(
        self,
        namespace: str,
        name: str,
        node: str,
        *,
        controller: str | None = "ReplicaSet",
        phase: str = "Running",
        is_mirror: bool = False,
        empty_dir: bool = False,
    ) -> None:
        """Put a pod on a node, in the place of one of the same name. `controller` is the kind of its owner."""
        metadata: JsonObject = {
            "name": name,
            "namespace": namespace,
            "uid": str(uuid.uuid4()),
            "resourceVersion": self._next_version(),
            "creationTimestamp": now_as_text(),
        }
        if controller is not None:
            owner = {"apiVersion": API_OF_CONTROLLERS[controller], "kind": controller, "name": "owner", "uid": "owner-uid"}
            metadata["ownerReferences"] = [{**owner, "controller": True}]
        if is_mirror:
            metadata["annotations"] = {"kubernetes.io/config.mirror": "a-digest"}
        spec: JsonObject = {"nodeName": node, "containers": [{"name": "main", "image": "example:1.0"}]}
        if empty_dir:
            spec["volumes"] = [{"name": "scratch", "emptyDir": {}}]
        self._stopping.pop((namespace, name), None)
        self._pods[namespace, name] = {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": metadata,
            "spec": spec,
            "status": {"phase": phase},
        }

    def hold(self, namespace: str, name: str) -> None:
        """Let a PodDisruptionBudget allow no eviction of a pod until `release`."""
        self._held.add((namespace, name))

    def release(self, namespace: str, name: str) -> None:
        """Let the budget allow it again."""
        self._held.discard((namespace, name))

    def node(self, name: str) -> JsonObject:
        """Return the stored node itself. Raises: Denied."""
        if name not in self._nodes:
            raise Denied(404, "NotFound", f'nodes "{name}" not found', details={"kind": "nodes", "name": name})
        return self._nodes[name]

    def store(self, changed: JsonObject, field_manager: str) -> JsonObject:
        """Take over whether pods may be scheduled; a change that changes nothing is none. Returns: the stored node itself."""
        node = self.node(changed["metadata"]["name"])
        unschedulable = bool(changed["spec"].get("unschedulable"))
        if unschedulable != bool(node["spec"].get("unschedulable")):
            node["spec"] = {"unschedulable": True} if unschedulable else {}  # omitempty
            node["metadata"]["resourceVersion"] = self._next_version()
            self.writes.append(NodeWrite(node["metadata"]["name"], unschedulable, field_manager))
        return node

    def set_unschedulable(self, name: str, unschedulable: bool) -> None:
        """Cordon or uncordon as somebody else would."""
        self.store({**self.node(name), "spec": {"unschedulable": unschedulable}}, "kubectl")

    def touch(self, name: str) -> None:
        """Report the status of a node, as its kubelet does all the time."""
        self.node(name)["metadata"]["resourceVersion"] = self._next_version()

    def pods(self, node: str | None) -> list[JsonObject]:
        """List the pods of a node, or all, without those that have stopped by now."""
        now = self._clock()
        for key in [key for key, told_at in self._stopping.items() if now - told_at >= self._stop_seconds]:
            del self._stopping[key], self._pods[key]
        return [pod for pod in self._pods.values() if node in (None, pod["spec"]["nodeName"])]

    def evict(self, namespace: str, name: str, eviction: JsonObject, *, dry_run: bool) -> JsonObject:
        """Tell a pod to stop. Returns: the Status of success. Raises: Denied as the API server would."""
        self.pods(None)
        pod = self._pods.get((namespace, name))
        if pod is None:
            raise Denied(404, "NotFound", f'pods "{name}" not found', details={"kind": "pods", "name": name})
        wanted = eviction.get("deleteOptions", {}).get("preconditions", {}).get("uid", pod["metadata"]["uid"])
        if wanted != pod["metadata"]["uid"]:
            message = f"the UID in the precondition ({wanted}) does not match the UID in record ({pod['metadata']['uid']})"
            raise Denied(409, "Conflict", message, details={"kind": "pods", "name": name})
        if (namespace, name) in self._held:
            cause = {"reason": "DisruptionBudget", "message": "The disruption budget needs 1 healthy pods and has 1 currently"}
            message = "Cannot evict pod as it would violate the pod's disruption budget."
            raise Denied(429, "TooManyRequests", message, details={"causes": [cause]})
        if not dry_run and (namespace, name) not in self._stopping:
            self.evictions.append((namespace, name))
            self._stopping[namespace, name] = self._clock()
            pod["metadata"].update(deletionTimestamp=now_as_text(), deletionGracePeriodSeconds=30)
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
