"""Tickets: the label by which one is found, and a description in which foreign text is only text."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.anomaly import Anomaly
from domain.tickets import TicketDraft, draft, label_of
from tests.activities.records import an_anomaly
from tests.peers.jira import faults_of


def a_draft(**overrides: Any) -> TicketDraft:
    values: dict[str, Any] = {
        "incident_id": "anom-7f3d",
        "service_id": "payment-api",
        "environment": "production",
        "summary": None,
        "description": None,
        "anomaly": an_anomaly("anom-7f3d"),
        "console_url": "https://infrasage.example.com",
    }
    return draft(**{**values, **overrides})


def texts_of(node: Any) -> Iterator[str]:
    """Every text node's text, in order."""
    if node.get("type") == "text":
        yield node["text"]
    for child in node.get("content", []):
        yield from texts_of(child)


def lines_of(ticket: TicketDraft) -> list[str]:
    blocks: list[str] = []
    for block in ticket.description["content"]:
        items = block["content"] if block["type"] == "orderedList" else [block]
        blocks += ["".join(texts_of(item)) for item in items]
    return blocks


def test_a_ticket_says_what_the_alert_says_in_its_order() -> None:
    ticket = a_draft()
    assert ticket.label == "infrasage-anom-7f3d"
    assert ticket.summary == "CPU anomaly on payment-api: 87% CPU (score: 0.93)"
    assert lines_of(ticket) == [
        "Service: payment-api (production)",
        "Metric: cpu_usage_percent: 87",
        "Score: 0.93",
        "Detected at: 2026-04-10 12:00:05 UTC",
        "Root Cause (92% confidence):",
        "CPU saturation from DB connection pool exhaustion.",
        "Blast radius: user-service, checkout-service",
        "Suggested Actions:",
        "Scale payment-api to 5 pods",
        "Restart pods",
        "View in InfraSage",
    ]
    assert ticket.description["content"][-1]["content"][0]["marks"] == [
        {"type": "link", "attrs": {"href": "https://infrasage.example.com/incidents/anom-7f3d"}}
    ]
    assert list(faults_of(ticket.description)) == []


def test_what_is_unknown_is_left_out() -> None:
    bare = Anomaly(anomaly_id="a", service_id="s", metric_name="m", timestamp=an_anomaly("a").timestamp, anomaly_score=0.5)
    ticket = a_draft(service_id="s", environment=None, anomaly=bare)
    assert lines_of(ticket) == [
        "Service: s",
        "Metric: m",
        "Score: 0.50",
        "Detected at: 2026-04-10 12:00:05 UTC",
        "View in InfraSage",
    ]
    assert "None" not in ticket.model_dump_json()


def test_the_runbooks_own_words_come_first() -> None:
    ticket = a_draft(summary="Scaled\n twice", description="First line\n\nSecond line", anomaly=None)
    assert ticket.summary == "Scaled twice"
    assert lines_of(ticket) == ["First line", "Second line", "Service: payment-api (production)", "View in InfraSage"]


@given(st.text(max_size=600), st.text(max_size=600), st.text(min_size=1, max_size=300))
def test_whatever_it_says_it_is_a_document_and_foreign_text_is_text(cause: str, action: str, summary: str) -> None:
    ticket = a_draft(
        summary=summary, description=cause, anomaly=an_anomaly("a", root_cause=cause, suggested_actions=(action, action))
    )
    assert list(faults_of(ticket.description)) == []
    assert len(ticket.summary) <= 255
    assert not set(ticket.summary) & {"\n", "\r"}


@pytest.mark.parametrize(
    "foreign", ['{"type": "mention"}', "[~admin] {code}", "*b* |a| !x.png!", "<b>&amp;</b>", "https://evil.example"]
)
def test_markup_in_foreign_text_stays_text(foreign: str) -> None:
    ticket = a_draft(anomaly=an_anomaly("a", root_cause=foreign))
    node = next(node for node in ticket.description["content"] if list(texts_of(node)) == [foreign])
    assert node == {"type": "paragraph", "content": [{"type": "text", "text": foreign}]}


def test_the_longest_texts_stay_below_the_limit_of_a_field() -> None:
    long = "x" * 8_000
    anomaly = an_anomaly("a", root_cause=long, suggested_actions=(long,) * 50, blast_radius=("y" * 200,) * 200)
    assert len(json.dumps(a_draft(description=long, anomaly=anomaly).description)) < 32_767


@pytest.mark.parametrize("incident_id", ["anom-7f3d", "a.b_c:d-e", "x" * 128])
def test_an_anomaly_id_is_its_label(incident_id: str) -> None:
    assert label_of(incident_id) == f"infrasage-{incident_id}"


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=230), min_size=2, max_size=2, unique=True))
def test_no_two_incidents_have_one_label_and_every_label_can_be_searched_for(ids: list[str]) -> None:
    first, second = (label_of(incident_id) for incident_id in ids)
    assert first != second
    for label in (first, second):
        assert len(label) <= 255
        assert not set(label) & set(" \t\n\"'\\")


def test_a_run_that_was_started_by_hand_is_not_mistaken_for_an_anomaly() -> None:
    assert label_of("manual/restart/1") != label_of("manual-restart-1")
    assert label_of("manual/restart/1").startswith("infrasage-manual-restart-1-")
