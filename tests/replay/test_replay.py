"""Every recorded history replays on today's workflows, under the production plugin."""

from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from tests.replay.changed import ChangedRunbookWorkflow
from tests.replay.record import HISTORIES, SCENARIOS
from workflows.connection import orchestrator_plugin
from workflows.incident import IncidentWorkflow

STORED = sorted(HISTORIES.glob("*.json"))


def history_of(path: Path) -> WorkflowHistory:
    return WorkflowHistory.from_json(path.stem, path.read_text())


def test_every_scenario_is_recorded() -> None:
    recorded = {path.name.split(".")[0] for path in STORED}
    assert recorded >= {scenario.__name__.replace("_", "-") for scenario in SCENARIOS}


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
async def test_a_recorded_history_replays(path: Path) -> None:
    await Replayer(workflows=[], plugins=[orchestrator_plugin()]).replay_workflow(history_of(path))


async def test_a_changed_workflow_does_not_replay() -> None:
    runs = [path for path in STORED if path.name.endswith(".run.json")]
    changed = Replayer(workflows=[IncidentWorkflow, ChangedRunbookWorkflow], plugins=[orchestrator_plugin(workflows=())])
    for path in runs:
        with pytest.raises(NondeterminismError):
            await changed.replay_workflow(history_of(path))
