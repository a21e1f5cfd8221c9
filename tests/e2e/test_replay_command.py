"""`infrasage replay`: recorded histories fit this code, a changed one does not, and an empty folder is no success."""

import json
from pathlib import Path

import pytest

from tests.e2e.harness import RunningStack, history, infrasage, infrasage_here, is_waiting, scale_runbook, write_runbook


@pytest.fixture
async def folder(tmp_path: Path, stack: RunningStack) -> Path:
    """The histories of an incident and its run, as they stand on the real server."""
    service = "replayed-api"
    runbook = scale_runbook(service)
    write_runbook(stack.runbooks, {**runbook, "steps": [{**runbook["steps"][0], "require_approval": True}]})
    incident_id = await stack.fire(service_id=service)
    await stack.until(incident_id, is_waiting)
    for name, workflow_id in (("incident", incident_id), ("run", f"{incident_id}/scale-out-{service}")):
        (tmp_path / f"{name}.json").write_text((await history(stack.temporal, workflow_id)).to_json())
    return tmp_path


async def test_recorded_histories_fit_this_code(folder: Path) -> None:
    outcome = await infrasage("replay", str(folder), "--json", cwd=folder)
    assert outcome.code == 0, outcome.err
    assert outcome.json["failed"] == 0
    assert [item["failure"] for item in outcome.json["histories"]] == [None, None]


async def test_a_history_that_this_code_would_not_write_is_named_and_fails(folder: Path) -> None:
    file = folder / "run.json"
    document = json.loads(file.read_text())
    scheduled = next(event for event in document["events"] if "activityTaskScheduledEventAttributes" in event)
    scheduled["activityTaskScheduledEventAttributes"]["activityType"]["name"] = "something.else"
    file.write_text(json.dumps(document))

    outcome = await infrasage("replay", str(folder), cwd=folder)

    assert outcome.code == 1
    assert "1 of 2 histories do not fit this code" in outcome.err
    line = next(line for line in outcome.out.splitlines() if line.startswith(file.name))
    assert "failed" in line


def test_an_empty_folder_or_none_is_a_failure(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        outcome = infrasage_here("replay", str(path), cwd=tmp_path)
        assert (outcome.code, outcome.out) == (1, "")
        assert outcome.err.startswith(f"Error: {path} holds no history")


def test_a_file_that_is_no_history_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text('{"events": []}')
    outcome = infrasage_here("replay", str(tmp_path), cwd=tmp_path)
    assert outcome.code == 1
    assert outcome.err.startswith(f"Error: {tmp_path / 'notes.json'} is not a workflow history")
