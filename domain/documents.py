"""Measure a parsed YAML or JSON document before anything walks it: what JSON cannot say, and what is too big to be meant.

A YAML file of 1 kB can stand for 10⁹ values (aliases of aliases) or refer to itself, so the walk counts every visit.
"""

import math
from collections.abc import Iterator
from typing import Any, cast

DEPTH_LIMIT = 50
VALUES_LIMIT = 10_000
CHARACTERS_LIMIT = 256 * 1024
"""Of all texts and keys together. A definition travels inside its run, and Temporal refuses payloads above 2 MiB."""

Place = tuple[int | str, ...]


class DocumentTooLarge(ValueError):
    """The document is deeper or bigger than anybody means; the text is the reason."""


def unsayable(document: object) -> list[tuple[Place, str]]:
    """Find every value that JSON cannot express, with its place and the reason.

    Raises: DocumentTooLarge beyond `DEPTH_LIMIT`, `VALUES_LIMIT` or `CHARACTERS_LIMIT`.
    """
    values = characters = 0
    found: list[tuple[Place, str]] = []
    waiting: list[tuple[Place, object]] = [((), document)]
    while waiting:
        place, value = waiting.pop()
        values += 1
        characters += len(value) if isinstance(value, str) else 0
        if len(place) > DEPTH_LIMIT:
            raise DocumentTooLarge(f"is nested more than {DEPTH_LIMIT} levels deep")
        if values > VALUES_LIMIT:
            raise DocumentTooLarge(f"holds more than {VALUES_LIMIT:,} values")
        if characters > CHARACTERS_LIMIT:
            raise DocumentTooLarge(f"holds more than {CHARACTERS_LIMIT:,} characters")
        reason = _reason(value)
        if reason:
            found.append((place, reason))
        for key, member in _members(value):
            characters += len(key) if isinstance(key, str) else 0
            reason = _reason_of_key(key) if isinstance(value, dict) else None
            if reason:
                found.append(((*place, str(key)), reason))
            else:
                waiting.append(((*place, cast("int | str", key)), member))
    return sorted(found, key=lambda fault: [str(part) for part in fault[0]])


def _members(value: object) -> Iterator[tuple[object, object]]:
    if isinstance(value, dict):
        yield from cast("dict[Any, Any]", value).items()
    elif isinstance(value, list):
        yield from enumerate(cast("list[Any]", value))


def _reason_of_key(key: object) -> str | None:
    return _reason_of_text(key) if isinstance(key, str) else "is a key that is not a text; put it in quotes"


def _reason(value: object) -> str | None:
    if value is None or isinstance(value, bool | dict | list):
        return None
    if isinstance(value, str):
        return _reason_of_text(value)
    if isinstance(value, int):
        # Python writes integers of up to 4,300 digits only (sys.set_int_max_str_digits); nobody means one of 309.
        return "is a number that is too large" if value.bit_length() > 1_024 else None
    if isinstance(value, float):
        return None if math.isfinite(value) else "must be a finite number"
    return f"is a {type(value).__name__}, which a runbook cannot hold; put it in quotes to make it a text"


def _reason_of_text(value: str) -> str | None:
    return "may not contain unpaired surrogates" if any(0xD800 <= ord(character) <= 0xDFFF for character in value) else None
