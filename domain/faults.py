"""What pydantic found wrong, in words for the person who wrote the input.

A reason completes the sentence that begins with the name of the thing (`steps[1].replicas` … `must be a whole number`). It never
repeats the value, which may be a secret.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic_core import ErrorDetails

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}\Z")
_KEY_SHOWN_CHARACTERS = 60

_FIXED = {
    "missing": "is required",
    "extra_forbidden": "is not a key that is known here",
    "string_type": "must be a text",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping of keys",
    "model_type": "must be a mapping of keys",
    "model_attributes_type": "must be a mapping of keys",
    "timezone_aware": "must carry a time zone, such as Z or +02:00",
    "json_invalid": "must be valid JSON",
}

_FROM_CONTEXT: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "greater_than": lambda context: f"must be more than {context['gt']:g}",
    "greater_than_equal": lambda context: f"must be {context['ge']:g} or more",
    "less_than": lambda context: f"must be less than {context['lt']:g}",
    "less_than_equal": lambda context: f"must be {context['le']:g} or less",
    "string_too_short": lambda context: (
        "may not be empty" if context["min_length"] == 1 else f"must have {context['min_length']} characters or more"
    ),
    "string_too_long": lambda context: f"may have {context['max_length']} characters at most",
    "too_short": lambda context: (
        "may not be empty" if context["min_length"] == 1 else f"must have {context['min_length']} entries or more"
    ),
    "too_long": lambda context: f"may have {context['max_length']} entries at most",
    "literal_error": lambda context: f"must be {context['expected']}",
    "enum": lambda context: f"must be {context['expected']}",
    "union_tag_not_found": lambda _context: "is required",
    "union_tag_invalid": lambda context: f"must be one of {str(context['expected_tags']).replace(chr(39), '')}",
}


def reason_of(error: ErrorDetails) -> str:
    """Say why, in words; a validator's own words are taken as they are."""
    kind, message = error["type"], error["msg"]
    if kind in _FIXED:
        return _FIXED[kind]
    if kind in _FROM_CONTEXT:
        return _FROM_CONTEXT[kind](error.get("ctx", {}))
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    return message.replace("Input should", "must", 1)


def place_of(location: Sequence[int | str]) -> str:
    """Say where: `steps[1].headers.Accept`; a key that would not read well there is quoted and clipped."""
    place = ""
    for part in location:
        if isinstance(part, int):
            place += f"[{part}]"
        elif part == "[key]":
            continue  # pydantic's mark that the key is wrong and not its value
        elif _PLAIN_KEY.match(part):
            place += f".{part}" if place else part
        else:
            shown = part if len(part) <= _KEY_SHOWN_CHARACTERS else part[: _KEY_SHOWN_CHARACTERS - 1] + "…"
            place += f"[{shown!r}]"
    return place
