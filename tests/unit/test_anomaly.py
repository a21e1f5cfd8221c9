"""What is taken for an anomaly, what it becomes, and when two are the same."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from domain.anomaly import Anomaly, AnomalyReport, Severity, SeverityBands
from domain.faults import place_of, reason_of

SAMPLE: dict[str, Any] = {
    "anomaly_id": "anom-7f3d",
    "service_id": "payment-api",
    "environment": "production",
    "metric_name": "cpu_usage_percent",
    "metric_value": 87.0,
    "anomaly_score": 0.93,
    "timestamp": "2026-04-10T12:00:05Z",
    "root_cause": "CPU saturation from DB connection pool exhaustion.",
    "rca_confidence": 0.92,
    "blast_radius": ["user-service", "checkout-service"],
    "suggested_actions": ["Scale payment-api to 5 pods", "Restart pods"],
}
REQUIRED = ("anomaly_id", "service_id", "metric_name", "timestamp", "anomaly_score")


law = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For properties on a shared machine: how long an example takes says nothing."""


def report(**changes: Any) -> AnomalyReport:
    return AnomalyReport.model_validate_json(json.dumps({**SAMPLE, **changes}))


def faults(body: str) -> list[str]:
    with pytest.raises(ValidationError) as refused:
        AnomalyReport.model_validate_json(body)
    return [f"{place_of(item['loc'])} {reason_of(item)}" for item in refused.value.errors()]


def faults_with(**changes: Any) -> list[str]:
    return faults(json.dumps({**SAMPLE, **changes}))


def test_the_sample_is_taken_as_it_is() -> None:
    anomaly = report().to_anomaly()
    assert anomaly == Anomaly(
        anomaly_id="anom-7f3d",
        service_id="payment-api",
        metric_name="cpu_usage_percent",
        timestamp=datetime(2026, 4, 10, 12, 0, 5, tzinfo=UTC),
        anomaly_score=0.93,
        environment="production",
        metric_value=87.0,
        root_cause="CPU saturation from DB connection pool exhaustion.",
        rca_confidence=0.92,
        blast_radius=("user-service", "checkout-service"),
        suggested_actions=("Scale payment-api to 5 pods", "Restart pods"),
    )


def test_five_keys_are_enough_and_the_rest_is_unknown() -> None:
    body = json.dumps({key: SAMPLE[key] for key in REQUIRED})
    anomaly = AnomalyReport.model_validate_json(body).to_anomaly()
    assert (anomaly.environment, anomaly.metric_value, anomaly.root_cause, anomaly.rca_confidence) == (None, None, None, None)
    assert (anomaly.blast_radius, anomaly.suggested_actions) == ((), ())


@pytest.mark.parametrize("key", REQUIRED)
def test_a_missing_key_is_named(key: str) -> None:
    body = {name: value for name, value in SAMPLE.items() if name != key}
    assert faults(json.dumps(body)) == [f"{key} is required"]


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-Infinity", "1e400", "-0.01", "1.0001", "2", "true", '"0.93"', "null", "[0.5]", "{}"]
)
def test_a_score_is_a_finite_number_from_0_to_1(value: str) -> None:
    body = json.dumps(SAMPLE).replace("0.93", value)
    [fault] = faults(body)
    assert fault.startswith("anomaly_score must be ")


@pytest.mark.parametrize("value", ["0", "1", "0.0", "1.0", "1e-300", "0.30000000000000004"])
def test_the_bounds_of_the_score_are_inclusive(value: str) -> None:
    body = json.dumps(SAMPLE).replace("0.93", value)
    assert AnomalyReport.model_validate_json(body).anomaly_score == float(value)


@pytest.mark.parametrize("key", ["metric_value", "rca_confidence"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "true", '"1"', "1" + "0" * 400])
def test_other_numbers_are_finite_numbers_too(key: str, value: str) -> None:
    body = json.dumps({**SAMPLE, key: "HERE"}).replace('"HERE"', value)
    [fault] = faults(body)
    assert fault.startswith(f"{key} must be a ")


@pytest.mark.parametrize(
    "value", ["2026-04-10T12:00:05", "2026-04-10", "1744286405", 1744286405, True, None, "0001-01-01T00:00:00+14:00"]
)
def test_a_time_without_zone_or_outside_the_calendar_is_refused(value: object) -> None:
    [fault] = faults_with(timestamp=value)
    assert fault.startswith("timestamp must ")


@pytest.mark.parametrize("value", ["a", "anom-7f3d", "A.b_c:d-9", "0", "x" * 128, "manually", "amtool.cpu:1"])
def test_an_id_may_have_letters_digits_and_four_more(value: str) -> None:
    assert report(anomaly_id=value).anomaly_id == value


