"""The Deployments of the simulated cluster, their ReplicaSets, and the controller that rolls a change out.

Its pods are arithmetic: after a change of the spec the status follows within the time of a rollout, computed when it is
read. What is stored here is what was accepted; whether to accept it is the business of `cli.simulated_cluster`.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

from cli.simulated_deployment import REVISION, JsonObject, new_deployment, new_replica_set, status_of, template_in

OBSERVED_AFTER = 0.1
"""Share of the rollout after which the simulated controller notices a change."""


@dataclass(frozen=True)
class ReplicaWrite:
    """One change of a replica count that was stored; refused requests and dry runs are none."""

    namespace: str
    deployment: str
    before: int
    after: int
    field_manager: str


@dataclass(frozen=True)
class TemplateWrite:
    """One change of a pod template that was stored."""

    namespace: str
    deployment: str
    image: str
    """Of the first container, afterwards."""
    field_manager: str


@dataclass
class _Rollout:
    """A change of the spec whose pods are still on their way."""

    started_at: float  # seconds of the cluster's clock
    ready_before: int
    replaces_pods: bool


class Workloads:
    """What is stored of Deployments and ReplicaSets."""

    def __init__(self, rollout_seconds: float, clock: Callable[[], float], next_version: Callable[[], str]) -> None:
        self.writes: list[ReplicaWrite] = []
        self.template_writes: list[TemplateWrite] = []
        self._rollout_seconds = rollout_seconds
        self._clock = clock
        self._next_version = next_version
        self._deployments: dict[tuple[str, str], JsonObject] = {}
        self._replica_sets: dict[tuple[str, str], list[JsonObject]] = {}
        self._rollouts: dict[tuple[str, str], _Rollout] = {}

    def add(self, namespace: str, name: str, replicas: int, image: str) -> None:
        """Add a Deployment of revision 1 whose pods are all ready."""
        deployment = new_deployment(namespace, name, replicas, image, self._next_version())
        self._deployments[namespace, name] = deployment
        self._replica_sets[namespace, name] = [new_replica_set(deployment, 1, self._next_version())]

    def __contains__(self, key: object) -> bool:
        return key in self._deployments

    def deployments(self, namespace: str | None) -> list[JsonObject]:
        """List those of a namespace, or all."""
        return [self.settled(*key) for key in self._deployments if namespace in (None, key[0])]

    def replica_sets(self, namespace: str | None, labels: dict[str, str]) -> list[JsonObject]:
        """List those that carry all of `labels`."""
        self.deployments(namespace)
        found = [one for key, kept in self._replica_sets.items() if namespace in (None, key[0]) for one in kept]
        return [one for one in found if labels.items() <= one["metadata"]["labels"].items()]

    def forget_revision(self, namespace: str, name: str, revision: int) -> None:
        """Delete the ReplicaSet of a revision, as the controller does beyond `revisionHistoryLimit`."""
        self.settled(namespace, name)
        kept = self._replica_sets[namespace, name]
        kept[:] = [one for one in kept if one["metadata"]["annotations"][REVISION] != str(revision)]

    def store(self, changed: JsonObject, field_manager: str) -> JsonObject:
        """Take the spec, labels and annotations of `changed` over; a change that changes nothing is none, as in the API.

        Returns: the stored Deployment itself.
        """
        namespace, name = changed["metadata"]["namespace"], changed["metadata"]["name"]
        deployment = self.settled(namespace, name)
        metadata, spec, wished = deployment["metadata"], deployment["spec"], changed["spec"]
        annotations = changed["metadata"].get("annotations", {})
        if (spec, metadata["annotations"]) == (wished, annotations):
            return deployment
        if spec["replicas"] != wished["replicas"]:
            self.writes.append(ReplicaWrite(namespace, name, spec["replicas"], wished["replicas"], field_manager))
        replaces_pods = spec["template"] != wished["template"]
        if replaces_pods:
            image = wished["template"]["spec"]["containers"][0]["image"]
            self.template_writes.append(TemplateWrite(namespace, name, image, field_manager))
        if spec != wished:
            ready = deployment["status"].get("readyReplicas", 0)
            self._rollouts[namespace, name] = _Rollout(self._clock(), ready, replaces_pods)
        deployment["spec"] = copy.deepcopy(wished)
        metadata["annotations"] = dict(annotations)
        metadata["generation"] += 1
        metadata["resourceVersion"] = self._next_version()
        return deployment

    def touch(self, namespace: str, name: str) -> None:
        """Write the status once more, as the controller does all the time: the version moves and the generation does not."""
        self.settled(namespace, name)["metadata"]["resourceVersion"] = self._next_version()

    def settled(self, namespace: str, name: str) -> JsonObject:
        """Bring the status up to now and return the stored Deployment itself. Raises: KeyError."""
        deployment = self._deployments[namespace, name]
        rollout = self._rollouts.get((namespace, name))
        if rollout is None:
            return deployment
        passed = self._clock() - rollout.started_at
        share = 1.0 if passed >= self._rollout_seconds else passed / self._rollout_seconds
        if share >= OBSERVED_AFTER:
            if not deployment["spec"].get("paused"):
                self._count_revision(deployment)
            self._report(deployment, rollout, share)
        if share >= 1:
            del self._rollouts[namespace, name]
        return deployment

    def _report(self, deployment: JsonObject, rollout: _Rollout, share: float) -> None:
        wished, generation = deployment["spec"]["replicas"], deployment["metadata"]["generation"]
        if rollout.replaces_pods and share < 1:
            updated = min(wished, int((wished + 1) * share))
            deployment["status"] = status_of(generation=generation, wished=wished, ready=wished, updated=updated)
            return
        started = rollout.ready_before + int((wished - rollout.ready_before) * share)
        ready = wished if share >= 1 else min(wished, started)
        deployment["status"] = status_of(generation=generation, wished=wished, ready=ready)

    def _count_revision(self, deployment: JsonObject) -> None:
        """Give the template of the spec the highest revision, in the ReplicaSet that kept it before or in a new one."""
        metadata = deployment["metadata"]
        kept = self._replica_sets[metadata["namespace"], metadata["name"]]
        mine = next((one for one in kept if template_in(one) == deployment["spec"]["template"]), None)
        others = [int(one["metadata"]["annotations"][REVISION]) for one in kept if one is not mine]
        revision = max([*others, 0]) + 1
        if mine is None:
            mine = new_replica_set(deployment, revision, self._next_version())
            kept.append(mine)
        elif int(mine["metadata"]["annotations"][REVISION]) < revision:
            mine["metadata"]["annotations"][REVISION] = str(revision)
            mine["metadata"]["resourceVersion"] = self._next_version()
        for one in kept:
            replicas = deployment["spec"]["replicas"] if one is mine else 0
            one["spec"]["replicas"] = one["status"]["replicas"] = replicas
        if metadata["annotations"].get(REVISION) != mine["metadata"]["annotations"][REVISION]:
            metadata["annotations"][REVISION] = mine["metadata"]["annotations"][REVISION]
            metadata["generation"] += 1  # annotations of a Deployment count (k8s.io/kubernetes, registry/apps/deployment)
            metadata["resourceVersion"] = self._next_version()
