"""What a read of the cluster saw, in the words of the steps: no vendor library, so that steps and client share them."""

from dataclasses import dataclass, field
from typing import Any

JsonObject = dict[str, Any]


@dataclass(frozen=True)
class TemplateState:
    """The pod template that a Deployment asks for, as one read saw it."""

    name: str
    uid: str
    revision: int
    """As the controller counts; 0 while it has not counted yet."""
    digest: str
    """SHA-256 of the template: the same for the same template, whichever revision it has."""
    image: str
    """Of its containers, joined by commas."""
    restarted_at: str | None
    replicas: int
    recreates: bool
    """All pods are stopped before the new ones start; otherwise they are replaced one after the other."""
    is_paused: bool
    is_observed: bool
    """The controller has seen the newest spec; until then `revision` is that of the one before."""
    version: str
    """`metadata.resourceVersion`: moves with every write, those of the status included."""
    generation: int
    """Moves with every change of the spec or of an annotation."""
    selector: dict[str, str] = field(repr=False)
    annotations: dict[str, str] = field(repr=False)


@dataclass(frozen=True)
class Revision:
    """A template that a Deployment had, kept in a ReplicaSet."""

    number: int
    digest: str
    """As `TemplateState.digest`."""
    image: str
    template: JsonObject = field(repr=False)
    annotations: dict[str, str] = field(repr=False)


@dataclass(frozen=True)
class NodeState:
    """A node, as one read saw it."""

    name: str
    is_schedulable: bool
    version: str
    """`metadata.resourceVersion`: moves with every write, those of the status included."""


@dataclass(frozen=True)
class PodOnNode:
    """A pod, as far as a drain has to know it; the rules are those of kubectl (pkg/drain/filters.go)."""

    namespace: str
    name: str
    uid: str
    controller: str | None
    """Kind of the object that starts it again elsewhere; None when nothing does."""
    is_mirror: bool
    is_finished: bool
    has_local_storage: bool
    """It keeps data in an `emptyDir`, which is lost with it."""
    is_leaving: bool
    """It was told to stop and has not stopped yet."""

    @property
    def stays(self) -> bool:
        """Whether a drain leaves it alone: its DaemonSet or the kubelet would start it again here, or it runs no more."""
        return self.controller == "DaemonSet" or self.is_mirror or self.is_finished

    @property
    def obstacle(self) -> str | None:
        """Why kubectl would not evict it without --force or --delete-emptydir-data; None when it would."""
        if self.stays or self.is_leaving:
            return None
        if self.controller is None:
            return "nothing would start it again"
        return "its emptyDir would be lost" if self.has_local_storage else None
