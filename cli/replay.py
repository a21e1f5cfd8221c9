"""`infrasage replay`: stored workflow histories against this code, with the plugin of the workers."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from temporalio.api.history.v1 import WorkflowExecutionStartedEventAttributes
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from cli.output import Failure, foreign, print_json, say, table, waiting, word
from workflows.connection import orchestrator_plugin

REASON_CHARACTERS = 300


@dataclass(frozen=True)
class Replayed:
    """What became of one history."""

    file: str
    workflow_type: str
    events: int
    failure: str | None
    """None when the code still does what the history says."""


def run_replay(folder: Path, *, as_json: bool) -> None:
    """Replay every `*.json` below `folder`. Raises: Failure when there is none, or one does not fit this code."""
    files = sorted(folder.rglob("*.json")) if folder.is_dir() else []
    if not files:
        raise Failure(f"{folder} holds no history: files *.json are looked for, as `WorkflowHistory.to_json` writes them.")
    with waiting(f"Replaying {len(files)} histories"):
        outcomes = asyncio.run(replay([(str(file.relative_to(folder)), read_history(file)) for file in files]))
    failed = [outcome for outcome in outcomes if outcome.failure is not None]
    if as_json:
        print_json({"histories": [vars(outcome) for outcome in outcomes], "failed": len(failed)})
    else:
        rows = [
            (
                item.file,
                item.workflow_type,
                str(item.events),
                word("failed" if item.failure else "succeeded"),
                foreign(item.failure),
            )
            for item in outcomes
        ]
        say(table(("history", "fixed"), "workflow", "events", "replay", "why", rows=rows))
    if failed:
        raise Failure(f"{len(failed)} of {len(outcomes)} histories do not fit this code: runs like them would be stuck.")


async def replay(histories: Sequence[tuple[str, WorkflowHistory]]) -> list[Replayed]:
    """Replay histories, each by its name; a failure is an outcome."""
    replayer = Replayer(workflows=[], plugins=[orchestrator_plugin()])
    outcomes: list[Replayed] = []
    for name, history in histories:
        failure = (await replayer.replay_workflow(history, raise_on_replay_failure=False)).replay_failure
        reason = None if failure is None else " ".join(str(failure).split())[:REASON_CHARACTERS]
        outcomes.append(Replayed(name, _started(history).workflow_type.name, len(history.events), reason))
    return outcomes


def read_history(file: Path) -> WorkflowHistory:
    """Read one stored history. Raises: Failure naming the file."""
    try:
        document: object = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(document, dict):
            raise ValueError("not an object")
        history = WorkflowHistory.from_json(file.stem, cast("dict[str, Any]", document))
        # Newer servers write the id into the first event; the file's name stands in for it.
        return WorkflowHistory(_started(history).workflow_id or file.stem, history.events)
    except (OSError, ValueError, LookupError) as error:
        raise Failure(f"{file} is not a workflow history ({type(error).__name__}).") from None


def _started(history: WorkflowHistory) -> WorkflowExecutionStartedEventAttributes:
    return history.events[0].workflow_execution_started_event_attributes
