"""The two kinds of model, and the value types that every other module of the domain shares."""

import hashlib
import json
import re
import unicodedata
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, StringConstraints


class Durable(BaseModel):
    """A model that crosses Temporal: immutable, and deaf to unknown fields, so that old and new workers can meet."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Edge(BaseModel):
    """A model at an edge (HTTP, YAML): strict types, unknown fields refused, NaN and infinities refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _to_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError as error:  # 0001-01-01T00:00:00+14:00 is in the year 0 of UTC
        raise ValueError("must lie in the years 1 to 9999 of UTC") from error


_RFC_3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d{1,30})?([Zz]|[+-]\d\d:\d\d)\Z", re.ASCII)
_RFC_3339_IN_WORDS = "must be an RFC 3339 time with a zone, such as 2026-04-10T12:00:05Z"
_MICROSECOND_DIGITS = 6


def _from_rfc_3339(value: object) -> object:
    """Texts are read here and not by pydantic, which also takes `"1744286405"` for an instant."""
    if not isinstance(value, str):
        return value
    match = _RFC_3339.match(value)
    if not match:
        raise ValueError(_RFC_3339_IN_WORDS)
    date, clock, fraction, zone = match.groups(default="")
    try:
        return datetime.fromisoformat(f"{date}T{clock}{fraction[: _MICROSECOND_DIGITS + 1]}{zone.upper()}")
    except ValueError as error:  # 30 February is shaped like a date, and is none
        raise ValueError(_RFC_3339_IN_WORDS) from error


def one_line(value: str) -> str:
    """Refuse what is not one printable line."""
    for character in value:
        if not character.isprintable():
            raise ValueError(f"may not contain the control or invisible character U+{ord(character):04X}")
    return value


_LAYOUT = frozenset("\t\n\r")


def storable(value: str) -> str:
    """Refuse control characters but tabs and line breaks, and surrogates, which UTF-8 cannot write."""
    for character in value:
        if unicodedata.category(character) in ("Cc", "Cs") and character not in _LAYOUT:
            raise ValueError(f"may not contain the control character U+{ord(character):04X}")
    return value


_BRACKETS = re.compile(r"\[!?+\]?+[^\]]*+\]")


def _closed(value: str) -> str:
    # fnmatch takes a bracket that is never closed for itself, and no service is named like that: the glob would match nothing.
    if "[" in _BRACKETS.sub("", value):
        raise ValueError("has a '[' that is never closed")
    return value


def in_words(pattern: str, words: str) -> AfterValidator:
    """A text that `pattern` matches whole; what is not is refused with `words`, which complete "the name …"."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(words)
        return value

    return AfterValidator(check)


UtcDatetime = Annotated[AwareDatetime, AfterValidator(_to_utc)]
"""An instant: a zone is required on the way in, UTC is what is kept."""

Rfc3339 = Annotated[UtcDatetime, BeforeValidator(_from_rfc_3339)]
"""An instant as an edge takes it; digits beyond the microsecond are cut off."""

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), AfterValidator(one_line)]
"""A name of one printable line, 1 to 200 characters."""

Glob = Annotated[Name, AfterValidator(_closed)]
"""A name in which `*`, `?` and `[…]` are wildcards. There is no empty one: whoever means all writes `*`."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, max_length=8_000), AfterValidator(storable)]
"""Foreign text of up to 8,000 characters, without control characters but tabs and line breaks: it is shown in terminals too.
What is shown of it is clipped where it is shown."""


class Source(StrEnum):
    """The surface on which somebody acted."""

    SLACK = "slack"
    API = "api"
    CLI = "cli"
    CONSOLE = "console"
    SYSTEM = "system"


class Actor(Durable):
    """Who acted: a Slack user, an API key, or the system itself."""

    id: str
    """Slack user id (`U…`), `key:<name>` of an API key, or `system`."""
    name: str
    source: Source


SYSTEM = Actor(id="system", name="InfraSage", source=Source.SYSTEM)


def canonical_json(value: Any) -> str:
    """One text for one value: keys sorted, no spaces, no NaN. Raises ValueError or TypeError for what JSON cannot say."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_of(value: Any) -> str:
    """SHA-256 of the canonical JSON, 64 hexadecimal characters."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
