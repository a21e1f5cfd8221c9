"""Texts that people send in, with the same limits on every surface."""

from typing import Annotated, Any

from pydantic import StringConstraints, TypeAdapter, ValidationError

from api.problems import Problem, faults_of
from domain.base import Name, Text

ResolutionText = Annotated[Text, StringConstraints(min_length=1, max_length=4_000)]
"""How it was resolved: what incident memory shows to the next person."""

Reason = Annotated[Text, StringConstraints(max_length=1_000)]

RESOLUTION: TypeAdapter[str] = TypeAdapter(ResolutionText)
REASON: TypeAdapter[str] = TypeAdapter(Reason)
NAME: TypeAdapter[str] = TypeAdapter(Name)


def checked(kind: TypeAdapter[str], what: str, value: Any) -> str:
    """`value` as `kind` takes it. Raises Problem 422 whose sentence begins with `what`."""
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        reason = faults_of(error.errors(include_input=False))[0].reason
        raise Problem(422, f"{what}: {reason}.") from None
