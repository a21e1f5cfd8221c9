"""The alert of an anomaly, in the words and the order of InfraSage's own page; what is unknown is left out."""

from collections.abc import Iterable, Sequence

from slack_sdk.models.blocks import Block, ButtonElement

from activities.messages.figures import instant, percent, score
from activities.messages.foreign import clipped, one_line, paragraph, size
from activities.messages.parts import (
    SlackMessage,
    Surroundings,
    button,
    buttons,
    divider,
    header,
    label,
    lines,
    message,
    prose,
    view_button,
)
from domain.anomaly import Anomaly
from domain.incident import EscalationKind
from domain.memory import historical_match
from domain.narration import Alert

TICKET_ACTION = "create_ticket"
PAGE_ACTION = "page_on_call"

NAME_LIMIT = 200
ROOT_CAUSE_LIMIT = 2_500
BLAST_RADIUS_LIMIT = 1_000
ACTION_LIMIT = 400
ACTIONS_LIMIT = 2_500
"""Of all suggested actions together."""
MATCH_LIMIT = 800


def alert_message(alert: Alert, surroundings: Surroundings) -> SlackMessage:
    """Draw the alert. The buttons for a ticket and for paging are there only where a click does something."""
    anomaly = alert.anomaly
    blocks: list[Block] = [
        header(f"🚨 Anomaly Detected — {one_line(anomaly.service_id, 120)}"),
        divider(),
        *lines(_facts(alert)),
        *_root_cause(anomaly),
        *_blast_radius(anomaly.blast_radius),
        *_suggested_actions(anomaly.suggested_actions),
        *_historical_match(alert),
        buttons(*_buttons(anomaly.anomaly_id, surroundings)),
    ]
    return message(blocks)


def _facts(alert: Alert) -> list[str]:
    anomaly = alert.anomaly
    environment = one_line(anomaly.environment or "", NAME_LIMIT)
    return [
        f"Service: {one_line(anomaly.service_id, NAME_LIMIT)}" + (f" ({environment})" if environment else ""),
        f"Metric: {one_line(anomaly.metric_name, NAME_LIMIT)}",
        f"Score: {score(anomaly.anomaly_score)} ({alert.severity.value.capitalize()})",
        f"Detected at: {instant(anomaly.timestamp)}",
    ]


def _root_cause(anomaly: Anomaly) -> Iterable[Block]:
    cause = paragraph(anomaly.root_cause or "", ROOT_CAUSE_LIMIT)
    if not cause:
        return
    confidence = "" if anomaly.rca_confidence is None else f" ({percent(anomaly.rca_confidence)} confidence)"
    yield label(f"Root Cause{confidence}:")
    yield prose(cause)


def _blast_radius(services: Sequence[str]) -> Iterable[Block]:
    names = _bounded([name for name in (one_line(service, NAME_LIMIT) for service in services) if name], BLAST_RADIUS_LIMIT)
    if names:
        more = len(services) - len(names)
        yield prose(f"Blast radius: {', '.join(names)}" + (f" and {more} more" if more else ""))


def _suggested_actions(actions: Sequence[str]) -> Iterable[Block]:
    texts = [text for text in (one_line(action, ACTION_LIMIT) for action in actions) if text]
    shown = _bounded(texts, ACTIONS_LIMIT)
    if shown:
        numbered = [f"{number}. {text}" for number, text in enumerate(shown, start=1)]
        if len(shown) < len(texts):
            numbered.append(f"… and {len(texts) - len(shown)} more in InfraSage")
        yield label("Suggested Actions:")
        yield from lines(numbered)


def _historical_match(alert: Alert) -> Iterable[Block]:
    if alert.similar:
        match = one_line(historical_match(alert.similar, alert.anomaly.timestamp), MATCH_LIMIT)
        yield prose(f"Historical Match: {match}")


def _buttons(anomaly_id: str, surroundings: Surroundings) -> Iterable[ButtonElement]:
    yield view_button(surroundings.console_url, anomaly_id)
    if surroundings.interactive and EscalationKind.TICKET in surroundings.offers:
        yield button("📋 Create Jira Ticket", TICKET_ACTION, anomaly_id)
    if surroundings.interactive and EscalationKind.PAGE in surroundings.offers:
        yield button("🚑 Page On-Call", PAGE_ACTION, anomaly_id)


def _bounded(texts: Sequence[str], limit: int) -> list[str]:
    """The first of `texts` that fit `limit` Slack characters together, at least one if there is one."""
    kept: list[str] = []
    used = 0
    for text in texts:
        used += size(text) + len(", ")
        if kept and used > limit:
            break
        kept.append(clipped(text, limit))
    return kept
