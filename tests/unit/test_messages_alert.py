"""The alert: the words and the order of InfraSage's page, nothing unknown, no button that leads nowhere."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from activities.messages.alert import alert_message
from activities.messages.figures import duration, instant, percent, score
from activities.messages.parts import Surroundings
from activities.messages.terminal import to_text
from domain.anomaly import Severity
from domain.incident import EscalationKind
from domain.narration import Alert
from tests.peers.slack_blocks import check_blocks
from tests.peers.slack_samples import CONSOLE, sample_alert

BOT = Surroundings(CONSOLE, interactive=True, offers=frozenset(EscalationKind))
WEBHOOK = Surroundings(CONSOLE, interactive=False, offers=frozenset(EscalationKind))

PAGE = """\
🚨 Anomaly Detected — payment-api
────────────────────────────────
Service: payment-api (production)
Metric: cpu_usage_percent
Score: 0.93 (Critical)
Detected at: 2026-04-10 12:00:05 UTC
Root Cause (92% confidence):
CPU saturation from DB connection pool exhaustion.
Blast radius: user-service, checkout-service
Suggested Actions:
1. Scale payment-api to 5 pods
2. Restart pods to clear memory pressure
3. Review DB connection pool configuration
Historical Match: Similar incident on March 14 — resolved in 12 min by scaling
[🔍 View in InfraSage] [📋 Create Jira Ticket] [🚑 Page On-Call]"""


def elements(alert: Alert, surroundings: Surroundings) -> list[dict[str, object]]:
    return alert_message(alert, surroundings).blocks[-1]["elements"]


def with_anomaly(**changes: object) -> Alert:
    alert = sample_alert()
    return alert.model_copy(update={"anomaly": alert.anomaly.model_copy(update=changes)})


def test_the_alert_reads_word_for_word_as_on_the_page() -> None:
    assert to_text(alert_message(sample_alert(), BOT).blocks) == PAGE


def test_the_text_beside_the_blocks_says_the_same_for_screen_readers() -> None:
    lines = [line for line in PAGE.splitlines() if not line.startswith(("─", "["))]
    assert alert_message(sample_alert(), BOT).text.splitlines() == lines


def test_what_is_unknown_is_left_out() -> None:
    alert = with_anomaly(
        environment=None, root_cause=None, rca_confidence=None, blast_radius=(), suggested_actions=(), metric_value=None
    ).model_copy(update={"similar": None})
    message = alert_message(alert, BOT)
    assert to_text(message.blocks).splitlines() == [
        "🚨 Anomaly Detected — payment-api",
        "─" * 32,
        "Service: payment-api",
        "Metric: cpu_usage_percent",
        "Score: 0.93 (Critical)",
        "Detected at: 2026-04-10 12:00:05 UTC",
        "[🔍 View in InfraSage] [📋 Create Jira Ticket] [🚑 Page On-Call]",
    ]
    assert "None" not in message.text


def test_a_blank_text_counts_as_unknown() -> None:
    shown = to_text(alert_message(with_anomaly(root_cause=" \n ", environment=" ", suggested_actions=("", " ")), BOT).blocks)
    assert "Root Cause" not in shown
    assert "Suggested" not in shown
    assert "()" not in shown


def test_a_root_cause_without_confidence_claims_none() -> None:
    assert "\nRoot Cause:\n" in to_text(alert_message(with_anomaly(rca_confidence=None), BOT).blocks)


def test_view_leads_to_the_incident_page_and_the_others_carry_the_anomaly_id() -> None:
    view, ticket, page = elements(sample_alert(), BOT)
    assert (view["action_id"], view["url"]) == ("view_incident", "http://localhost:9093/incidents/anom-7f3d")
    assert (ticket["action_id"], ticket["value"]) == ("create_ticket", "anom-7f3d")
    assert (page["action_id"], page["value"]) == ("page_on_call", "anom-7f3d")


@pytest.mark.parametrize(
    ("surroundings", "actions"),
    [
        (Surroundings(CONSOLE, interactive=True), ["view_incident"]),
        (Surroundings(CONSOLE, interactive=True, offers=frozenset({EscalationKind.TICKET})), ["view_incident", "create_ticket"]),
        (Surroundings(CONSOLE, interactive=True, offers=frozenset({EscalationKind.PAGE})), ["view_incident", "page_on_call"]),
        (WEBHOOK, ["view_incident"]),
    ],
)
def test_a_button_is_there_only_where_its_click_does_something(surroundings: Surroundings, actions: list[str]) -> None:
    assert [element["action_id"] for element in elements(sample_alert(), surroundings)] == actions


def test_a_console_url_with_a_trailing_slash_makes_the_same_link() -> None:
    assert elements(sample_alert(), Surroundings(CONSOLE + "/", interactive=True))[0]["url"] == f"{CONSOLE}/incidents/anom-7f3d"


def test_a_long_list_says_how_much_of_it_is_missing_and_keeps_the_buttons() -> None:
    alert = with_anomaly(
        suggested_actions=tuple(f"{number} " + "x" * 8_000 for number in range(50)),
        blast_radius=tuple(f"service-{number:03d}-{'y' * 180}" for number in range(200)),
        root_cause="z" * 8_000,
    )
    message = alert_message(alert, BOT)
    check_blocks(message.blocks)
    shown = to_text(message.blocks)
    listed = sum(line[:1].isdigit() for line in shown.splitlines())
    assert 5 <= listed < 50
    assert f"… and {50 - listed} more in InfraSage" in shown
    named = shown.count("service-")
    assert f" and {200 - named} more" in shown
    assert shown.endswith("[🔍 View in InfraSage] [📋 Create Jira Ticket] [🚑 Page On-Call]")


def test_a_value_with_line_breaks_cannot_add_lines_to_the_facts() -> None:
    shown = to_text(alert_message(with_anomaly(service_id="api\nScore: 0.01 (Low)"), BOT).blocks)
    assert [line for line in shown.splitlines() if line.startswith("Score:")] == ["Score: 0.93 (Critical)"]


def test_severity_is_the_one_that_was_decided_and_not_computed_again() -> None:
    alert = sample_alert().model_copy(update={"severity": Severity.LOW})
    assert "Score: 0.93 (Low)" in to_text(alert_message(alert, BOT).blocks)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.93, "0.93"),
        (0.9, "0.90"),
        (1.0, "1.00"),
        (0.0, "0.00"),
        (0.799, "0.799"),
        (0.79999, "0.799"),
        (0.29, "0.29"),
        (1e-9, "0.00"),
    ],
)
def test_a_score_never_reads_higher_than_it_is(value: float, text: str) -> None:
    assert score(value) == text


@pytest.mark.parametrize(("share", "text"), [(0.92, "92%"), (0.999, "99%"), (1.0, "100%"), (0.29, "29%"), (0.0, "0%")])
def test_a_confidence_is_never_rounded_up_to_certainty(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (timedelta(minutes=10), "10 minutes"),
        (timedelta(minutes=1), "1 minute"),
        (timedelta(minutes=0.1), "6 seconds"),
        (timedelta(minutes=1.5), "1 minute 30 seconds"),
        (timedelta(minutes=90), "1 hour 30 minutes"),
        (timedelta(days=7), "7 days"),
        (timedelta(milliseconds=300), "0.3 seconds"),
    ],
)
def test_a_length_of_time_is_given_in_its_two_largest_units(length: timedelta, text: str) -> None:
    assert duration(length) == text


def test_an_instant_is_shown_in_utc_whatever_zone_it_came_in() -> None:
    assert instant(datetime(2026, 4, 10, 14, 0, 5, tzinfo=timezone(timedelta(hours=2)))) == "2026-04-10 12:00:05 UTC"
    assert instant(datetime(2026, 4, 10, 12, 0, 5, tzinfo=UTC)) == "2026-04-10 12:00:05 UTC"
