"""`infrasage replay`: stored workflow histories against this code, with the plugin of the workers."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

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
            (item.file, item.workflow_type, str(item.events), word("failed" if item.failure else "succeeded"), foreign(item.failure))
            for item in outcomes
        ]
        say(table(("history", "fixed"), "workflow", "events", "replay", "why", rows=rows))
    if failed:
        raise Failure(f"{len(failed)} of {len(outcomes)} histories do not fit this code: runs like them would be stuck.")


async def replay(histories: Sequence[tuple[str, WorkflowHistory]]) -> list[Replayed]:
    """Replay histories, each by its name; a failure is an outcome."""
    replayer = Replayer(workflows=[], plugins=[orchestrator_plugin()])
    names = {id(history): name for name, history in histories}

    async def each() -> AsyncIterator[WorkflowHistory]:
        for _, history in histories:
            yield history

    outcomes: list[Replayed] = []
    async with replayer.workflow_replay_iterator(each()) as results:
        async for result in results:
            history, failure = result.history, result.replay_failure
            outcomes.append(
                Replayed(
                    file=names[id(history)],
                    workflow_type=_type_of(history),
                    events=len(history.events),
                    failure=None if failure is None else " ".join(str(failure).split())[:REASON_CHARACTERS],
                )
            )
    return outcomes


def read_history(file: Path) -> WorkflowHistory:
    """Read one stored history. Raises: Failure naming the file."""
    try:
        document: object = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(document, dict):
            raise ValueError("not an object")
        # The id is not in the file; what the workflow reads of it was recorded under this one.
        history = WorkflowHistory.from_json(file.stem, cast("dict[str, Any]", document))
        _type_of(history)
    except (OSError, ValueError, LookupError) as error:
        raise Failure(f"{file} is not a workflow history ({type(error).__name__}).") from None
    return history


def _type_of(history: WorkflowHistory) -> str:
    return history.events[0].workflow_execution_started_event_attributes.workflow_type.name
