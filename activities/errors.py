"""One error tree for everything that can go wrong with the world, and its one conversion at the activity boundary.

    OrchestratorError
    ├── PermanentError            trying again cannot help
    │   ├── NotConfigured         a setting is missing; the sentence names it
    │   ├── InvalidStep           the step cannot be rendered or is not allowed
    │   ├── Refused               the far side understood and said no
    │   ├── Conflict              the world moved since the plan: nothing was written
    │   ├── PlanChanged           what would run differs from what was approved
    │   └── StepFailed            something was changed and then went wrong; `undo` takes it back
    ├── TransientError            trying again may help
    │   ├── Unreachable           no answer, or none in time; nothing was changed
    │   └── RateLimited           the far side asked to wait (`retry_after`)
    └── OutcomeUnknown            it may or may not have happened: a human decides

The class names are the `type` strings of `ApplicationError`: workflows and outsiders match on them. An error that may have
changed something carries the undo as its only detail (`undo_of`).
"""

from datetime import timedelta

from temporalio.exceptions import ApplicationError

from domain.plan import Undo

MESSAGE_LIMIT_CHARACTERS = 1_000
"""Longest text from the world that may enter a history; Temporal refuses payloads above 2 MiB."""


class OrchestratorError(Exception):
    """Base of the tree; `str(error)` is one sentence that may be shown to a user."""

    retryable = False
    undo: Undo | None = None
    """What takes back the change that may have been made before the failure; None when nothing was changed."""


class PermanentError(OrchestratorError):
    """Trying again cannot help."""


class NotConfigured(PermanentError):
    """A setting is missing; the sentence names it."""


class InvalidStep(PermanentError):
    """The step cannot be rendered, or what it asks for is not allowed."""


class Refused(PermanentError):
    """The far side understood and said no."""


class Conflict(PermanentError):
    """The world moved since the plan was made; nothing was written."""


class PlanChanged(PermanentError):
    """What would run differs from what was approved; nothing was run."""


class StepFailed(PermanentError):
    """Something was changed and then went wrong; `undo` takes it back."""

    def __init__(self, message: str, *, undo: Undo | None) -> None:
        super().__init__(message)
        self.undo = undo


class TransientError(OrchestratorError):
    """Trying again may help; `retry_after` is the far side's own wish, if it named one."""

    retryable = True

    def __init__(self, message: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unreachable(TransientError):
    """No answer, or none in time, and certainly nothing was changed."""


class RateLimited(TransientError):
    """The far side asked to wait."""


class OutcomeUnknown(OrchestratorError):
    """The effect may or may not have happened; it is never repeated without a human."""


def clip(text: str, limit: int = MESSAGE_LIMIT_CHARACTERS) -> str:
    """Shorten foreign text to `limit` characters, the last one an ellipsis where something was cut."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def to_application_error(error: OrchestratorError) -> ApplicationError:
    """Convert once, at the activity boundary: type = class name, retry and delay as the tree says, the undo as a detail.

    The result carries no cause: a cause's traceback and arguments would enter the history, and a client's may hold a secret.
    """
    delay = error.retry_after if isinstance(error, TransientError) else None
    details = [error.undo.model_dump(mode="json")] if error.undo else []
    return ApplicationError(
        clip(str(error)),
        *details,
        type=type(error).__name__,
        non_retryable=not error.retryable,
        next_retry_delay=delay,
    )


def undo_of(error: ApplicationError) -> Undo | None:
    """The undo that a failed step left behind (JSON form in the details); None when it changed nothing."""
    return Undo.model_validate(error.details[0]) if error.details else None
