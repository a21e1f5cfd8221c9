"""The step types that act on the world: one class each, with the keys it takes and what they may hold."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue, StringConstraints, ValidationInfo, field_validator

from domain.base import Name, in_words, storable
from domain.step_base import (
    Command,
    HeaderName,
    HeaderValue,
    ObjectName,
    Seconds,
    StepBase,
    WebAddress,
    count_or_placeholder,
    fillable,
    fillable_body,
    strings_in,
)

SlackText = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=3_000),
    AfterValidator(storable),
    AfterValidator(fillable),
]
"""1 to 3,000 characters: Slack's limit for the text of a section (https://docs.slack.dev/reference/block-kit/blocks/section-block)."""

SlackChannel = Annotated[
    str,
    in_words(r"[#@]?[A-Za-z0-9._-]{1,80}", "must be a channel: # and up to 80 letters, digits and the characters . _ -, or its id"),
]


class SlackStep(StepBase):
    """Post a message; without `channel`, in the incident's thread."""

    type: Literal["slack"]
    message: SlackText
    channel: SlackChannel | None = None
    timeout_seconds: Seconds = 15.0

    @property
    def title(self) -> str:
        return f"Post a message to {self.channel}" if self.channel else "Post a message in the thread"

    def texts(self) -> Iterator[str]:
        yield self.message


REPLICAS_LIMIT = 10_000

Replicas = Annotated[int | str, count_or_placeholder(REPLICAS_LIMIT)]
"""A number, or one `{{ name }}` that gives one."""


_KEYS_OF_ACTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "scale": (("namespace", "deployment", "replicas"), ("wait",)),
    "restart": (("namespace", "deployment"), ("wait",)),
    "rollout-undo": (("namespace", "deployment"), ("to_revision", "wait")),
    "cordon": (("node",), ()),
    "uncordon": (("node",), ()),
    "drain": (("node",), ()),
}
"""The keys that an action needs, and those that it also takes."""


class KubernetesStep(StepBase):
    """Act on a Deployment, or on a node (`cordon`, `uncordon`, `drain`)."""

    type: Literal["kubernetes"]
    action: Literal["scale", "restart", "rollout-undo", "cordon", "uncordon", "drain"]
    namespace: ObjectName | None = Field(default=None, validate_default=True)
    deployment: ObjectName | None = Field(default=None, validate_default=True)
    node: ObjectName | None = Field(default=None, validate_default=True)
    replicas: Replicas | None = Field(default=None, validate_default=True)
    to_revision: Annotated[int, Field(ge=1)] | None = None
    """Of `rollout-undo`: the revision to go back to. Absent: the one before."""
    wait: bool | None = None
    """Whether the step ends when the rollout is complete, and not when it is started. Absent: it does."""
    timeout_seconds: Seconds = 300.0

    @field_validator("namespace", "deployment", "node", "replicas", "to_revision", "wait")
    @classmethod
    def _keys_of_the_action(cls, value: str | int | None, about: ValidationInfo) -> str | int | None:
        """One key at a time, so that each fault has its own place in the file."""
        action, key = about.data.get("action"), about.field_name
        if action is None:  # at fault itself
            return value
        needed, optional = _KEYS_OF_ACTIONS[action]
        if value is None and key in needed:
            raise ValueError(f"is required by the action {action}")
        if value is not None and key not in (*needed, *optional):
            raise ValueError(f"is not taken by the action {action}, which takes {', '.join((*needed, *optional))}")
        return value

    @property
    def title(self) -> str:
        match self.action:
            case "scale":
                return f"Scale deployment to {self.replicas} replicas"
            case "restart":
                return f"Restart deployment {self.deployment}"
            case "rollout-undo":
                return f"Roll back deployment {self.deployment}"
            case "cordon" | "uncordon" | "drain":
                return f"{self.action.capitalize()} node {self.node}"

    @property
    def waits(self) -> bool:
        """Whether the step ends when the rollout is complete."""
        return self.wait is not False

    @property
    def reads_world(self) -> bool:
        return True

    def texts(self) -> Iterator[str]:
        yield from (text for text in (self.namespace, self.deployment, self.node, self.replicas) if isinstance(text, str))


class HttpStep(StepBase):
    """Send one HTTP request to an allow-listed host; `$NAME` in header values, URL and body stands for a secret."""

    type: Literal["http"]
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    url: WebAddress
    headers: Annotated[dict[HeaderName, HeaderValue], Field(max_length=50)] = Field(default_factory=dict[str, str])
    body: Annotated[JsonValue, AfterValidator(fillable_body)] = None
    timeout_seconds: Seconds = 30.0
    idempotent: bool = False
    """Declares that the far side takes the same request twice as once (it is sent with an `Idempotency-Key`)."""

    @property
    def title(self) -> str:
        return f"{self.method} {self.url.split('?', 1)[0]}"

    @property
    def at_most_once(self) -> bool:
        return not self.idempotent and self.method not in ("GET", "HEAD")

    def texts(self) -> Iterator[str]:
        yield self.url
        yield from self.headers.values()
        yield from strings_in(self.body)


class ShellStep(StepBase):
    """Run one allowed command on a configured host."""

    type: Literal["shell"]
    command: Command
    host: Annotated[Name, AfterValidator(fillable)]
    timeout_seconds: Seconds = 60.0

    @property
    def title(self) -> str:
        return f"Run `{self.command}` on {self.host}"

    @property
    def at_most_once(self) -> bool:
        return True

    def texts(self) -> Iterator[str]:
        yield self.command
        yield self.host