@pytest.mark.parametrize(
    "value", ["", " ", "x" * 129, "-a", ".a", "..", "a/b", "a b", "a\n", "ä", "a%2fb", "a?b", "a#b", "٣", "a\x00"]
)
def test_any_other_id_is_refused_in_words(value: str) -> None:
    assert faults_with(anomaly_id=value) == [
        "anomaly_id must be 1 to 128 letters, digits and the characters . _ : -, of which the first is a letter or digit"
    ]


@pytest.mark.parametrize("value", ["manual", "Manual", "MANUAL"])
def test_the_prefix_of_manual_runs_is_no_anomaly(value: str) -> None:
    [fault] = faults_with(anomaly_id=value)
    assert fault.startswith("anomaly_id may not be 'manual'")


@pytest.mark.parametrize("key", ["service_id", "metric_name", "environment"])
@pytest.mark.parametrize("value", ["", "  ", "a\nb", "a\x1bb", "a\u200bb", "x" * 201, 5, True, ["a"]])
def test_a_name_is_one_printable_line(key: str, value: object) -> None:
    [fault] = faults_with(**{key: value})
    assert fault.startswith(f"{key} ")


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"root_cause": "x" * 8_001}, "root_cause"),
        ({"root_cause": "a\x1b[2Jb"}, "root_cause"),
        ({"root_cause": 5}, "root_cause"),
        ({"root_cause": ["x"]}, "root_cause"),
        ({"root_cause": True}, "root_cause"),
        ({"root_cause": {}}, "root_cause.summary"),
        ({"root_cause": {"summary": 5}}, "root_cause.summary"),
        ({"root_cause": {"summary": "x", "sumary": "y"}}, "root_cause.sumary"),
        ({"root_cause": {"summary": "x", "confidence": True}}, "root_cause.confidence"),
        ({"root_cause": {"summary": "x", "suggested_actions": "y"}}, "root_cause.suggested_actions"),
        ({"suggested_actions": ["x", "a\x00b"]}, "suggested_actions[1]"),
        ({"suggested_actions": ["x"] * 51}, "suggested_actions"),
        ({"suggested_actions": "Scale"}, "suggested_actions"),
        ({"blast_radius": ["a", " "]}, "blast_radius[1]"),
        ({"blast_radius": ["a"] * 201}, "blast_radius"),
        ({"blast_radius": "a,b"}, "blast_radius"),
        ({"tenant_id": "x"}, "tenant_id"),
    ],
)
def test_each_fault_has_one_place(changes: dict[str, Any], place: str) -> None:
    [fault] = faults_with(**changes)
    assert fault.startswith(f"{place} ")


@pytest.mark.parametrize("body", ["", "[]", "null", '"x"', "{", "5", "[" * 10_000, '{"a":' * 10_000, '{"anomaly_id": "\\ud800"}'])
def test_what_is_no_object_is_refused_whatever_it_is(body: str) -> None:
    assert faults(body)


def test_both_shapes_of_a_root_cause_say_the_same() -> None:
    flat = report(root_cause="Pool exhausted.", rca_confidence=0.5, blast_radius=["a"], suggested_actions=["x"])
    nested = {"summary": "Pool exhausted.", "confidence": 0.5, "blast_radius": ["a"], "suggested_actions": ["x"]}
    body = {key: SAMPLE[key] for key in (*REQUIRED, "environment", "metric_value")}
    shaped = AnomalyReport.model_validate_json(json.dumps({**body, "root_cause": nested}))
    assert shaped.to_anomaly() == flat.to_anomaly()
    assert shaped.to_anomaly().digest() == flat.to_anomaly().digest()


def test_top_level_keys_win_over_those_inside_the_root_cause() -> None:
    nested = {"summary": "Pool exhausted.", "confidence": 0.1, "blast_radius": ["inner"], "suggested_actions": ["inner"]}
    anomaly = report(root_cause=nested, rca_confidence=0.0).to_anomaly()
    assert anomaly.rca_confidence == 0.0
    assert anomaly.blast_radius == ("user-service", "checkout-service")
    assert anomaly.suggested_actions == ("Scale payment-api to 5 pods", "Restart pods")


@pytest.mark.parametrize("cause", ["", "   ", {"summary": " "}, None])
def test_an_empty_root_cause_is_an_absent_one(cause: object) -> None:
    anomaly = report(root_cause=cause, suggested_actions=["", "x", "  "]).to_anomaly()
    assert anomaly.root_cause is None
    assert anomaly.suggested_actions == ("x",)


