"""`infrasage replay`: recorded histories fit this code, a changed one does not, and an empty folder is no success."""

import json
import shutil
from pathlib import Path

import pytest

from tests.e2e.harness import REPOSITORY, infrasage, infrasage_here

HISTORIES = REPOSITORY / "tests" / "replay" / "histories"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two recorded histories, enough for the command; that all of them fit is the replay test's business."""
    for file in sorted(HISTORIES.rglob("*.json"))[:2]:
        shutil.copy(file, tmp_path)
    return tmp_path


async def test_recorded_histories_fit_this_code(folder: Path) -> None:
    outcome = await infrasage("replay", str(folder), "--json", cwd=folder)
    assert outcome.code == 0, outcome.err
    assert outcome.json["failed"] == 0
    assert [item["failure"] for item in outcome.json["histories"]] == [None, None]


async def test_a_history_that_this_code_would_not_write_is_named_and_fails(folder: Path) -> None:
    file = sorted(folder.glob("*.json"))[0]
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
