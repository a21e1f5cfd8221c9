"""Kubernetes for runbook steps: reads and guarded writes of Deployments and nodes through lightkube.

It must not decide whether a step may run, and it never retries: Temporal does. Here are scale, rollout status and the
check; `cluster_templates` has restart and rollback, `cluster_nodes` nodes and evictions, all over `cluster_calls`.
"""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

from lightkube.models.authorization_v1 import ResourceAttributes, SelfSubjectAccessReviewSpec
from lightkube.resources.apps_v1 import Deployment, DeploymentScale
from lightkube.resources.authorization_v1 import SelfSubjectAccessReview
from lightkube.types import PatchType

from activities.clients.cluster_calls import CALL_TIMEOUT, deployment_call
from activities.clients.cluster_connection import SERVICE_ACCOUNT, connect, find_cluster
from activities.clients.cluster_failures import ClusterCall, NotApplied
from activities.clients.cluster_nodes import NodeCalls
from activities.clients.cluster_rollout import RolloutStatus, desired_replicas, rollout_of
from activities.clients.cluster_templates import TemplateCalls
from activities.errors import Conflict, InvalidStep, Refused, StepFailed

__all__ = ["KubernetesCluster", "RolloutStatus", "ScaleState", "rollout_of", "scale_patch"]

MAX_REPLICAS = 2**31 - 1
"""`replicas` is an int32 in the API (k8s.io/api autoscaling/v1, ScaleSpec)."""


@dataclass(frozen=True)
class ScaleState:
    """How many replicas a Deployment asks for, as one read or one write saw it."""

    replicas: int
    """Wished count, `spec.replicas`."""
    ready: int | None
    """Pods that pass their readiness probe; None after a write, whose answer does not say."""
    uid: str
    """Identity of the Deployment: another uid under the same name is another Deployment."""


