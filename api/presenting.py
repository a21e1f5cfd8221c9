"""Incidents and runs as JSON: the shape that the contract promises, joined from the views of the workflows. Pure functions."""

from typing import Any

from activities.messages.alert import alert_message
from activities.messages.parts import Surroundings
from api.reading import ListedIncident, ListedRun, Story
from domain.anomaly import SeverityBands
from domain.incident import IncidentView, RunbookView, TimelineEntry
from domain.narration import Alert


def presented(story: Story, bands: SeverityBands, surroundings: Surroundings) -> dict[str, Any]:
    """One incident: `status`, `alert`, `runbooks`, `timeline`, `resolution`, and what else is known.

    A run started by hand has the same keys; its `status` is the run's, and `anomaly` and `alert` are null.
    """
    runs = [presented_run(run) for run in story.runs]
    if story.incident is None:
        run = story.runs[0]
        return {
            "incident_id": story.id,
            "kind": "run",
            "status": run.status.value,
            "severity": None,
            "service_id": run.service_id,
            "metric_name": None,
            "environment": run.environment,
            "anomaly": None,
            "similar": None,
            "alert": None,
            "runbooks": runs,
            "faults": [],
            "opened_at": _json(run)["started_at"],
            "acknowledged_by": None,
            "recovered_at": None,
            "resolution": None,
            "closed_reason": None,
            "timeline": _timeline(run.timeline),
        }
    view = story.incident
    shown = _json(view)
    entries = [*view.timeline, *(entry for run in story.runs for entry in run.timeline)]
    return {
        "incident_id": story.id,
        "kind": "incident",
        "status": view.status.value,
        "severity": shown["severity"],
        "service_id": view.anomaly.service_id,
        "metric_name": view.anomaly.metric_name,
        "environment": view.anomaly.environment,
        "anomaly": shown["anomaly"],
        "similar": shown["similar"],
        "alert": {**shown["alert"], **_alert(view, bands, surroundings)},
        "runbooks": runs,
        "faults": shown["faults"],
        "opened_at": shown["opened_at"],
        "acknowledged_by": view.acknowledged_by,
        "recovered_at": shown["recovered_at"],
        "resolution": shown["resolution"],
        "closed_reason": view.closed_reason,
        "timeline": _timeline(entries),
    }


def presented_run(run: RunbookView) -> dict[str, Any]:
    """One run with its steps; the timeline is the incident's."""
    shown = _json(run)
    del shown["timeline"]
    return shown


def listed_incident(item: ListedIncident) -> dict[str, Any]:
    return {
        "incident_id": item.incident_id,
        "status": item.status.value,
        "service_id": item.service_id,
        "severity": item.severity,
        "metric_name": item.metric_name,
        "anomaly_score": item.anomaly_score,
        "opened_at": item.opened_at,
        "closed_at": item.closed_at,
    }


def listed_run(item: ListedRun) -> dict[str, Any]:
    return {
        "workflow_id": item.workflow_id,
        "runbook": item.runbook,
        "service_id": item.service_id,
        "status": item.status.value,
        "started_at": item.started_at,
        "finished_at": item.finished_at,
    }


def _alert(view: IncidentView, bands: SeverityBands, surroundings: Surroundings) -> dict[str, Any]:
    """The alert as Slack shows it, or would: built here anew, whether it was sent or not."""
    severity = view.severity or bands.severity(view.anomaly.anomaly_score)
    message = alert_message(Alert(anomaly=view.anomaly, severity=severity, similar=view.similar), surroundings)
    return {"text": message.text, "blocks": message.blocks}


def _timeline(entries: list[TimelineEntry] | tuple[TimelineEntry, ...]) -> list[dict[str, Any]]:
    """Oldest first. The sort is stable: what one workflow did within one instant stays in its order."""
    return [_json(entry) for entry in sorted(entries, key=lambda entry: entry.at)]


def _json(model: IncidentView | RunbookView | TimelineEntry) -> dict[str, Any]:
    return model.model_dump(mode="json")
