"""What the kubernetes steps need of a cluster; `activities.clients.cluster` is one such cluster."""

from typing import Protocol

from activities.clients.cluster_objects import NodeState, PodOnNode, Revision, TemplateState


class Scale(Protocol):
    """The replica count that a Deployment asks for."""

    @property
    def replicas(self) -> int: ...


class Rollout(Protocol):
    """How far a Deployment's pods have come."""

    @property
    def is_complete(self) -> bool: ...

    @property
    def is_observed(self) -> bool:
        """Whether the counts and `has_failed` are about the newest spec yet."""
        ...

    @property
    def has_failed(self) -> bool: ...

    @property
    def progress(self) -> str: ...


class ClusterPort(Protocol):
    """Every method raises InvalidStep, Refused, RateLimited or Unreachable.

    A write says what the step saw (`expected`, `at`). Where that is no longer so, it changes nothing and is a Conflict. With
    `dry_run` the cluster checks everything and stores nothing.
    """

    async def read_scale(self, namespace: str, deployment: str) -> Scale: ...

    async def set_replicas(self, namespace: str, deployment: str, *, expected: int, target: int, dry_run: bool = False) -> Scale:
        """Raises: StepFailed without an undo when the cluster stored a count that is not `target`."""
        ...

    async def rollout_status(self, namespace: str, deployment: str) -> Rollout: ...

    async def read_template(self, namespace: str, deployment: str) -> TemplateState: ...

    async def read_revisions(self, namespace: str, of: TemplateState) -> tuple[Revision, ...]:
        """The templates that are kept, the one in use included, newest first."""
        ...

    async def restart(self, namespace: str, at: TemplateState, stamp: str, *, dry_run: bool = False) -> None: ...

    async def roll_back(self, namespace: str, at: TemplateState, to: Revision, *, dry_run: bool = False) -> None: ...

    async def read_node(self, node: str) -> NodeState: ...

    async def set_schedulable(self, at: NodeState, wished: bool, *, dry_run: bool = False) -> None: ...

    async def list_pods(self, node: str) -> tuple[PodOnNode, ...]: ...

    async def evict(self, pod: PodOnNode, *, dry_run: bool = False) -> bool:
        """Returns: False when it is gone already. Raises: RateLimited while a PodDisruptionBudget does not allow it."""
        ...
