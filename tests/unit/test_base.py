"""Value types, canonical JSON, and the words for what pydantic found wrong."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from domain.base import Durable, Edge, Glob, Name, Rfc3339, Text, UtcDatetime, canonical_json, sha256_of
from domain.documents import CHARACTERS_LIMIT, DEPTH_LIMIT, VALUES_LIMIT, DocumentTooLarge, unsayable
from domain.faults import place_of, reason_of

NAME = TypeAdapter(Name)
GLOB = TypeAdapter(Glob)
TEXT = TypeAdapter(Text)
INSTANT = TypeAdapter(UtcDatetime)
RFC_3339 = TypeAdapter(Rfc3339)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


law = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For properties on a shared machine: how long an example takes says nothing."""


def reason(adapter: TypeAdapter[Any], value: object, *, strict: bool = True) -> str:
    with pytest.raises(ValidationError) as refused:
        adapter.validate_python(value, strict=strict)
    return reason_of(refused.value.errors()[0])


@law
@given(json_values)
def test_canonical_json_says_the_same_value(value: object) -> None:
    assert json.loads(canonical_json(value)) == value


@law
@given(st.dictionaries(st.text(max_size=5), st.integers(), min_size=2, max_size=6), st.randoms())
def test_the_order_of_keys_does_not_change_the_digest(value: dict[str, int], shuffle: Any) -> None:
    keys = list(value)
    shuffle.shuffle(keys)
    assert sha256_of({key: value[key] for key in keys}) == sha256_of(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object(), {"a": b"x"}])
def test_canonical_json_refuses_what_json_cannot_say(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        canonical_json(value)


def test_a_digest_is_the_same_in_every_process() -> None:
    assert sha256_of({"b": 1, "a": "ü"}) == "4e7ff4080b1a00acdaf71eb0cdf2d504aa8068bbb375c002eac2df3f064047a7"


@pytest.mark.parametrize("value", ["", "   ", "a\nb", "a\tb", "a\x00b", "a\u200bb", "a\u202eb", "\ud800", "x" * 201])
def test_a_name_is_one_printable_line_of_1_to_200_characters(value: str) -> None:
    with pytest.raises(ValidationError):
        NAME.validate_python(value)


def test_a_name_loses_the_spaces_around_it() -> None:
    assert NAME.validate_python("  payment-api  ") == "payment-api"


@pytest.mark.parametrize("value", ["*", "payment-*", "auth-?", "[ab]-api", "[!a]x", "[]]x", "[!]]x", "a]"])
def test_wildcards_are_welcome_in_a_glob(value: str) -> None:
    assert GLOB.validate_python(value) == value


@pytest.mark.parametrize("value", ["", " ", "[ab", "a[", "[]", "[!]", "[ab]["])
def test_a_glob_that_is_empty_or_never_closed_is_refused(value: str) -> None:
    with pytest.raises(ValidationError):
        GLOB.validate_python(value)


@pytest.mark.parametrize("value", ["a\x00b", "a\x1b[31mb", "a\x7fb", "a\x9bb", "\ud800", "x" * 8_001])
def test_control_characters_and_overlong_text_are_refused(value: str) -> None:
    with pytest.raises(ValidationError):
        TEXT.validate_python(value)


def test_text_keeps_its_lines_and_its_emoji() -> None:
    assert TEXT.validate_python(" 👩‍🚒 first\n\tsecond\r\n ") == "👩‍🚒 first\n\tsecond"


@law
@given(st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29)), st.integers(-14 * 60, 14 * 60))
def test_an_instant_is_kept_in_utc_whatever_zone_it_came_in(wall: datetime, offset: int) -> None:
    at = wall.replace(tzinfo=timezone(timedelta(minutes=offset)))
    kept = INSTANT.validate_python(at)
    assert kept == at
    assert kept.tzinfo is UTC


