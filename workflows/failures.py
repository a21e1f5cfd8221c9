"""What the failure of a step activity means for its run."""

from dataclasses import dataclass
from enum import Enum, auto

from temporalio.exceptions import ActivityError, ApplicationError

from domain.plan import Undo

_CERTAIN = frozenset(
    {"NotConfigured", "InvalidStep", "Refused", "Conflict", "StepFailed", "Unreachable", "RateLimited", "PayloadInvalid"}
)
"""The failures by which a step itself says that it did not happen (`activities.errors`); any other may have happened."""


_WITH_UNDO = _CERTAIN | {"OutcomeUnknown"}
"""The failures of our own tree, whose detail is the undo of what may have been done."""


class Outcome(Enum):
    FAILED = auto()
    MOVED = auto()
    """The world is no longer as planned; nothing was run."""
    UNKNOWN = auto()
    HALTED = auto()
    """A run that the step called was halted: so is the caller."""


@dataclass
class StepFailure(Exception):
    """A step activity did not succeed."""

    outcome: Outcome
    sentence: str
    undo: Undo | None = None
    """What takes back the part that was done."""


def failure_of(error: ActivityError) -> StepFailure:
    """Read a failed activity. Only a failure that the step itself reported is certain; a lost attempt is unknown."""
    cause = error.cause
    if not isinstance(cause, ApplicationError):
        return StepFailure(Outcome.UNKNOWN, f"Its outcome got lost ({type(cause).__name__}).")
    if cause.type == "PlanChanged":
        return StepFailure(Outcome.MOVED, cause.message)
    outcome = Outcome.FAILED if cause.type in _CERTAIN else Outcome.UNKNOWN
    undo = Undo.model_validate(cause.details[0]) if cause.type in _WITH_UNDO and cause.details else None
    return StepFailure(outcome, cause.message, undo)
