"""One number out of what a query gave: how the sources of a check agree on what is no number."""

import math
from collections.abc import Sequence
from decimal import Decimal

from activities.errors import TransientError


class NoSingleValue(TransientError):
    """The query was answered, and not by exactly one finite number; later it may be."""


def single_number(values: Sequence[object], of: str) -> float:
    """The only one of `values`, which are `of` ("series", "rows"). Raises: NoSingleValue saying what there is instead."""
    if not values:
        raise NoSingleValue(f"the query gives no {of}")
    if len(values) > 1:
        raise NoSingleValue(f"the query gives more than one of its {of}, and exactly one is needed")
    (value,) = values
    if value is None:
        raise NoSingleValue("the query gives NULL, which is no number")
    if not isinstance(value, int | float | Decimal):
        raise NoSingleValue(f"the query gives a value of type {type(value).__name__}, which is no number")
    try:
        number = float(value)
    except OverflowError:
        raise NoSingleValue("the query gives a number that is too large") from None
    if not math.isfinite(number):
        raise NoSingleValue(f"the query gives {number}, which is no finite number")
    return number
