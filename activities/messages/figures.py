"""Numbers and times in the words of a message."""

from datetime import UTC, datetime, timedelta
from decimal import ROUND_DOWN, Decimal

_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


def instant(at: datetime) -> str:
    """`2026-04-10 12:00:05 UTC`."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def score(value: float) -> str:
    """A score of 0..1 with two decimals, a third where it matters; cut, not rounded: 0.7996 is below 0.8 and must not read 0.80."""
    text = str(Decimal(repr(value)).quantize(Decimal("0.001"), ROUND_DOWN))
    return text.removesuffix("0")


def percent(share: float) -> str:
    """A share of 0..1 in whole percent, cut: 0.999 is not certainty."""
    return f"{int((Decimal(repr(share)) * 100).to_integral_value(ROUND_DOWN))}%"


def duration(length: timedelta) -> str:
    """The two largest units that are not zero: `10 minutes`, `1 hour 30 minutes`, `6 seconds`."""
    seconds = length.total_seconds()
    if seconds < 1:
        return f"{seconds:g} seconds"
    remaining = round(seconds)
    parts: list[str] = []
    for unit, unit_seconds in _UNITS:
        count, remaining = divmod(remaining, unit_seconds)
        if count:
            parts.append(f"{count} {unit}{'' if count == 1 else 's'}")
    return " ".join(parts[:2])
