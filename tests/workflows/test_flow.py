"""What steers a run: waits, called runbooks, outputs, and what a failure does."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from activities.errors import Refused, Unreachable
from domain.approval import Choice
from domain.incident import HaltRequest, RunbookResult, RunStatus, StepRequest, StepStatus
from domain.plan import StepResult
from domain.runbook import Runbook, load_runbook
from tests.workflows.world import ADA, RunOnStage, Stage, scale_runbook

SCALE = {"type": "kubernetes", "action": "scale", "namespace": "production", "deployment": "payment-api", "replicas": 5}
HOOK = {"type": "http", "method": "POST", "url": "https://example.com/hook"}
NOTE = {"type": "slack", "message": "a note"}


def book(*steps: dict[str, Any], name: str = "flow", **keys: Any) -> Runbook:
    return load_runbook({"name": name, "steps": list(steps), **keys})


def refuse(kind: str) -> Any:
    def behaviour(request: StepRequest) -> StepResult | None:
        if request.step.type == kind:
            raise Refused("the far side said no")
        return None

    return behaviour


def called(run: RunOnStage, step: int, name: str) -> RunOnStage:
    handle = run.stage.client.get_workflow_handle(f"{run.handle.id}/{step}/{name}", result_type=RunbookResult)
    return RunOnStage(run.stage, handle)


async def test_a_wait_is_a_durable_timer(stage: Stage) -> None:
    started_at = await stage.now()
    run = await stage.run(book({"type": "wait", "minutes": 90}, NOTE))
    assert (await run.result()).status is RunStatus.SUCCEEDED
    assert await stage.now() - started_at >= timedelta(minutes=90)
    assert stage.world.executed == [2]


async def test_a_halt_ends_a_wait_at_once(live_stage: Stage) -> None:
    run = await live_stage.run(book({"type": "wait", "minutes": 90}, NOTE))
    await run.when(RunStatus.RUNNING)
    await run.handle.signal("halt", HaltRequest(reason="enough", by=ADA))
    result = await run.result()
    assert (result.status, result.summary) == (RunStatus.HALTED, "enough")
    assert live_stage.world.executed == []
    assert [step.status for step in (await run.view()).steps] == [StepStatus.SKIPPED, StepStatus.SKIPPED]


async def test_a_called_runbook_runs_with_its_inputs_and_its_undos_come_back(stage: Stage) -> None:
    names: list[dict[str, Any]] = []

    def note(request: StepRequest) -> StepResult | None:
        names.append(request.names)
        return refuse("http")(request)

    stage.world.on_execute = note
    scale = book(SCALE, name="scale", inputs={"size": {"type": "integer", "default": 3}})
    caller = book({"type": "runbook", "runbook": "scale", "inputs": {"size": 7}}, HOOK, rollback_on_failure=True)
    run = await stage.run(caller, library={"scale": scale})
    result = await run.result()
    assert names[0]["size"] == 7
    assert result.status is RunStatus.ROLLED_BACK  # the hook failed, and the called runbook's scale was taken back
    assert stage.world.undone == [1]
    view = await run.view()
    assert [step.status for step in view.steps] == [StepStatus.ROLLED_BACK, StepStatus.FAILED]
    assert view.steps[0].run == f"{run.handle.id}/1/scale"


async def test_a_rejection_in_a_called_runbook_halts_the_caller(live_stage: Stage) -> None:
    caller = book({"type": "runbook", "runbook": "scale-out-payment-api"}, NOTE)
    run = await live_stage.run(caller, library={"scale-out-payment-api": scale_runbook()})
    child = called(run, 1, "scale-out-payment-api")
    await child.decide(Choice.REJECT, await child.open_request())
    result = await run.result()
    assert result.status is RunStatus.HALTED and "ada rejected" in result.summary


async def test_a_halt_passes_through_to_a_called_runbook(live_stage: Stage) -> None:
    caller = book({"type": "runbook", "runbook": "scale-out-payment-api"}, NOTE)
    run = await live_stage.run(caller, library={"scale-out-payment-api": scale_runbook()})
    child = called(run, 1, "scale-out-payment-api")
    await child.open_request()
    await run.handle.signal("halt", HaltRequest(reason="the incident was resolved", by=ADA))
    assert (await run.result()).status is RunStatus.HALTED
    assert (await child.result()).status is RunStatus.HALTED
    assert "approval.cancelled" in live_stage.world.actions


async def test_a_called_runbook_that_is_late_is_halted_and_the_step_fails(live_stage: Stage) -> None:
    caller = book({"type": "runbook", "runbook": "scale-out-payment-api", "timeout_seconds": 0.5}, NOTE)
    run = await live_stage.run(caller, library={"scale-out-payment-api": scale_runbook()})
    result = await run.result()
    assert result.status is RunStatus.FAILED and "did not end within 0.5 s" in result.summary


async def test_a_dry_run_of_a_caller_plans_what_it_calls(stage: Stage) -> None:
    run = await stage.run(
        book({"type": "runbook", "runbook": "scale"}, NOTE), library={"scale": book(SCALE, name="scale")}, dry_run=True
    )
    assert (await run.result()).status is RunStatus.SUCCEEDED
    assert stage.world.executed == []
    assert stage.world.actions.count("step.planned") == 3


async def test_outputs_of_a_named_step_can_be_used_by_later_ones(stage: Stage) -> None:
    seen: list[Any] = []

    def give(request: StepRequest) -> StepResult | None:
        seen.append(request.names.get("steps.size.replicas"))
        return StepResult(summary="done", outputs={"replicas": 5})

    stage.world.on_execute = give
    run = await stage.run(book({**SCALE, "name": "size"}, {"type": "slack", "message": "now {{ steps.size.replicas }}"}))
    assert (await run.result()).status is RunStatus.SUCCEEDED
    assert seen == [None, 5]


@pytest.mark.parametrize(
    ("on_failure", "rollback_on_failure", "status", "undone", "executed"),
    [
        ("continue", True, RunStatus.SUCCEEDED, [], [1, 3]),
        ("halt", True, RunStatus.FAILED, [], [1]),
        ("rollback", False, RunStatus.ROLLED_BACK, [1], [1]),
    ],
)
async def test_a_step_says_what_its_failure_does(
    stage: Stage, on_failure: str, rollback_on_failure: bool, status: RunStatus, undone: list[int], executed: list[int]
) -> None:
    stage.world.on_execute = refuse("http")
    run = await stage.run(book(SCALE, {**HOOK, "on_failure": on_failure}, NOTE, rollback_on_failure=rollback_on_failure))
    assert (await run.result()).status is status
    assert (stage.world.undone, stage.world.executed) == (undone, executed)


async def test_a_step_may_bring_its_own_undo(stage: Stage) -> None:
    done: list[tuple[str, str]] = []

    def note(request: StepRequest) -> StepResult | None:
        done.append((request.workflow_id.rpartition("/")[2], request.step.title))
        return refuse("slack")(request)

    stage.world.on_execute = note
    hook = {**HOOK, "undo": {"type": "http", "method": "POST", "url": "https://example.com/unhook"}}
    run = await stage.run(book(hook, NOTE, rollback_on_failure=True))
    assert (await run.result()).status is RunStatus.ROLLED_BACK
    assert done[-1] == ("undo", "POST https://example.com/unhook")


async def test_a_step_is_tried_as_often_as_it_says(stage: Stage) -> None:
    def unreachable(request: StepRequest) -> StepResult | None:
        raise Unreachable("nobody answers")

    stage.world.on_execute = unreachable
    probe = {"type": "http", "method": "GET", "url": "https://example.com/", "retry": {"attempts": 3, "backoff_seconds": 30}}
    started_at = await stage.now()
    run = await stage.run(book(probe))
    assert (await run.result()).status is RunStatus.FAILED
    assert stage.world.attempts == 3
    assert await stage.now() - started_at >= timedelta(seconds=90)


async def test_two_halts_and_a_late_signal_do_no_harm(live_stage: Stage) -> None:
    run = await live_stage.run(book({"type": "wait", "minutes": 90}))
    await run.when(RunStatus.RUNNING)
    await asyncio.gather(*(run.handle.signal("halt", HaltRequest(reason="enough", by=ADA)) for _ in range(3)))
    assert (await run.result()).status is RunStatus.HALTED
