"""Fill `{{ name }}` into texts that may also hold `$NAME`, so that a filled-in value never becomes a reference."""

import re
from collections.abc import Callable, Mapping
from urllib.parse import quote

from activities import secrets
from activities.errors import InvalidStep
from domain import expressions
from domain.expressions import Scalar

Encoding = Callable[[str], str]
"""How a filled-in value is written, so that it stays a value where it stands."""

_PLACEHOLDER = re.compile(r"(\{\{.*?\}\})", re.DOTALL)


def as_is(value: str) -> str:
    return value


def for_url(value: str) -> str:
    """Percent-encode everything that could end the component of a URL in which the value stands."""
    return quote(value, safe="")


def fill_beside_secrets(text: str, names: Mapping[str, Scalar], encode: Encoding = as_is) -> str:
    """Fill in the placeholders of a text in which `$NAME` stands for a secret.

    Returns: a text in which the references of the template, and only those, are references (`activities.secrets`): a value
    that looks like one is written with `$$`, so resolving the result gives what the template means.
    Raises: ExpressionError as `expressions.render`; InvalidStep for `$NAME{{ name }}`, where the value could lengthen NAME.
    """
    expressions.render(text, names)  # refuses what cannot be filled in, the same way everywhere
    parts: list[secrets.Part] = []
    for piece in _PLACEHOLDER.split(text):
        if not _PLACEHOLDER.fullmatch(piece):
            parts.extend(secrets.parse(piece))
            continue
        if parts and isinstance(parts[-1], secrets.Reference):
            raise InvalidStep(f"'${parts[-1].name}' may not stand directly before '{piece}': put a character between them")
        parts.append(encode(expressions.render(piece, names)))
    return secrets.spell(parts)
