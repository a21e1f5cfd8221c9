"""Where a Deployment stands between its spec and its pods, judged as `kubectl rollout status` judges. Pure."""

from dataclasses import dataclass

from lightkube.models.apps_v1 import DeploymentStatus
from lightkube.resources.apps_v1 import Deployment


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


def rollout_of(deployment: Deployment) -> RolloutStatus:
    """Take the counts out of a Deployment; what the server leaves out is 0."""
    status = deployment.status or DeploymentStatus()
    generation = (deployment.metadata and deployment.metadata.generation) or 0
    return RolloutStatus(
        name=(deployment.metadata and deployment.metadata.name) or "",
        desired=desired_replicas(deployment),
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


def desired_replicas(deployment: Deployment) -> int:
    # A pointer in the API, so a 0 is written out; the server fills in 1 where a manifest says nothing.
    return 1 if deployment.spec.replicas is None else deployment.spec.replicas
