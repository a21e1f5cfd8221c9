"""The step types of a runbook: one class each, with the keys it takes and what they may hold.

Texts take `{{ name }}`, those of an http step also `$NAME` (a secret, resolved where the step runs). What a text becomes with its
names filled in is checked again where it runs: what is fine here can still be empty there.
"""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue, StringConstraints, ValidationInfo, field_validator

from domain import expressions
from domain.base import Durable, Name, in_words, one_line, storable

StepName = Annotated[
    str,
    in_words(
        r"[A-Za-z_][A-Za-z0-9_-]{0,49}",
        "must be 1 to 50 letters, digits and the characters _ -, of which the first is a letter or _",
    ),
]

Minutes = Annotated[float, Field(gt=0, le=7 * 24 * 60)]
Seconds = Annotated[float, Field(gt=0, le=24 * 60 * 60)]


def _fillable(text: str) -> str:
    expressions.check_text(text, expressions.ANOMALY_NAMES)
    return text


def _fillable_body(body: JsonValue) -> JsonValue:
    for text in _strings_in(body):
        _fillable(text)
    return body


_KUBERNETES_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


def _kubernetes_name(text: str) -> str:
    if "{{" not in text and not _KUBERNETES_NAME.fullmatch(text):
        raise ValueError("must be the name of one object: lower-case letters, digits, - and ., or {{ name }}")
    return text


def _web_address(text: str) -> str:
    if not text.startswith(("http://", "https://", "$", "{{")):
        raise ValueError("must begin with http:// or https://")
    return text


ObjectName = Annotated[Name, AfterValidator(_fillable), AfterValidator(_kubernetes_name)]
"""A Kubernetes name (RFC 1123, https://kubernetes.io/docs/concepts/overview/working-with-objects/names/): never empty, never a
pattern, so that no step can mean "all"."""

WebAddress = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=2_000),
    AfterValidator(one_line),
    AfterValidator(_web_address),
    AfterValidator(_fillable),
]
Command = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=4_000),
    AfterValidator(one_line),
    AfterValidator(_fillable),
]
"""One printable line: what an approver reads is all there is."""

HeaderName = Annotated[str, in_words(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", "must be a header name: 1 to 100 letters, digits and -")]
HeaderValue = Annotated[str, StringConstraints(max_length=8_000), AfterValidator(one_line), AfterValidator(_fillable)]


class StepBase(Durable):
    """The keys every step takes."""

    name: StepName | None = None
    when: str | None = None
    """A condition; false skips the step, an error halts the run."""
    require_approval: bool = False
    approval_timeout_minutes: Minutes = 10.0

    @field_validator("when")
    @classmethod
    def _when_is_usable(cls, value: str | None) -> str | None:
        if value is not None:
            expressions.check_condition(value, expressions.ANOMALY_NAMES)
        return value

    @property
    def approval_timeout(self) -> timedelta:
        return timedelta(minutes=self.approval_timeout_minutes)

    @property
    def title(self) -> str:
        """What the step does, in the imperative."""
        raise NotImplementedError

    @property
    def reads_world(self) -> bool:
        """Whether its plan depends on the world, so that it must be recorded before the step executes."""
        return False

    @property
    def at_most_once(self) -> bool:
        """Whether a lost outcome may not be repaired by running the step again."""
        return False

    def texts(self) -> Iterator[str]:
        """Every text of the step that takes placeholders."""
        return iter(())


SlackText = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=3_000),
    AfterValidator(storable),
    AfterValidator(_fillable),
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


class KubernetesStep(StepBase):
    """Act on a Deployment, or on a node (`cordon`, `uncordon`, `drain`)."""

    type: Literal["kubernetes"]
    action: Literal["scale", "restart", "rollout-undo", "cordon", "uncordon", "drain"]
    namespace: ObjectName | None = Field(default=None, validate_default=True)
    deployment: ObjectName | None = Field(default=None, validate_default=True)
    node: ObjectName | None = Field(default=None, validate_default=True)
    replicas: Annotated[int, Field(ge=0, le=10_000)] | None = Field(default=None, validate_default=True)
    timeout_seconds: Seconds = 300.0

    @field_validator("namespace", "deployment", "node", "replicas")
    @classmethod
    def _keys_of_the_action(cls, value: str | int | None, about: ValidationInfo) -> str | int | None:
        """One key at a time, so that each fault has its own place in the file."""
        action, key = about.data.get("action"), about.field_name
        if action is None:  # at fault itself
            return value
        needed = ("node",) if action in ("cordon", "uncordon", "drain") else ("namespace", "deployment")
        if action == "scale":
            needed += ("replicas",)
        if value is None and key in needed:
            raise ValueError(f"is required by the action {action}")
        if value is not None and key not in needed:
            raise ValueError(f"is not taken by the action {action}, which takes {', '.join(needed)}")
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
    def reads_world(self) -> bool:
        return True

    def texts(self) -> Iterator[str]:
        yield from (text for text in (self.namespace, self.deployment, self.node) if text)


class HttpStep(StepBase):
    """Send one HTTP request to an allow-listed host; `$NAME` in header values, URL and body stands for a secret."""

    type: Literal["http"]
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    url: WebAddress
    headers: Annotated[dict[HeaderName, HeaderValue], Field(max_length=50)] = Field(default_factory=dict[str, str])
    body: Annotated[JsonValue, AfterValidator(_fillable_body)] = None
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
        yield from _strings_in(self.body)


class ShellStep(StepBase):
    """Run one allowed command on a configured host."""

    type: Literal["shell"]
    command: Command
    host: Annotated[Name, AfterValidator(_fillable)]
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


Step = Annotated[SlackStep | KubernetesStep | HttpStep | ShellStep, Field(discriminator="type")]


def _strings_in(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings_in(item)
