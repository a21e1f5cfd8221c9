"""Kubernetes for runbook steps: reads and guarded writes of Deployments through lightkube.

It must not decide whether a step may run, and it never retries: Temporal does. `cluster_connection` finds the
credentials, `cluster_failures` says what went wrong; every verb goes through `_call`, so that none can forget the timeout
or let a credential into an error.
"""

import asyncio
import re
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self, TypeVar

from lightkube import AsyncClient
from lightkube.models.apps_v1 import DeploymentStatus
from lightkube.models.authorization_v1 import ResourceAttributes, SelfSubjectAccessReviewSpec
from lightkube.resources.apps_v1 import Deployment, DeploymentScale
from lightkube.resources.authorization_v1 import SelfSubjectAccessReview
from lightkube.types import PatchType

from activities.clients.cluster_connection import SERVICE_ACCOUNT, address, connect, find_cluster
from activities.clients.cluster_failures import CALL_FAILURES, ClusterCall, NotApplied, translate
from activities.errors import Conflict, InvalidStep, Refused, StepFailed, clip

CALL_TIMEOUT = timedelta(seconds=15)
"""Bound of one whole call, credential plugin included; httpx2's own timeouts only bound each read."""

MAX_REPLICAS = 2**31 - 1
"""`replicas` is an int32 in the API (k8s.io/api autoscaling/v1, ScaleSpec)."""

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME_RULE = "allowed are lower-case letters, digits and '-', with a letter or digit at both ends, at most 63 characters"

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class ScaleState:
    """How many replicas a Deployment asks for, as one read or one write saw it."""

    replicas: int
    """Wished count, `spec.replicas`."""
    ready: int | None
    """Pods that pass their readiness probe; None after a write, whose answer does not say."""
    uid: str
    """Identity of the Deployment: another uid under the same name is another Deployment."""


@dataclass(frozen=True)
class RolloutStatus:
    """Where a Deployment stands between its spec and its pods, judged as `kubectl rollout status` judges.

    Source of the rules and of their order: kubectl, pkg/polymorphichelpers/rollout_status.go.
    """

    name: str
    desired: int
    updated: int
    ready: int
    available: int
    total: int
    """Pods of every revision, `status.replicas`."""
    is_observed: bool
    """The controller has seen the newest spec; until then the counts describe the one before."""
    has_failed: bool
    """The controller gave up: the progress deadline of the Deployment passed. Only then; `is_complete` is False too."""

    @property
    def is_complete(self) -> bool:
        """Every pod is of the newest revision and available."""
        return (
            self.is_observed
            and not self.has_failed
            and self.updated >= self.desired
            and self.total <= self.updated
            and self.available >= self.updated
        )

    @property
    def progress(self) -> str:
        """Say in one sentence for a person how far it is."""
        if not self.is_observed:
            return f"{self.name}: waiting for the cluster to notice the change"
        if self.has_failed:
            return f"{self.name}: progress deadline exceeded with {self.available} of {self.desired} replicas available"
        if self.updated < self.desired:
            return f"{self.name}: {self.updated} of {self.desired} new replicas have been updated"
        if self.total > self.updated:
            return f"{self.name}: {self.total - self.updated} old replicas are pending termination"
        if self.available < self.updated:
            return f"{self.name}: {self.available} of {self.updated} updated replicas are available"
        return f"{self.name}: rolled out, {self.available} of {self.desired} replicas are available"


