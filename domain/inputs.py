"""What a runbook can be told when it is started: typed inputs with defaults, and how given values are bound to them."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from domain.base import Durable, Text, in_words
from domain.conditions import Scalar

InputName = Annotated[
    str, in_words(r"[A-Za-z_][A-Za-z0-9_]{0,49}", "must be 1 to 50 letters, digits and _, of which the first is no digit")
]

InputType = Literal["string", "integer", "number", "boolean"]


class InputError(ValueError):
    """A value that does not fit; one sentence naming the input and what is allowed."""


class Input(Durable):
    """One input. Without a default it has to be given."""

    type: InputType = "string"
    description: Text = ""
    default: Scalar = None
    choices: Annotated[tuple[Scalar, ...], Field(max_length=50)] | None = None

    @model_validator(mode="after")
    def _fits_itself(self) -> "Input":
        if self.choices is not None and not self.choices:
            raise ValueError("'choices' may not be empty")
        for value in (self.default, *(self.choices or ())):
            if value is not None:
                self.check("default" if value is self.default else "choices", value)
        return self

    def check(self, name: str, value: Scalar) -> Scalar:
        """The value, if it fits. Raises: InputError."""
        if not _is(value, self.type):
            raise InputError(f"{name} must be of type {self.type}")
        if self.choices is not None and value not in self.choices:
            raise InputError(f"{name} must be one of {', '.join(str(choice) for choice in self.choices)}")
        return value


def bind_inputs(wanted: Mapping[str, Input], given: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Every input with its value. Raises: InputError for an unknown one, a missing one, and one that does not fit."""
    for name in given:
        if name not in wanted:
            known = ", ".join(wanted) or "none"
            raise InputError(f"'{name}' is not an input of this runbook; its inputs are: {known}")
    bound: dict[str, Scalar] = {}
    for name, one in wanted.items():
        value = given.get(name, one.default)
        if value is None:
            raise InputError(f"the input '{name}' has no default and must be given")
        bound[name] = one.check(f"the input '{name}'", value)
    return bound


def _is(value: Scalar, kind: InputType) -> bool:
    match kind:
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
