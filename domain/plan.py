"""What a step will do, shown to the approver and held against what runs: plan, result and undo."""

from typing import Any

from pydantic import Field

from domain.base import Durable, sha256_of


class Fact(Durable):
    """One labelled line of an approval card, e.g. `Namespace: production`."""

    label: str
    value: str


class StepPlan(Durable):
    """The resolved step: what the approver sees, the exact request, and what the plan saw of the world.

    Secrets stand as `$NAME` everywhere in it.
    """

    title: str
    """What the step does, in the imperative: `Scale deployment to 5 replicas`."""
    change: str
    """What will be different: `replicas 3 → 5`."""
    facts: tuple[Fact, ...] = ()
    request: dict[str, Any]
    """The resolved request, JSON values only."""
    observed: dict[str, Any] = Field(default_factory=dict)
    """What the plan read of the world and the execution is guarded by; JSON values only."""

    @property
    def digest(self) -> str:
        """SHA-256 of the request and of what was observed: the identity of what is approved."""
        return sha256_of({"request": self.request, "observed": self.observed})


class Undo(Durable):
    """What takes a step back, decided when the step was executed."""

    title: str
    """`Scale deployment back to 3 replicas`."""
    request: dict[str, Any]
    """Understood by the step type that made it."""


class StepResult(Durable):
    """What an executed step reports."""

    summary: str
    """One sentence for the thread: `payment-api scaled from 3 to 5 replicas`."""
    outputs: dict[str, str | int | float | bool] = Field(default_factory=dict[str, str | int | float | bool])
    undo: Undo | None = None
    """None when nothing was changed that could be taken back."""
    repeated: bool = False
    """True when an earlier attempt had already done it and this one found the work done."""