SPELLINGS = [
    json.dumps(SAMPLE),
    json.dumps(dict(reversed(SAMPLE.items()))),
    json.dumps(SAMPLE).replace("0.93", "0.930").replace("87.0", "87").replace("0.92", "9.2e-1"),
    json.dumps(SAMPLE).replace("12:00:05Z", "14:00:05+02:00"),
    json.dumps(SAMPLE).replace("12:00:05Z", "12:00:05.000000z"),
    json.dumps(SAMPLE).replace('"payment-api"', '" \\u0070ayment-api "'),
    json.dumps(SAMPLE, indent=3),
]


@pytest.mark.parametrize("body", SPELLINGS)
def test_another_spelling_of_the_same_content_has_the_same_digest(body: str) -> None:
    assert AnomalyReport.model_validate_json(body).to_anomaly().digest() == report().to_anomaly().digest()


@pytest.mark.parametrize("key", ["anomaly_score", "metric_value", "rca_confidence"])
def test_minus_zero_is_zero(key: str) -> None:
    assert report(**{key: -0.0}).to_anomaly().digest() == report(**{key: 0.0}).to_anomaly().digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"service_id": "payment-apis"},
        {"metric_name": "cpu"},
        {"timestamp": "2026-04-10T12:00:06Z"},
        {"timestamp": "2026-04-10T12:00:05+02:00"},
        {"timestamp": "2026-04-10T12:00:05.000001Z"},
        {"anomaly_score": 0.9300001},
        {"environment": None},
        {"metric_value": None},
        {"root_cause": None},
        {"rca_confidence": None},
        {"blast_radius": ["checkout-service", "user-service"]},
        {"suggested_actions": []},
        {"anomaly_id": "anom-7f3e"},
    ],
)
def test_any_other_content_has_another_digest(changes: dict[str, Any]) -> None:
    assert report(**changes).to_anomaly().digest() != report().to_anomaly().digest()


reports = st.fixed_dictionaries(
    {
        "anomaly_id": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,20}", fullmatch=True).filter(
            lambda text: text.lower() != "manual"
        ),
        "service_id": st.from_regex(r"[a-z0-9*-]{1,20}", fullmatch=True),
        "metric_name": st.from_regex(r"[a-z_]{1,20}", fullmatch=True),
        "timestamp": st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)),
        "anomaly_score": st.floats(0, 1),
    },
    optional={
        "environment": st.none() | st.just("production"),
        "metric_value": st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**15), 10**15),
        "rca_confidence": st.none() | st.floats(0, 1),
        "root_cause": st.none() | st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=20),
        "blast_radius": st.lists(st.from_regex(r"[a-z-]{1,10}", fullmatch=True), max_size=3),
    },
)


@law
@given(reports, st.integers(-12 * 60, 14 * 60), st.randoms())
def test_the_digest_survives_temporal_and_every_zone_and_order(body: dict[str, Any], offset: int, shuffle: Any) -> None:
    at = body["timestamp"].replace(tzinfo=UTC)
    anomaly = AnomalyReport.model_validate_json(json.dumps({**body, "timestamp": at.isoformat()})).to_anomaly()
    keys = list(body)
    shuffle.shuffle(keys)
    elsewhere = at.astimezone(timezone(timedelta(minutes=offset))).isoformat()
    again = {key: elsewhere if key == "timestamp" else body[key] for key in keys}
    assert AnomalyReport.model_validate_json(json.dumps(again)).to_anomaly().digest() == anomaly.digest()
    carried = Anomaly.model_validate_json(anomaly.model_dump_json())
    assert carried == anomaly
    assert carried.digest() == anomaly.digest()


@pytest.mark.parametrize(
    ("score", "severity"),
    [
        (0, "low"),
        (0.3999, "low"),
        (0.4, "medium"),
        (0.5999, "medium"),
        (0.6, "high"),
        (0.7999, "high"),
        (0.8, "critical"),
        (1, "critical"),
    ],
)
def test_the_lower_bound_of_a_severity_is_inclusive(score: float, severity: str) -> None:
    assert SeverityBands().severity(score) == Severity(severity)


@law
@given(st.lists(st.floats(0, 1), min_size=3, max_size=3).map(sorted), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_score_is_never_less_severe(bounds: list[float], one: float, other: float) -> None:
    bands = SeverityBands(medium=bounds[0], high=bounds[1], critical=bounds[2])
    order = list(Severity)
    low, high = sorted((one, other))
    assert order.index(bands.severity(low)) <= order.index(bands.severity(high))


@pytest.mark.parametrize(
    "bands", [{"medium": 0.7}, {"high": 0.9}, {"critical": 0.5}, {"critical": 1.1}, {"medium": -0.1}, {"high": float("nan")}]
)
def test_bands_that_do_not_ascend_within_0_and_1_are_refused(bands: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="ascend"):
        SeverityBands(**bands)
