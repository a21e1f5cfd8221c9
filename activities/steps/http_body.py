"""The body of an http step: how values are filled in, shown to the approver, and put on the wire."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote_plus

from pydantic import JsonValue

from activities.secrets import Secrets
from activities.steps.rendering import Encoding, as_is, fill_beside_secrets
from domain.base import canonical_json
from domain.expressions import Scalar


@dataclass(frozen=True)
class Content:
    """What is sent: secrets are filled in, so `repr` does not show it."""

    octets: bytes = field(repr=False)
    media_type: str
    """Used where the step names no Content-Type itself."""


def fill(body: JsonValue, names: Mapping[str, Scalar], media_type: str | None) -> JsonValue:
    """Fill in the placeholders of every text in the body; keys stay as they are.

    A body that is one text is filled in as its media type demands: a value may not close the JSON string or the form field in
    which it stands.
    """
    encode = _encoding(media_type) if isinstance(body, str) else as_is
    return _each_text(body, lambda text: fill_beside_secrets(text, names, encode))


def encode(body: JsonValue, secrets: Secrets) -> Content | None:
    """Resolve the secrets and encode: a text as it is, every other value as JSON; None when there is no body.

    Raises: NotConfigured for a secret without a value.
    """
    if body is None:
        return None
    resolved = _each_text(body, secrets.resolve)
    if isinstance(resolved, str):
        return Content(resolved.encode(), "text/plain; charset=utf-8")
    return Content(json.dumps(resolved, allow_nan=False).encode(), "application/json")


def shown(body: JsonValue) -> str:
    """The body as the approver sees it."""
    return body if isinstance(body, str) else canonical_json(body)


def _encoding(media_type: str | None) -> Encoding:
    match (media_type or "").partition(";")[0].strip().lower():
        case "application/x-www-form-urlencoded":
            return quote_plus
        case essence if essence == "application/json" or essence.endswith("+json"):
            return _inside_json_text
        case _:
            return as_is


def _inside_json_text(value: str) -> str:
    return json.dumps(value)[1:-1]


def _each_text(value: JsonValue, change: Callable[[str], str]) -> JsonValue:
    match value:
        case str():
            return change(value)
        case list():
            return [_each_text(item, change) for item in value]
        case dict():
            return {key: _each_text(item, change) for key, item in value.items()}
        case _:
            return value