@pytest.mark.parametrize("value", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_an_instant_outside_the_years_of_utc_is_a_fault_and_no_crash(value: str) -> None:
    assert reason(RFC_3339, value) == "must lie in the years 1 to 9999 of UTC"


def test_an_instant_without_zone_is_refused() -> None:
    assert reason(INSTANT, datetime(2026, 4, 10)) == "must carry a time zone, such as Z or +02:00"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-04-10T12:00:05Z", datetime(2026, 4, 10, 12, 0, 5, tzinfo=UTC)),
        ("2026-04-10t12:00:05z", datetime(2026, 4, 10, 12, 0, 5, tzinfo=UTC)),
        ("2026-04-10 14:00:05+02:00", datetime(2026, 4, 10, 12, 0, 5, tzinfo=UTC)),
        ("2026-04-10T12:00:05.1234567891Z", datetime(2026, 4, 10, 12, 0, 5, 123456, tzinfo=UTC)),
        ("2026-04-10T12:00:05.5-00:30", datetime(2026, 4, 10, 12, 30, 5, 500000, tzinfo=UTC)),
    ],
)
def test_rfc_3339_is_read(text: str, expected: datetime) -> None:
    assert RFC_3339.validate_python(text, strict=True) == expected


@pytest.mark.parametrize(
    "value",
    [
        "1744286405",
        "",
        "now",
        "2026-04-10",
        "2026-04-10T12:00:05",
        "2026-04-10T12:00Z",
        "2026-02-30T12:00:00Z",
        "2026-04-10T24:00:00Z",
        "2026-04-10T12:00:05+0200",
        "2026-04-10T12:00:05 Z",
        "20260410T120005Z",
        "２026-04-10T12:00:05Z",
    ],
)
def test_what_is_not_rfc_3339_with_a_zone_is_refused(value: str) -> None:
    assert reason(RFC_3339, value) == "must be an RFC 3339 time with a zone, such as 2026-04-10T12:00:05Z"


@pytest.mark.parametrize("value", [1744286405, 1744286405.5, True, None, []])
def test_what_is_not_a_text_is_no_time(value: object) -> None:
    with pytest.raises(ValidationError):
        RFC_3339.validate_python(value, strict=True)


def test_a_durable_model_is_deaf_to_fields_of_a_newer_version_and_cannot_be_changed() -> None:
    class Thing(Durable):
        size: int

    thing = Thing.model_validate_json('{"size": 1, "colour": "red"}')
    assert thing.size == 1
    with pytest.raises(ValidationError):
        thing.size = 2  # pyright: ignore[reportAttributeAccessIssue]


def test_an_edge_model_refuses_unknown_fields_other_types_and_infinities() -> None:
    class Thing(Edge):
        size: float

    for text in ('{"size": 1, "colour": "red"}', '{"size": "1"}', '{"size": true}', '{"size": NaN}', '{"size": Infinity}', "{}"):
        with pytest.raises(ValidationError):
            Thing.model_validate_json(text)


