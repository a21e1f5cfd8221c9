"""What one person alone is told: answers to slash commands and clicks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from slack_sdk.models.blocks import Block

from activities.messages.figures import instant, score
from activities.messages.foreign import one_line, paragraph
from activities.messages.parts import (
    SECTION_LIMIT,
    SlackMessage,
    buttons,
    header,
    label,
    lines,
    message,
    prose,
    view_button,
)
from domain.anomaly import Severity
from domain.approval import ApprovalStatus
from domain.incident import IncidentStatus, IncidentView, RunbookView, RunStatus, StepStatus, StepView

NAME_LIMIT = 150
SENTENCE_LIMIT = 400
INCIDENTS_SHOWN = 15
RUNS_SHOWN = 4
STEPS_SHOWN = 8
"""Of one run: those around the step it has come to."""
STEPS_BEFORE = 5
STEP_LIMIT = 120

_COMMANDS = (
    ("incidents", "the open incidents"),
    ("status <incident id>", "where one incident stands"),
    ("resolve <incident id> <what helped>", "close it; the text is remembered and shown with the next similar incident"),
    ("approve <incident id> [note]", "approve the open request of its runbook"),
    ("reject <incident id> <reason>", "reject it"),
    ("halt <incident id>", "stop its runbooks before their next step"),
    ("run <runbook> <service>", "start a runbook by hand"),
    ("help", "this list"),
)


@dataclass(frozen=True)
class IncidentLine:
    """One line of a list of incidents; what is unknown is empty or None."""

    incident_id: str
    status: str
    service_id: str = ""
    severity: Severity | None = None
    opened_at: datetime | None = None


def sentence(text: str) -> SlackMessage:
    """A plain answer, or what is wrong and what to do instead."""
    return message([prose(paragraph(text, SECTION_LIMIT) or "Nothing to say.")])


def help_answer(command: str = "/infrasage") -> SlackMessage:
    return message([label("What you can ask for"), *lines([f"{command} {usage} — {what}" for usage, what in _COMMANDS])])


def incidents_answer(incidents: Sequence[IncidentLine]) -> SlackMessage:
    """The list, in the order given."""
    if not incidents:
        return sentence("No incident is open.")
    texts = [_incident_line(incident) for incident in incidents[:INCIDENTS_SHOWN]]
    if len(incidents) > INCIDENTS_SHOWN:
        texts.append(f"… and {len(incidents) - INCIDENTS_SHOWN} more in InfraSage")
    return message([label(f"Incidents ({len(incidents)})"), *lines(texts)])


def status_answer(incident: IncidentView, runs: Sequence[RunbookView], console_url: str) -> SlackMessage:
    """Where one incident stands: what it is, what its runbooks did, and how it ended."""
    blocks: list[Block] = [header(f"{incident.incident_id} — {_words(incident.status)}"), *lines(_facts(incident))]
    for run in runs[:RUNS_SHOWN]:
        blocks += _run(run)
    if len(runs) > RUNS_SHOWN:
        blocks.append(prose(f"… and {len(runs) - RUNS_SHOWN} more runbooks in InfraSage"))
    blocks.append(buttons(view_button(console_url, incident.incident_id)))
    return message(blocks)


def _incident_line(incident: IncidentLine) -> str:
    parts = [
        one_line(incident.incident_id, NAME_LIMIT),
        one_line(incident.service_id, NAME_LIMIT),
        incident.severity.value if incident.severity else "",
        one_line(incident.status, NAME_LIMIT),
        f"since {instant(incident.opened_at)}" if incident.opened_at else "",
    ]
    return " · ".join(part for part in parts if part)


def _facts(incident: IncidentView) -> list[str]:
    anomaly = incident.anomaly
    environment = one_line(anomaly.environment or "", NAME_LIMIT)
    severity = f" ({incident.severity.value.capitalize()})" if incident.severity else ""
    return [
        f"Service: {one_line(anomaly.service_id, NAME_LIMIT)}" + (f" ({environment})" if environment else ""),
        f"Metric: {one_line(anomaly.metric_name, NAME_LIMIT)}",
        f"Score: {score(anomaly.anomaly_score)}{severity}",
        f"Detected at: {instant(anomaly.timestamp)}",
        *_story(incident),
    ]


def _story(incident: IncidentView) -> Iterable[str]:
    if not incident.alert.sent and incident.alert.reason:
        yield f"Not alerted: {one_line(incident.alert.reason, SENTENCE_LIMIT)}"
    if incident.acknowledged_by:
        yield f"Acknowledged by {one_line(incident.acknowledged_by, NAME_LIMIT)}"
    if incident.recovered_at:
        yield f"Recovered at {instant(incident.recovered_at)}"
    if resolution := incident.resolution:
        who = one_line(resolution.by.name, NAME_LIMIT)
        yield f"Resolved by {who} at {instant(resolution.at)}: {one_line(resolution.text, SENTENCE_LIMIT)}"
    if incident.closed_reason:
        yield f"Closed: {one_line(incident.closed_reason, SENTENCE_LIMIT)}"


def _run(run: RunbookView) -> Iterable[Block]:
    came_to = max((index for index, step in enumerate(run.steps) if step.status is not StepStatus.PENDING), default=0)
    first = max(min(came_to - STEPS_BEFORE, len(run.steps) - STEPS_SHOWN), 0)
    shown = run.steps[first : first + STEPS_SHOWN]
    texts = [f"{one_line(run.name, NAME_LIMIT)} — {_words(run.status)}"]
    if len(shown) < len(run.steps):
        texts.append(f"Steps {first + 1} to {first + len(shown)} of {len(run.steps)}:")
    return lines([*texts, *(_step(step) for step in shown)])


def _step(step: StepView) -> str:
    until = ""
    if step.approval and step.approval.status is ApprovalStatus.OPEN and step.approval.deadline_at:
        until = f" until {instant(step.approval.deadline_at)}"
    return f"{step.index}. {one_line(step.summary, STEP_LIMIT)} — {_words(step.status)}{until}"


def _words(status: RunStatus | StepStatus | IncidentStatus) -> str:
    return status.value.replace("_", " ")