class KubernetesCluster:
    """One cluster, as the credentials of this worker see it."""

    def __init__(self, client: AsyncClient, *, call_timeout: timedelta = CALL_TIMEOUT) -> None:
        """Take over `client`: `aclose` closes it."""
        self._client = client
        self._call_timeout = call_timeout

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
        return ScaleState(replicas=_desired(found), ready=ready or 0, uid=_uid(found))

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
        call = _deployment_call("patch", "deployments.apps/scale", namespace, deployment)
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

    async def aclose(self) -> None:
        """Close every connection; the object is of no use afterwards."""
        await self._client.aclose()

    @property
    def _server(self) -> str:
        return address(self._client.config)

    async def _read_deployment(self, namespace: str, deployment: str) -> Deployment:
        call = _deployment_call("get", "deployments.apps", namespace, deployment)
        return await self._call(call, self._client.get(Deployment, deployment, namespace=namespace))

    async def _settle_unapplied_scale(self, namespace: str, deployment: str, expected: int, target: int, reason: str) -> ScaleState:
        """Tell what a 422 meant: the API server gives a failed `test` and an invalid patch the same code and reason."""
        now = await self.read_scale(namespace, deployment)
        if now.replicas == target:
            return now
        if now.replicas != expected:
            raise Conflict(f"{deployment} in {namespace} has {now.replicas} replicas, the plan saw {expected}: nothing was changed")
        raise Refused(reason)

    async def _call(self, call: ClusterCall, request: Awaitable[_Answer]) -> _Answer:
        """Await one request within the timeout; a failure leaves as one of our errors, without cause or context."""
        try:
            async with asyncio.timeout(self._call_timeout.total_seconds()):
                return await request
        except CALL_FAILURES as error:
            failure = translate(error, call, self._server, self._call_timeout)
        raise failure


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


def rollout_of(deployment: Deployment) -> RolloutStatus:
    """Take the counts out of a Deployment; what the server leaves out is 0."""
    status = deployment.status or DeploymentStatus()
    generation = (deployment.metadata and deployment.metadata.generation) or 0
    return RolloutStatus(
        name=(deployment.metadata and deployment.metadata.name) or "",
        desired=_desired(deployment),
        updated=status.updatedReplicas or 0,
        ready=status.readyReplicas or 0,
        available=status.availableReplicas or 0,
        total=status.replicas or 0,
        is_observed=generation <= (status.observedGeneration or 0),
        has_failed=any(
            condition.type == "Progressing" and condition.reason == "ProgressDeadlineExceeded"
            for condition in status.conditions or []
        ),
    )


def _desired(deployment: Deployment) -> int:
    # A pointer in the API, so a 0 is written out; the server fills in 1 where a manifest says nothing.
    return 1 if deployment.spec.replicas is None else deployment.spec.replicas


def _uid(found: Deployment | DeploymentScale) -> str:
    return (found.metadata and found.metadata.uid) or ""


def _written(scale: DeploymentScale, target: int, subject: str, *, dry_run: bool) -> ScaleState:
    # `replicas` is omitempty: the server leaves it out when it is 0.
    replicas = (scale.spec and scale.spec.replicas) or 0
    if replicas == target:
        return ScaleState(replicas=replicas, ready=None, uid=_uid(scale))
    fault = f"{subject} was to have {target} replicas, but an admission rule of the cluster makes it {replicas}"
    raise Refused(fault) if dry_run else StepFailed(fault, undo=None)


def _deployment_call(verb: str, resource: str, namespace: str, deployment: str) -> ClusterCall:
    """Check both names before they become a path: an empty one would address every object of the kind.

    A namespace is one DNS-1123 label, a Deployment one or more joined by dots (kubernetes.io, "Object Names and IDs").
    Raises: InvalidStep.
    """
    if not _DNS_LABEL.fullmatch(namespace):
        raise InvalidStep(f"namespace {clip(namespace, 80)!r} is not a Kubernetes name: {_NAME_RULE}")
    if len(deployment) > 253 or not all(_DNS_LABEL.fullmatch(label) for label in deployment.split(".")):
        raise InvalidStep(f"deployment {clip(deployment, 80)!r} is not a Kubernetes name: {_NAME_RULE}")
    missing = f"there is no deployment {deployment} in namespace {namespace}"
    return ClusterCall(verb, resource, f"in namespace {namespace}", missing)


def _require_count(what: str, count: int) -> None:
    if type(count) is not int or not 0 <= count <= MAX_REPLICAS:
        raise InvalidStep(f"{what} is {count!r}: allowed is a whole number from 0 to {MAX_REPLICAS}")
