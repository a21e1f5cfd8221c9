"""What every step of a runbook has in common: its keys, and the kinds of value that steps hold.

Texts take `{{ name }}`, those of an http step also `$NAME` (a secret, resolved where the step runs). What a text becomes with its
names filled in is checked again where it runs: what is fine here can still be empty there.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import AfterValidator, Field, JsonValue, PlainValidator, StringConstraints, ValidationInfo, field_validator

from domain import expressions
from domain.base import Durable, Name, in_words, one_line

if TYPE_CHECKING:
    from domain.runbook import UndoStep

StepName = Annotated[
    str,
    in_words(
        r"[A-Za-z_][A-Za-z0-9_-]{0,49}",
        "must be 1 to 50 letters, digits and the characters _ -, of which the first is a letter or _",
    ),
]

OUTPUTS_PREFIX = "steps."
"""`{{ steps.<name>.<field> }}` is an output of an earlier step."""

Minutes = Annotated[float, Field(gt=0, le=7 * 24 * 60)]
Seconds = Annotated[float, Field(gt=0, le=24 * 60 * 60)]


KNOWN_NAMES = "known_names"
"""Key of the validation context: what texts and conditions may refer to. Set when a runbook is loaded; a definition that travels
with its run was checked then."""


def _known(info: ValidationInfo) -> Collection[str] | None:
    context = cast("Mapping[str, Any] | None", info.context)
    return None if context is None else cast("Collection[str] | None", context.get(KNOWN_NAMES))


def fillable(text: str, info: ValidationInfo) -> str:
    known = _known(info)
    if known is not None:
        names = [name for name in expressions.placeholders(text) if not name.startswith(OUTPUTS_PREFIX)]
        expressions.check_names(names, known)
    return text


def fillable_body(body: JsonValue, info: ValidationInfo) -> JsonValue:
    for text in strings_in(body):
        fillable(text, info)
    return body


def count_or_placeholder(limit: int) -> PlainValidator:
    """A whole number from 0 to `limit`, or one `{{ name }}` that gives it when the step runs."""

    def check(value: object, info: ValidationInfo) -> object:
        if isinstance(value, str) and re.fullmatch(r"\s*\{\{[^{}]*\}\}\s*", value):
            return fillable(value, info)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError("must be a whole number")
        if value < 0:
            raise ValueError("must be 0 or more")
        if value > limit:
            raise ValueError(f"must be {limit} or less")
        return value

    return PlainValidator(check, json_schema_input_type=int | str)


_KUBERNETES_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


def _kubernetes_name(text: str) -> str:
    if "{{" not in text and not _KUBERNETES_NAME.fullmatch(text):
        raise ValueError("must be the name of one object: lower-case letters, digits, - and ., or {{ name }}")
    return text


def _web_address(text: str) -> str:
    if not text.startswith(("http://", "https://", "$", "{{")):
        raise ValueError("must begin with http:// or https://")
    return text


ObjectName = Annotated[Name, AfterValidator(fillable), AfterValidator(_kubernetes_name)]
"""A Kubernetes name (RFC 1123, https://kubernetes.io/docs/concepts/overview/working-with-objects/names/): never empty, never a
pattern, so that no step can mean "all"."""

WebAddress = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=2_000),
    AfterValidator(one_line),
    AfterValidator(_web_address),
    AfterValidator(fillable),
]
Command = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=4_000),
    AfterValidator(one_line),
    AfterValidator(fillable),
]
"""One printable line: what an approver reads is all there is."""

HeaderName = Annotated[str, in_words(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", "must be a header name: 1 to 100 letters, digits and -")]
HeaderValue = Annotated[str, StringConstraints(max_length=8_000), AfterValidator(one_line), AfterValidator(fillable)]


class Retry(Durable):
    """How often a step that failed for a passing reason is tried, and how long the pause before the second try is; it doubles."""

    attempts: Annotated[int, Field(ge=1, le=20)]
    """In all, the first one included."""
    backoff_seconds: Annotated[float, Field(gt=0, le=600)] = 1.0


class StepBase(Durable):
    """The keys every step takes."""

    name: StepName | None = None
    when: str | None = None
    """A condition; false skips the step, an error halts the run."""
    require_approval: bool = False
    approval_timeout_minutes: Minutes = 10.0
    retry: Retry | None = None
    on_failure: Literal["halt", "continue", "rollback"] | None = None
    """What a failure does to the run; absent: `rollback` where the runbook says `rollback_on_failure`, else `halt`."""

    undo: "UndoStep | None" = None
    """What takes the step back, instead of what its type would do (`domain.runbook.UndoStep`)."""

    @field_validator("when")
    @classmethod
    def _when_is_usable(cls, value: str | None, info: ValidationInfo) -> str | None:
        known = _known(info)
        if value is not None and known is not None:
            expressions.check_condition(value, known)
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
    def runs_in_workflow(self) -> bool:
        """Whether the workflow itself is the step (a timer, a child), so that no activity plans or executes it."""
        return False

    @property
    def at_most_once(self) -> bool:
        """Whether a lost outcome may not be repaired by running the step again."""
        return False

    def texts(self) -> Iterator[str]:
        """Every text of the step that takes placeholders."""
        return iter(())


def strings_in(value: JsonValue) -> Iterator[str]:
    """Every text in a JSON value, keys excepted."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from strings_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings_in(item)
