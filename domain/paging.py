"""Paging through PagerDuty: who is paged for which service, and what the events say.

The shape of the events is InfraSage's own; the API is PagerDuty's Events API v2
(https://developer.pagerduty.com/docs/events-api-v2-overview).
"""

import re
from collections.abc import Iterable, Sequence
from decimal import ROUND_DOWN, Decimal
from fnmatch import fnmatchcase
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import AfterValidator, SecretStr

from domain.anomaly import Anomaly
from domain.base import Durable, Glob

SUMMARY_LIMIT_CHARACTERS = 1_024
"""https://developer.pagerduty.com/docs/send-alert-event: longer summaries are cut off by PagerDuty."""

_TEXT_LIMIT_CHARACTERS = 1_000
_ACTIONS_LIMIT = 50
"""Events may have 512 KB (same page): 50 actions and 200 services stay below it even with four bytes a character."""

_ROOT_CAUSE_LIMIT_CHARACTERS = 4_000

SEVERITIES = {"critical": "critical", "high": "error", "medium": "warning", "low": "info"}
"""Ours → PagerDuty's."""

UNKNOWN_SEVERITY = "error"
"""Of a page that no anomaly started: somebody is called, so it is no warning."""


def one_secret(value: SecretStr) -> SecretStr:
    """Refuse what cannot be a key or a token; a line break at its end is the usual cause."""
    if not re.fullmatch("[!-~]+", value.get_secret_value()):
        raise ValueError("must be one word of printable ASCII characters without spaces")
    return value


class RoutingRule(Durable):
    """Which key pages for the services that match a glob; case matters."""

    service_pattern: Glob
    service_key: Annotated[SecretStr, AfterValidator(one_secret)]


class Routes(Durable):
    """Who is paged: the first rule that matches, else the default key."""

    rules: tuple[RoutingRule, ...] = ()
    default_key: SecretStr | None = None

    def key_of(self, service_id: str) -> SecretStr | None:
        """The routing key of a service; None when nobody is paged for it."""
        for rule in self.rules:
            if fnmatchcase(service_id, rule.service_pattern):
                return rule.service_key
        return self.default_key


class PageResolve(Durable):
    """Input of `page.resolve`: the incident is over, whoever is on call need not come."""

    incident_id: str
    service_id: str


def dedup_key(incident_id: str) -> str:
    """One incident is one page, however often it is triggered; at most 255 characters, as PagerDuty takes them."""
    return f"infrasage-{incident_id}"


def incident_url(console_url: str, incident_id: str) -> str:
    """The page of an incident in the console."""
    return f"{console_url.rstrip('/')}/incidents/{quote(incident_id, safe='')}"


def trigger_event(
    *,
    incident_id: str,
    service_id: str,
    environment: str | None,
    severity: str | None,
    summary: str | None,
    anomaly: Anomaly | None,
    console_url: str,
) -> dict[str, Any]:
    """The event that pages, without its routing key. What is unknown is left out.

    severity: one of `domain.anomaly.Severity`. summary: of the runbook's own; absent, what is known of the anomaly.
    """
    url = incident_url(console_url, incident_id)
    own = clipped(summary or "", SUMMARY_LIMIT_CHARACTERS)
    known = anomaly_summary(anomaly) if anomaly else f"{service_id} needs somebody: paged by a runbook"
    return {
        "event_action": "trigger",
        "dedup_key": dedup_key(incident_id),
        "payload": _known(
            summary=own or clipped(known, SUMMARY_LIMIT_CHARACTERS),
            severity=SEVERITIES.get(severity or "", UNKNOWN_SEVERITY),
            source="infrasage",
            component=service_id,
            group=environment,
            custom_details=_details(incident_id, anomaly, url),
        ),
        "links": [{"href": url, "text": "View in InfraSage"}],
    }


def resolve_event(incident_id: str) -> dict[str, Any]:
    """The event that takes the page back, without its routing key."""
    return {"event_action": "resolve", "dedup_key": dedup_key(incident_id)}


def _details(incident_id: str, anomaly: Anomaly | None, url: str) -> dict[str, Any]:
    if anomaly is None:
        return {"anomaly_id": incident_id, "infrasage_url": url}
    return _known(
        anomaly_id=incident_id,
        root_cause=clipped(anomaly.root_cause, _ROOT_CAUSE_LIMIT_CHARACTERS) if anomaly.root_cause else None,
        blast_radius=list(anomaly.blast_radius) or None,
        suggested_actions=[clipped(text, _TEXT_LIMIT_CHARACTERS) for text in anomaly.suggested_actions[:_ACTIONS_LIMIT]] or None,
        rca_confidence=anomaly.rca_confidence,
        infrasage_url=url,
    )


def _known(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


# --- the summary --------------------------------------------------------------------------------------------------

_UNITS: Sequence[tuple[str, str]] = (
    ("_percent", "%"),
    ("_milliseconds", " ms"),
    ("_ms", " ms"),
    ("_seconds", " s"),
    ("_bytes", " B"),
)
_ACRONYMS = frozenset({"api", "cpu", "db", "dns", "gc", "gpu", "http", "io", "jvm", "ram", "rpc", "sql", "tcp", "tls"})


def anomaly_summary(anomaly: Anomaly) -> str:
    """`CPU anomaly on payment-api: 87% CPU (score: 0.93)`, for the metric `cpu_usage_percent` with the value 87."""
    metric, unit = _metric(anomaly.metric_name)
    score = f"score: {score_in_words(anomaly.anomaly_score)}"
    if anomaly.metric_value is None:
        return f"{metric} anomaly on {anomaly.service_id} ({score})"
    return f"{metric} anomaly on {anomaly.service_id}: {anomaly.metric_value:.6g}{unit} {metric} ({score})"


def score_in_words(score: float) -> str:
    """Two decimals, a third where it matters; cut, not rounded: 0.7996 is below 0.8 and must not read 0.80, as in the alert."""
    return str(Decimal(repr(score)).quantize(Decimal("0.001"), ROUND_DOWN)).removesuffix("0")


def _metric(name: str) -> tuple[str, str]:
    """The metric in words, and the unit that its name ends with."""
    suffix, unit = next(((suffix, unit) for suffix, unit in _UNITS if name.endswith(suffix)), ("", ""))
    stem = name.removesuffix(suffix).removesuffix("_usage")
    return _in_words(stem.split("_")) or name, unit


def _in_words(words: Iterable[str]) -> str:
    return " ".join(word.upper() if word in _ACRONYMS else word for word in words if word)


def clipped(text: str, limit: int) -> str:
    """At most `limit` characters on one line, the last one an ellipsis where something was cut."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
