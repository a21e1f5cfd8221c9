"""Paging: who is paged, and what the events say."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from domain.anomaly import Anomaly, Severity
from domain.paging import Routes, RoutingRule, anomaly_summary, incident_url, resolve_event, trigger_event
from tests.activities.records import an_anomaly

DESCRIPTION = Path(__file__).resolve().parents[3] / "shared" / "pagerduty-events-v2.openapi.json"
"""PagerDuty's own description of its API; it is no part of the project and lies beside the checkout where there is one."""

KEYS = {"routing_key", "event_action", "dedup_key", "payload", "links"}


def an_event(**overrides: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "incident_id": "anom-7f3d",
        "service_id": "payment-api",
        "environment": "production",
        "severity": "critical",
        "summary": None,
        "anomaly": an_anomaly("anom-7f3d"),
        "console_url": "https://infrasage.example.com",
    }
    return trigger_event(**{**values, **overrides})


def assert_valid(event: dict[str, Any]) -> None:
    """As PagerDuty documents an event; held against its own description too where that is at hand."""
    whole = {"routing_key": "e93facc04764012d7bfb002500d5d1a6", **event}
    assert set(whole) <= KEYS
    assert whole["event_action"] in ("trigger", "resolve")
    assert 1 <= len(whole["dedup_key"]) <= 255
    if whole["event_action"] == "trigger":
        payload = whole["payload"]
        assert set(payload) <= {"summary", "severity", "source", "component", "group", "custom_details"}
        assert 1 <= len(payload["summary"]) <= 1_024
        assert payload["severity"] in ("critical", "error", "warning", "info")
        assert payload["source"] == "infrasage"
        assert all(set(link) == {"href", "text"} for link in whole["links"])
        assert len(json.dumps(whole, ensure_ascii=False).encode()) < 512 * 1024
    if DESCRIPTION.is_file():
        description = json.loads(DESCRIPTION.read_text(encoding="utf-8"))
        event_schema = description["paths"]["/enqueue"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        jsonschema.Draft202012Validator({**event_schema, "components": description["components"]}).validate(whole)


def test_the_event_is_the_one_of_infrasages_own_page() -> None:
    event = an_event()
    assert event == {
        "event_action": "trigger",
        "dedup_key": "infrasage-anom-7f3d",
        "payload": {
            "summary": "CPU anomaly on payment-api: 87% CPU (score: 0.93)",
            "severity": "critical",
            "source": "infrasage",
            "component": "payment-api",
            "group": "production",
            "custom_details": {
                "anomaly_id": "anom-7f3d",
                "root_cause": "CPU saturation from DB connection pool exhaustion.",
                "blast_radius": ["user-service", "checkout-service"],
                "suggested_actions": ["Scale payment-api to 5 pods", "Restart pods"],
                "rca_confidence": 0.92,
                "infrasage_url": "https://infrasage.example.com/incidents/anom-7f3d",
            },
        },
        "links": [{"href": "https://infrasage.example.com/incidents/anom-7f3d", "text": "View in InfraSage"}],
    }
    assert_valid(event)


def test_what_is_unknown_is_left_out() -> None:
    bare = Anomaly(anomaly_id="a", service_id="s", metric_name="m", timestamp=an_anomaly("a").timestamp, anomaly_score=0.5)
    event = an_event(incident_id="a", anomaly=bare, environment=None)
    assert "group" not in event["payload"]
    assert set(event["payload"]["custom_details"]) == {"anomaly_id", "infrasage_url"}
    assert event["payload"]["summary"] == "m anomaly on s (score: 0.50)"
    assert "None" not in json.dumps(event)
    assert_valid(event)


def test_a_run_that_a_person_started_can_page_too() -> None:
    event = an_event(incident_id="manual/restart/1", anomaly=None, severity=None)
    assert event["payload"]["summary"] == "payment-api needs somebody: paged by a runbook"
    assert event["payload"]["severity"] == "error"
    assert event["payload"]["custom_details"]["infrasage_url"] == "https://infrasage.example.com/incidents/manual%2Frestart%2F1"
    assert_valid(event)


@pytest.mark.parametrize(("ours", "theirs"), [("critical", "critical"), ("high", "error"), ("medium", "warning"), ("low", "info")])
def test_every_severity_has_one_of_pagerdutys(ours: str, theirs: str) -> None:
    assert an_event(severity=Severity(ours).value)["payload"]["severity"] == theirs


def test_the_page_is_taken_back_by_its_own_key() -> None:
    event = resolve_event("anom-7f3d")
    assert event == {"event_action": "resolve", "dedup_key": an_event()["dedup_key"]}
    assert_valid(event)


@given(st.text(max_size=3_000), st.text(st.characters(codec="utf-8"), max_size=8_000))
def test_whatever_is_said_the_event_is_valid(summary: str, foreign: str) -> None:
    anomaly = an_anomaly("a", root_cause=foreign * 3, suggested_actions=(foreign,) * 50, blast_radius=("𝔵" * 200,) * 200)
    assert_valid(an_event(summary=summary, anomaly=anomaly))


def test_an_event_of_nothing_but_the_longest_texts_stays_below_512_kb() -> None:
    long = "𝔵" * 8_000
    assert_valid(
        an_event(anomaly=an_anomaly("a", root_cause=long, suggested_actions=(long,) * 50, blast_radius=("𝔵" * 200,) * 200))
    )


@pytest.mark.parametrize(
    ("metric", "value", "score", "summary"),
    [
        ("cpu_usage_percent", 87.0, 0.93, "CPU anomaly on payment-api: 87% CPU (score: 0.93)"),
        ("p99_latency_ms", 1234.5, 0.7996, "p99 latency anomaly on payment-api: 1234.5 ms p99 latency (score: 0.799)"),
        ("http_request_seconds", 0.25, 1.0, "HTTP request anomaly on payment-api: 0.25 s HTTP request (score: 1.00)"),
        ("errors", 3.0, 0.0, "errors anomaly on payment-api: 3 errors (score: 0.00)"),
        ("_percent", None, 0.5, "_percent anomaly on payment-api (score: 0.50)"),
    ],
)
def test_the_summary_is_in_words(metric: str, value: float | None, score: float, summary: str) -> None:
    assert anomaly_summary(an_anomaly("a", metric_name=metric, metric_value=value, anomaly_score=score)) == summary


def test_the_first_rule_that_matches_wins_and_the_default_comes_last() -> None:
    rules = (
        RoutingRule(service_pattern="payment-*", service_key=SecretStr("first")),
        RoutingRule(service_pattern="*-api", service_key=SecretStr("second")),
    )
    routes = Routes(rules=rules, default_key=SecretStr("default"))
    keys = {
        service: key.get_secret_value() for service in ("payment-api", "user-api", "Payment-x") if (key := routes.key_of(service))
    }
    assert keys == {"payment-api": "first", "user-api": "second", "Payment-x": "default"}
    assert Routes(rules=rules).key_of("checkout") is None
    assert Routes().key_of("checkout") is None


def test_a_key_is_never_shown() -> None:
    rule = RoutingRule(service_pattern="*", service_key=SecretStr("hunter2"))
    assert "hunter2" not in f"{rule} {rule!r} {rule.model_dump_json()}"


@pytest.mark.parametrize(
    "rule",
    [
        {"service_pattern": "", "service_key": "k"},
        {"service_pattern": "[a", "service_key": "k"},
        {"service_pattern": "*", "service_key": "a b"},
    ],
)
def test_a_rule_that_could_match_nothing_or_holds_no_key_is_refused(rule: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        RoutingRule.model_validate(rule)


def test_an_incident_has_one_address_whatever_its_id() -> None:
    assert incident_url("http://localhost:9093/", "a/../b?c") == "http://localhost:9093/incidents/a%2F..%2Fb%3Fc"
