"""Tickets in Jira: how one is found again, and what it says, in the Atlassian Document Format.

Foreign text only ever stands in text nodes, where nothing in it is markup
(https://developer.atlassian.com/cloud/jira/platform/apis/document/structure/).
"""

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from domain.anomaly import Anomaly
from domain.base import Durable, sha256_of
from domain.paging import anomaly_summary, clipped, incident_url, score_in_words

SUMMARY_LIMIT_CHARACTERS = 255
"""Jira's limit for a summary, which is one line."""

DESCRIPTION_LIMIT_CHARACTERS = 4_000
ROOT_CAUSE_LIMIT_CHARACTERS = 4_000
BLAST_RADIUS_LIMIT_CHARACTERS = 2_000
ACTION_LIMIT_CHARACTERS = 500
ACTIONS_LIMIT = 20
"""Together below 32,767 characters, Jira's limit for a text field."""

_NOT_IN_A_LABEL = re.compile(r"[^A-Za-z0-9._:-]")
_LABEL_LIMIT_CHARACTERS = 200

Node = dict[str, Any]


class Ticket(Durable):
    """A ticket that is there."""

    key: str
    """`OPS-123`."""
    url: str
    """Where a person finds it."""


class TicketDraft(Durable):
    """What a ticket will say."""

    label: str
    """By which it is found again."""
    summary: str
    description: dict[str, Any]
    """A document of ADF."""


def label_of(incident_id: str) -> str:
    """The label that only the ticket of this incident has: without spaces, at most 255 characters, as Jira takes them.

    An id that cannot be spelled in a label is told from one that is spelled like the result by a part of its SHA-256.
    """
    spelled = _NOT_IN_A_LABEL.sub("-", incident_id)[:_LABEL_LIMIT_CHARACTERS]
    return f"infrasage-{spelled}" if spelled == incident_id else f"infrasage-{spelled}-{sha256_of(incident_id)[:12]}"


def draft(
    *,
    incident_id: str,
    service_id: str,
    environment: str | None,
    summary: str | None,
    description: str | None,
    anomaly: Anomaly | None,
    console_url: str,
) -> TicketDraft:
    """What is known, in the order of the alert; what is unknown is left out. `summary` and `description` are the runbook's own."""
    own = clipped(summary or "", SUMMARY_LIMIT_CHARACTERS)
    known = anomaly_summary(anomaly) if anomaly else f"{service_id}: opened by a runbook"
    url = incident_url(console_url, incident_id)
    return TicketDraft(
        label=label_of(incident_id),
        summary=own or clipped(known, SUMMARY_LIMIT_CHARACTERS),
        description={
            "type": "doc",
            "version": 1,
            "content": [
                *(_paragraphs(description[:DESCRIPTION_LIMIT_CHARACTERS]) if description else ()),
                *_facts(service_id, environment, anomaly),
                _paragraph([_text("View in InfraSage", [{"type": "link", "attrs": {"href": url}}])]),
            ],
        },
    )


def _facts(service_id: str, environment: str | None, anomaly: Anomaly | None) -> Iterable[Node]:
    yield _fact("Service", f"{service_id} ({environment})" if environment else service_id)
    if anomaly is None:
        return
    value = "" if anomaly.metric_value is None else f": {anomaly.metric_value:.6g}"
    yield _fact("Metric", f"{anomaly.metric_name}{value}")
    yield _fact("Score", score_in_words(anomaly.anomaly_score))
    yield _fact("Detected at", f"{anomaly.timestamp:%Y-%m-%d %H:%M:%S} UTC")
    if anomaly.root_cause:
        confidence = "" if anomaly.rca_confidence is None else f" ({int(Decimal(repr(anomaly.rca_confidence)) * 100)}% confidence)"
        yield _paragraph([_text(f"Root Cause{confidence}:", _STRONG)])
        yield from _paragraphs(anomaly.root_cause[:ROOT_CAUSE_LIMIT_CHARACTERS])
    if anomaly.blast_radius:
        yield _fact("Blast radius", clipped(", ".join(anomaly.blast_radius), BLAST_RADIUS_LIMIT_CHARACTERS))
    shown = (clipped(action, ACTION_LIMIT_CHARACTERS) for action in anomaly.suggested_actions[:ACTIONS_LIMIT])
    actions = [action for action in shown if action]
    if actions:
        yield _paragraph([_text("Suggested Actions:", _STRONG)])
        items = [{"type": "listItem", "content": [_paragraph([_text(action)])]} for action in actions]
        yield {"type": "orderedList", "content": items}


_STRONG: list[Node] = [{"type": "strong"}]


def _fact(label: str, value: str) -> Node:
    return _paragraph([_text(f"{label}: ", _STRONG), _text(value)])


def _paragraphs(text: str) -> Iterable[Node]:
    """One paragraph a line: a text node may hold no line break, and may not be empty."""
    return [_paragraph([_text(line)]) for line in text.splitlines() if line.strip()]


def _paragraph(content: list[Node]) -> Node:
    return {"type": "paragraph", "content": content}


def _text(text: str, marks: list[Node] | None = None) -> Node:
    return {"type": "text", "text": text, "marks": marks} if marks else {"type": "text", "text": text}