class KubernetesCluster(TemplateCalls, NodeCalls):
    """One cluster, as the credentials of this worker see it."""

    @classmethod
    def from_environment(
        cls,
        kubeconfig: Path | None,
        *,
        service_account: Path = SERVICE_ACCOUNT,
        call_timeout: timedelta = CALL_TIMEOUT,
    ) -> Self:
        """Connect by `kubeconfig` (the setting KUBECONFIG), else by the service account of the pod this runs in.

        Raises: NotConfigured, in one sentence that names KUBECONFIG and quotes no credential.
        """
        config, source = find_cluster(kubeconfig, service_account)
        return cls(connect(config, source, call_timeout), call_timeout=call_timeout)

    async def read_scale(self, namespace: str, deployment: str) -> ScaleState:
        """Read the wished and the ready count.

        Raises: InvalidStep (bad name, or no such Deployment), Refused, NotConfigured, RateLimited, Unreachable.
        """
        found = await self._read_deployment(namespace, deployment)
        ready = found.status.readyReplicas if found.status else None
        return ScaleState(replicas=desired_replicas(found), ready=ready or 0, uid=_uid(found))

    async def set_replicas(
        self, namespace: str, deployment: str, *, expected: int, target: int, dry_run: bool = False
    ) -> ScaleState:
        """Change `spec.replicas` from `expected` to `target` in one atomic request, or change nothing.

        The guard is the replica count and not resourceVersion, which every status update moves. Safe to run twice: a
        Deployment that is already at `target` is success, because an earlier attempt may have lost only its answer.
        `dry_run` lets the server check everything (permission, admission, guard) and store nothing.
        Raises: Conflict when the count is neither; StepFailed without an undo when an admission rule of the cluster stored
        another count (Refused in a dry run); otherwise as `read_scale`, where after Unreachable the change may be made.
        """
        _require_count("the expected replica count", expected)
        _require_count("the wished replica count", target)
        call = deployment_call("patch", "deployments.apps/scale", namespace, deployment)
        patch = self._client.patch(  # pyright: ignore[reportUnknownMemberType]  # lightkube types it as a bare list
            DeploymentScale,
            deployment,
            scale_patch(expected, target),
            namespace=namespace,
            patch_type=PatchType.JSON,
            dry_run=dry_run,
        )
        try:
            scale = await self._call(call, patch)
        except NotApplied as refusal:
            reason = str(refusal)
        else:
            return _written(scale, target, f"{deployment} in {namespace}", dry_run=dry_run)
        return await self._settle_unapplied_scale(namespace, deployment, expected, target, reason)

    async def rollout_status(self, namespace: str, deployment: str) -> RolloutStatus:
        """Read how far the Deployment has come; same errors as `read_scale`."""
        return rollout_of(await self._read_deployment(namespace, deployment))

    async def check(self) -> str:
        """Prove that the cluster answers and knows our credentials; one line for `infrasage doctor`.

        Asks for a review of our own rights, which every authenticated account may do and no stranger may.
        Raises: Refused, NotConfigured, RateLimited, Unreachable; InvalidStep where no Kubernetes API lives.
        """
        server = self._server
        call = ClusterCall(
            verb="create",
            resource="selfsubjectaccessreviews.authorization.k8s.io",
            where=f"at {server}",
            missing=f"{server} answers, but not as a Kubernetes API server",
        )
        scale = ResourceAttributes(verb="patch", group="apps", resource="deployments", subresource="scale")
        question = SelfSubjectAccessReview(spec=SelfSubjectAccessReviewSpec(resourceAttributes=scale))
        review = await self._call(call, self._client.create(question))
        if review.status is not None and review.status.allowed:
            return f"{server} answers; this account may scale deployments in every namespace"
        return f"{server} answers; this account may scale deployments only where a namespace's own Role allows it"

    async def _read_deployment(self, namespace: str, deployment: str) -> Deployment:
        call = deployment_call("get", "deployments.apps", namespace, deployment)
        return await self._call(call, self._client.get(Deployment, deployment, namespace=namespace))

    async def _settle_unapplied_scale(self, namespace: str, deployment: str, expected: int, target: int, reason: str) -> ScaleState:
        """Tell what a 422 meant: the API server gives a failed `test` and an invalid patch the same code and reason."""
        now = await self.read_scale(namespace, deployment)
        if now.replicas == target:
            return now
        if now.replicas != expected:
            raise Conflict(f"{deployment} in {namespace} has {now.replicas} replicas, the plan saw {expected}: nothing was changed")
        raise Refused(reason)


def scale_patch(expected: int, target: int) -> list[dict[str, object]]:
    """Write the JSON patch of `/scale` that changes `expected` to `target` and fails on any other count.

    At 0 the server's own document has an empty `spec`, because `ScaleSpec.replicas` is omitempty, and a `test` for 0
    fails on a missing path: the guard is then the empty `spec`.
    """
    if expected == 0:
        return [
            {"op": "test", "path": "/spec", "value": {}},
            {"op": "add", "path": "/spec/replicas", "value": target},
        ]
    return [
        {"op": "test", "path": "/spec/replicas", "value": expected},
        {"op": "replace", "path": "/spec/replicas", "value": target},
    ]


def _uid(found: Deployment | DeploymentScale) -> str:
    return (found.metadata and found.metadata.uid) or ""


def _written(scale: DeploymentScale, target: int, subject: str, *, dry_run: bool) -> ScaleState:
    # `replicas` is omitempty: the server leaves it out when it is 0.
    replicas = (scale.spec and scale.spec.replicas) or 0
    if replicas == target:
        return ScaleState(replicas=replicas, ready=None, uid=_uid(scale))
    fault = f"{subject} was to have {target} replicas, but an admission rule of the cluster makes it {replicas}"
    raise Refused(fault) if dry_run else StepFailed(fault, undo=None)


def _require_count(what: str, count: int) -> None:
    if type(count) is not int or not 0 <= count <= MAX_REPLICAS:
        raise InvalidStep(f"{what} is {count!r}: allowed is a whole number from 0 to {MAX_REPLICAS}")