class Everything(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    text: str = Field(default="ab", min_length=2, max_length=3)
    filled: str = Field(default="a", min_length=1)
    whole: int = Field(default=1, gt=0, lt=9)
    number: float = Field(default=1, ge=0.5, le=1)
    yes: bool = True
    members: list[int] = Field(default=[1], min_length=1, max_length=2)
    pairs: list[int] = Field(default=[1, 2], min_length=2)
    mapping: dict[str, int] = {}
    choice: Literal["a", "b"] = "a"


@pytest.mark.parametrize(
    ("given_values", "expected"),
    [
        ({"text": "a"}, "text must have 2 characters or more"),
        ({"text": "abcd"}, "text may have 3 characters at most"),
        ({"filled": ""}, "filled may not be empty"),
        ({"text": 5}, "text must be a text"),
        ({"whole": 0}, "whole must be more than 0"),
        ({"whole": 9}, "whole must be less than 9"),
        ({"whole": "x"}, "whole must be a whole number"),
        ({"whole": 1.5}, "whole must be a whole number"),
        ({"number": 0.25}, "number must be 0.5 or more"),
        ({"number": 2}, "number must be 1 or less"),
        ({"number": "x"}, "number must be a number"),
        ({"number": float("nan")}, "number must be a finite number"),
        ({"yes": "perhaps"}, "yes must be true or false"),
        ({"members": []}, "members may not be empty"),
        ({"members": [1, 2, 3]}, "members may have 2 entries at most"),
        ({"pairs": [1]}, "pairs must have 2 entries or more"),
        ({"members": 1}, "members must be a list"),
        ({"members": ["x"]}, "members[0] must be a whole number"),
        ({"mapping": 1}, "mapping must be a mapping of keys"),
        ({"choice": "c"}, "choice must be 'a' or 'b'"),
        ({"other": 1}, "other is not a key that is known here"),
    ],
)
def test_a_fault_names_the_thing_and_says_what_is_allowed(given_values: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Everything.model_validate(given_values)
    fault = refused.value.errors()[0]
    assert f"{place_of(fault['loc'])} {reason_of(fault)}" == expected


@law
@given(st.text(min_size=3, max_size=20).filter(lambda text: text.strip() not in ("", "a", "b")))
def test_a_reason_never_repeats_the_value(value: str) -> None:
    secret = f"hunter2{value}"
    for field in ("whole", "number", "yes", "members", "mapping", "choice"):
        with pytest.raises(ValidationError) as refused:
            Everything.model_validate({field: secret})
        assert "hunter2" not in reason_of(refused.value.errors()[0])


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ((), ""),
        (("steps", 1, "replicas"), "steps[1].replicas"),
        ((0, "name"), "[0].name"),
        (("headers", "Content-Type"), "headers.Content-Type"),
        (("headers", "a b", "[key]"), "headers['a b']"),
        (("x\ny",), "['x\\ny']"),
        (("k" * 101,), f"['{'k' * 59}…']"),
    ],
)
def test_a_place_reads_like_the_path_in_the_file(location: tuple[int | str, ...], expected: str) -> None:
    assert place_of(location) == expected


@law
@given(json_values)
def test_what_json_can_say_is_sayable(value: object) -> None:
    assert unsayable(value) == []


@pytest.mark.parametrize(
    ("document", "place", "reason_starts"),
    [
        ({"a": [1, float("nan")]}, ("a", 1), "must be a finite number"),
        ({"a": datetime(2026, 1, 1)}, ("a",), "is a datetime"),
        ({"a": b"x"}, ("a",), "is a bytes"),
        ({"a": {1: 2}}, ("a", "1"), "is a key that is not a text"),
        ({"a": 10**400}, ("a",), "is a number that is too large"),
        ({"a": "\ud800"}, ("a",), "may not contain unpaired surrogates"),
        ({"\ud800": "a"}, ("\ud800",), "may not contain unpaired surrogates"),
    ],
)
def test_what_json_cannot_say_is_found_with_its_place(document: object, place: tuple[int | str, ...], reason_starts: str) -> None:
    [(found, why)] = unsayable(document)
    assert found == place
    assert why.startswith(reason_starts)


def test_a_document_of_aliases_of_aliases_is_refused_without_being_unfolded() -> None:
    bomb: list[Any] = ["x"] * 10
    for _ in range(12):
        bomb = [bomb] * 10  # 10¹³ values in 13 lists
    with pytest.raises(DocumentTooLarge, match="values"):
        unsayable({"steps": bomb})


def test_a_document_that_contains_itself_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["self"] = loop
    with pytest.raises(DocumentTooLarge, match="nested"):
        unsayable(loop)


def test_the_limits_of_a_document_are_inclusive() -> None:
    nested: list[Any] = []
    for _ in range(DEPTH_LIMIT):
        nested = [nested]
    assert unsayable(nested) == []
    with pytest.raises(DocumentTooLarge, match="nested"):
        unsayable([nested])
    assert unsayable([1] * (VALUES_LIMIT - 1)) == []
    with pytest.raises(DocumentTooLarge, match="values"):
        unsayable([1] * VALUES_LIMIT)
    assert unsayable("x" * CHARACTERS_LIMIT) == []
    with pytest.raises(DocumentTooLarge, match="characters"):
        unsayable({"k": "x" * CHARACTERS_LIMIT})
