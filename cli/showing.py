"""Incidents as a terminal shows them: the alert and the approval card in Slack's words, steps and timeline as tables.

Pure: from the API's JSON to what rich prints.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from activities.messages.approval import approval_message
from activities.messages.parts import Surroundings
from activities.messages.terminal import to_text
from cli.output import COLOURS, foreign, instant, moment, table, word
from domain.approval import ApprovalRef, ApprovalStatus
from domain.base import Actor, Source
from domain.narration import ApprovalCard
from domain.plan import Fact

Json = Mapping[str, Any]

CARD_WIDTH_COLUMNS = 104
"""Of an alert or a card: a Historical Match fits on one line."""


def incident(story: Json, console_url: str) -> RenderableType:
    """Everything about one incident, or about a run that was started by hand."""
    parts: list[RenderableType] = [_heading(story)]
    if story["alert"]:
        parts += ["", alert(story)]
    for fault in story["faults"]:
        parts += [foreign(f"⚠️ {fault}")]
    for run in story["runbooks"]:
        parts += ["", runbook(run)]
    for run, step in open_approvals(story):
        parts += ["", card(story, run, step, console_url)]
    parts += ["", timeline(story["timeline"])]
    return Group(*parts)


def alert(story: Json) -> Panel:
    """The alert as Slack shows it, or would."""
    shown = story["alert"]
    posted = "sent to Slack" if shown["sent"] else f"not sent: {shown['reason']}" if shown["reason"] else "not sent yet"
    return boxed(to_text(shown["blocks"]), "red", posted)


def card(story: Json, run: Json, step: Json, console_url: str) -> Panel:
    """The approval card of a step: the request while it is open, its outcome afterwards."""
    blocks = approval_message(_card_of(story, run, step), Surroundings(console_url=console_url, interactive=False)).blocks
    approval = step["approval"]
    if approval["status"] == ApprovalStatus.OPEN and approval["deadline_at"] is None:
        blocks = blocks[:-1]  # the last line tells the timeout, which begins to count when Slack has the card
    return boxed(to_text(blocks), COLOURS[approval["status"]] if approval["status"] != ApprovalStatus.OPEN else "yellow")


def runbook(run: Json) -> RenderableType:
    """A run and its steps."""
    heading = Text.assemble(
        ("Runbook ", "bold"), (run["name"], "bold"), " — ", word(run["status"]), *([" (dry run)"] if run["dry_run"] else [])
    )
    if run["summary"]:
        heading.append(": ").append_text(foreign(run["summary"]))
    return Group(heading, steps(run))


def steps(run: Json) -> RenderableType:
    """The steps of a run, one line each."""
    rows = [
        (str(step["index"]), step["type"], foreign(step["summary"]), foreign(step["change"]), _standing(step))
        for step in run["steps"]
    ]
    return Padding(table("#", "type", "step", "change", ("status", "fixed"), rows=rows), (0, 0, 0, 2))


def timeline(entries: Sequence[Json]) -> Table:
    """What happened, oldest first; who did it is in the words."""
    is_one = len({entry["runbook"] for entry in entries if entry["runbook"]}) <= 1
    days = {moment(entry["at"]).date() for entry in entries}
    rows = [
        (
            _clock(entry["at"]) if len(days) == 1 else instant(entry["at"]),
            entry["action"],
            str(entry["step"] or "") if is_one else foreign(_where(entry)),
            foreign(entry["text"]),
        )
        for entry in entries
    ]
    return table(("time (UTC)", "fixed"), ("what", "fixed"), "step", "in words", rows=rows)


def open_approvals(story: Json) -> Iterator[tuple[Json, Json]]:
    """Every run and step that waits for a decision."""
    for run in story["runbooks"]:
        for step in run["steps"]:
            if step["approval"] and step["approval"]["status"] == ApprovalStatus.OPEN:
                yield run, step


def incidents(listed: Iterable[Json]) -> Table:
    """The list of incidents."""
    rows = [
        (
            item["incident_id"],
            word(item["status"]),
            word(item["severity"]),
            foreign(item["service_id"]),
            foreign(item["metric_name"]),
            "" if item["anomaly_score"] is None else f"{item['anomaly_score']:g}",
            instant(item["opened_at"]),
        )
        for item in listed
    ]
    columns = (("incident", "fixed"), ("status", "fixed"), "severity", "service", "metric", "score", ("opened (UTC)", "fixed"))
    return table(*columns, rows=rows)


def audit(rows: Iterable[Json]) -> Table:
    """The audit log."""
    lines = [
        (
            instant(row["at"]),
            row["action"],
            foreign(row["actor_name"]),
            row["source"],
            foreign(row["incident_id"]),
            foreign(_where(row)),
            foreign(row["detail"].get("text", "")),
        )
        for row in rows
    ]
    columns = (("time (UTC)", "fixed"), ("action", "fixed"), "who", "on", ("incident", "fixed"), "where", "in words")
    return table(*columns, rows=lines)


def audit_of_one(rows: Iterable[Json]) -> Table:
    """The audit log of one incident, narrower."""
    lines = [
        (_clock(row["at"]), row["action"], foreign(row["actor_name"]), row["source"], foreign(row["detail"].get("text", "")))
        for row in rows
    ]
    return table(("time", "fixed"), ("action", "fixed"), "who", "on", "in words", rows=lines)


def runbooks(listed: Iterable[Json]) -> Table:
    """The definitions."""
    rows = [(item["name"], foreign(_trigger(item["trigger"])), _steps_of(item), foreign(item["description"])) for item in listed]
    return table(("runbook", "fixed"), "started by", "steps", "description", rows=rows)


def _heading(story: Json) -> Text:
    about = [text for text in (story["service_id"], story["metric_name"], story["environment"]) if text]
    heading = Text.assemble((story["incident_id"], "bold"), "  ", word(story["status"]))
    if story["severity"]:
        heading.append("  ").append_text(word(story["severity"]))
    heading.append("  ").append_text(foreign(" · ".join(about))).append(
        f"  since {instant(story['opened_at'])} UTC", "bright_black"
    )
    if resolution := story["resolution"]:
        heading.append("\nResolved by ", "green").append_text(foreign(resolution["by"]["name"]))
        heading.append(f" at {instant(resolution['at'])} UTC: ").append_text(foreign(resolution["text"]))
    if story["recovered_at"]:
        heading.append(f"\nThe source reports recovery at {instant(story['recovered_at'])} UTC")
    if story["closed_reason"]:
        heading.append("\nClosed: ").append_text(foreign(story["closed_reason"]))
    return heading


def _standing(step: Json) -> Text:
    standing = word(step["status"])
    approval = step["approval"]
    if approval and approval["status"] != ApprovalStatus.OPEN:
        standing.append(" (").append_text(word(approval["status"]))
        if approval["decided_by"]:
            standing.append(" by ").append_text(foreign(approval["decided_by"]))
        standing.append(")")
    return standing


def _card_of(story: Json, run: Json, step: Json) -> ApprovalCard:
    approval = step["approval"]
    opened_at, deadline = moment(approval["opened_at"]), approval["deadline_at"]
    decider = approval["decided_by"]
    return ApprovalCard(
        workflow_id=run["workflow_id"],
        incident_id=story["incident_id"],
        runbook=run["name"],
        service_id=run["service_id"],
        environment=run["environment"],
        step=step["index"],
        step_count=len(run["steps"]),
        title=approval["title"],
        change=approval["change"],
        facts=tuple(Fact.model_validate(fact) for fact in approval["facts"]),
        ref=ApprovalRef.model_validate(approval["ref"]),
        # The clock starts when the card is delivered: what lies between the two is the timeout, within a moment.
        timeout=timedelta(seconds=round((moment(deadline) - opened_at).total_seconds())) if deadline else timedelta(0),
        deadline_at=moment(deadline) if deadline else None,
        status=ApprovalStatus(approval["status"]),
        decided_by=Actor(id=decider, name=decider, source=Source.SYSTEM) if decider else None,
        decided_at=moment(approval["decided_at"]) if approval["decided_at"] else None,
        reason=approval["reason"],
        recovered_at=moment(story["recovered_at"]) if story["recovered_at"] else None,
    )


def boxed(text: str, colour: str, below: str | None = None) -> Panel:
    """A message in a frame; `below` says where it is."""
    subtitle = None if below is None else foreign(below)
    return Panel(
        Text(text), border_style=colour, width=CARD_WIDTH_COLUMNS, padding=(0, 1), subtitle=subtitle, subtitle_align="right"
    )


def _clock(text: str) -> str:
    return f"{moment(text):%H:%M:%S}"


def _where(entry: Json) -> str:
    step = f" step {entry['step']}" if entry["step"] is not None else ""
    return f"{entry['runbook']}{step}".strip()


def _trigger(trigger: Json | None) -> str:
    if trigger is None:
        return "by hand only"
    metric = f" {trigger['metric_name']}" if trigger["metric_name"] else ""
    condition = f" when {trigger['condition']}" if trigger["condition"] else ""
    return f"{trigger['service_id']}{metric}{condition}"


def _steps_of(definition: Json) -> str:
    count = len(definition["steps"])
    asked = sum(1 for step in definition["steps"] if step["require_approval"])
    return f"{count}, {asked} with approval" if asked else str(count)
