"""One run: plan, gate, execute, report, undo; played on the server that skips time, every task replayed from its history."""

import asyncio
from datetime import timedelta

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError

from activities.errors import Conflict, OutcomeUnknown, PlanChanged, Refused
from domain.approval import ApprovalStatus, Choice
from domain.audit import RecordBatch
from domain.incident import HaltRequest, RunStatus, SettleRequest, SlackMode, StepRequest, StepStatus
from domain.narration import Delivery
from domain.plan import StepResult
from domain.runbook import load_runbook
from tests.workflows.world import ADA, BOB, Stage, eventually, hasty

TWO_SCALES = load_runbook(
    {
        "name": "two-scales",
        "steps": [
            {"type": "kubernetes", "action": "scale", "namespace": "production", "deployment": name, "replicas": 5}
            for name in ("payment-api", "checkout-api")
        ]
        + [{"type": "http", "method": "POST", "url": "https://example.com/hook"}],
        "rollback_on_failure": True,
    }
)


async def test_an_approved_run_executes_every_step_once_and_records_who_approved(stage: Stage) -> None:
    run = await stage.run()
    await run.decide(Choice.APPROVE, await run.open_request(), reason="go")
    result = await run.result()
    assert result.status is RunStatus.SUCCEEDED
    assert stage.world.executed == [1, 2, 3]
    approved = next(event for event in stage.world.events if event.action == "approval.approved")
    assert (approved.actor, approved.actor_name, approved.source, approved.step) == ("U0ADA", "ada", "slack", 2)
    assert approved.detail["reason"] == "go"
    assert stage.world.actions == [
        "runbook.started",
        "step.succeeded",
        "approval.requested",
        "approval.approved",
        "step.succeeded",
        "step.succeeded",
        "runbook.finished",
    ]
    assert [execution.status for execution in stage.world.executions] == ["succeeded"]


async def test_a_rejected_step_is_not_executed_and_the_run_halts(stage: Stage) -> None:
    run = await stage.run()
    await run.decide(Choice.REJECT, await run.open_request(), reason="not at noon")
    result = await run.result()
    assert (result.status, stage.world.executed) == (RunStatus.HALTED, [1])
    assert "ada rejected" in result.summary and "not at noon" in result.summary
    view = await run.view()
    assert [step.status for step in view.steps] == [StepStatus.SUCCEEDED, StepStatus.SKIPPED, StepStatus.SKIPPED]
    assert view.steps[1].approval is not None and view.steps[1].approval.status is ApprovalStatus.REJECTED


async def test_silence_expires_and_is_not_called_a_rejection(stage: Stage) -> None:
    run = await stage.run()
    result = await run.result()  # time passes meanwhile
    assert (result.status, stage.world.executed) == (RunStatus.HALTED, [1])
    assert "approval.expired" in stage.world.actions and "approval.rejected" not in stage.world.actions
    view = await run.view()
    approval = view.steps[1].approval
    assert approval is not None and approval.status is ApprovalStatus.EXPIRED
    assert approval.deadline_at is not None and approval.deadline_at - approval.opened_at >= timedelta(minutes=10)


async def test_a_click_received_after_the_deadline_is_refused_even_if_no_worker_was_up_at_the_deadline(
    live_stage: Stage,
) -> None:
    run = await live_stage.run(hasty(minutes=0.02))
    ref = await run.open_request()
    await live_stage.stop_worker()
    await asyncio.sleep(1.3)  # the deadline passes; nobody is there to see it
    await run.decide(Choice.APPROVE, ref)
    await live_stage.start_worker()
    result = await run.result()
    assert (result.status, live_stage.world.executed) == (RunStatus.HALTED, [1])
    assert "approval.refused" in live_stage.world.actions and "approval.approved" not in live_stage.world.actions


async def test_a_click_received_in_time_counts_although_its_worker_came_back_after_the_deadline(live_stage: Stage) -> None:
    run = await live_stage.run(hasty(minutes=0.02))
    ref = await run.open_request()
    await live_stage.stop_worker()
    await run.decide(Choice.APPROVE, ref)
    await asyncio.sleep(1.3)
    await live_stage.start_worker()
    assert (await run.result()).status is RunStatus.SUCCEEDED
    assert live_stage.world.executed == [1, 2, 3]


async def test_a_click_while_no_worker_is_up_counts_when_one_comes_back_in_time(stage: Stage) -> None:
    run = await stage.run()
    ref = await run.open_request()
    await stage.stop_worker()
    await run.decide(Choice.APPROVE, ref)
    await stage.start_worker()
    assert (await run.result()).status is RunStatus.SUCCEEDED
    assert stage.world.executed == [1, 2, 3]


async def test_a_second_click_by_the_same_person_changes_nothing_and_is_answered(stage: Stage) -> None:
    run = await stage.run()
    ref = await run.open_request()
    await run.decide(Choice.APPROVE, ref)
    await run.decide(Choice.REJECT, ref)
    await run.decide(Choice.APPROVE, ref, by=BOB)
    assert (await run.result()).status is RunStatus.SUCCEEDED
    assert stage.world.actions.count("approval.approved") == 1
    assert stage.world.actions.count("approval.refused") == 2
    answers = [said for said in stage.world.said() if '"op":"tell"' in said]
    assert "already approved by you" in answers[0] and "already approved by ada" in answers[1]


@pytest.mark.parametrize("change", [{"step": 1}, {"step": 9}, {"round": 2}, {"digest": "0" * 64}])
async def test_a_click_on_another_request_decides_nothing(stage: Stage, change: dict[str, int | str]) -> None:
    run = await stage.run()
    ref = await run.open_request()
    await run.decide(Choice.APPROVE, ref.model_copy(update=change))
    await eventually(lambda: any('"op":"tell"' in said for said in stage.world.said()))
    assert (await run.view()).status is RunStatus.AWAITING_APPROVAL
    await run.decide(Choice.REJECT, ref)
    assert (await run.result()).status is RunStatus.HALTED
    assert stage.world.executed == [1]


async def test_a_halt_cancels_an_open_approval_and_is_not_a_rejection(stage: Stage) -> None:
    run = await stage.run()
    await run.open_request()
    await run.handle.signal("halt", HaltRequest(reason="the incident was resolved", by=ADA))
    result = await run.result()
    assert (result.status, result.summary) == (RunStatus.HALTED, "the incident was resolved")
    assert "approval.cancelled" in stage.world.actions and "approval.rejected" not in stage.world.actions


async def test_a_failed_step_rolls_back_what_was_done_in_reverse_order(stage: Stage) -> None:
    def refuse_the_last(request: StepRequest) -> StepResult | None:
        if request.number == 3:
            raise Refused("the hook answered 400")
        return None

    stage.world.on_execute = refuse_the_last
    run = await stage.run(TWO_SCALES)
    result = await run.result()
    assert result.status is RunStatus.ROLLED_BACK
    assert stage.world.undone == [2, 1]
    view = await run.view()
    assert [step.status for step in view.steps] == [StepStatus.ROLLED_BACK, StepStatus.ROLLED_BACK, StepStatus.FAILED]
    assert stage.world.actions.count("step.rolled_back") == 2


async def test_a_rollback_that_cannot_be_done_ends_failed_and_names_what_is_left(stage: Stage) -> None:
    def refuse_the_last(request: StepRequest) -> StepResult | None:
        if request.number == 3:
            raise Refused("the hook answered 400")
        return None

    def refuse_the_first(request: object) -> None:
        if getattr(request, "number", 0) == 1:
            raise Conflict("somebody scaled it to 9")

    stage.world.on_execute = refuse_the_last
    stage.world.on_undo = refuse_the_first
    run = await stage.run(TWO_SCALES)
    result = await run.result()
    assert result.status is RunStatus.FAILED
    assert "Scale back to 3" in result.summary and "somebody scaled it to 9" in result.summary
    assert stage.world.undone == [2]


async def test_without_rollback_on_failure_nothing_is_taken_back(stage: Stage) -> None:
    def refuse(request: StepRequest) -> StepResult | None:
        if request.number == 3:
            raise Refused("no")
        return None

    stage.world.on_execute = refuse
    run = await stage.run(TWO_SCALES.model_copy(update={"rollback_on_failure": False}))
    assert (await run.result()).status is RunStatus.FAILED
    assert stage.world.undone == []


async def test_a_world_that_moved_after_the_approval_is_planned_and_asked_again(stage: Stage) -> None:
    def move_once(request: StepRequest) -> StepResult | None:
        if request.step.type == "kubernetes" and stage.world.replicas == 3:
            stage.world.replicas = 4
            raise PlanChanged("payment-api has 4 replicas, the plan saw 3")
        return None

    stage.world.on_execute = move_once
    run = await stage.run()
    first = await run.open_request()
    await run.decide(Choice.APPROVE, first)
    second = await run.open_request(round=2)
    assert second.digest != first.digest
    await run.decide(Choice.APPROVE, first)  # a click on the card that is no longer true
    await run.decide(Choice.APPROVE, second)
    assert (await run.result()).status is RunStatus.SUCCEEDED
    assert stage.world.actions.count("approval.requested") == 2
    assert stage.world.actions.count("approval.refused") == 1


@pytest.mark.parametrize(
    ("choice", "status", "executions"),
    [("done", RunStatus.SUCCEEDED, 0), ("retry", RunStatus.SUCCEEDED, 1), ("halt", RunStatus.HALTED, 0)],
)
async def test_an_unknown_outcome_is_never_repeated_without_a_human(
    stage: Stage, choice: str, status: RunStatus, executions: int
) -> None:
    tries: list[int] = []

    def lose_the_first(request: StepRequest) -> StepResult | None:
        tries.append(request.number)
        if len(tries) == 1:
            raise OutcomeUnknown("the connection broke after the request was sent")
        return None

    stage.world.on_execute = lose_the_first
    runbook = load_runbook({"name": "hook", "steps": [{"type": "http", "method": "POST", "url": "https://example.com/hook"}]})
    run = await stage.run(runbook)
    await run.noted("step.unknown")
    assert tries == [1]
    request = SettleRequest.model_validate({"step": 1, "choice": choice, "by": ADA, "received_at": await stage.now()})
    await run.handle.signal("settle", request)
    assert (await run.result()).status is status
    assert len(stage.world.executed) == executions
    assert "step.unknown" in stage.world.actions and "step.settled" in stage.world.actions


async def test_a_dry_run_plans_everything_executes_nothing_and_asks_nobody(stage: Stage) -> None:
    run = await stage.run(dry_run=True)
    result = await run.result()
    assert (result.status, stage.world.executed) == (RunStatus.SUCCEEDED, [])
    assert "approval.requested" not in stage.world.actions
    assert stage.world.actions.count("step.planned") == 3
    assert any("replicas 3 → 5" in said for said in stage.world.said())


@pytest.mark.parametrize(("condition", "executed"), [("anomaly_score > 0.99", [2]), ("anomaly_score > 0.5", [1, 2])])
async def test_a_step_whose_condition_is_false_is_skipped(stage: Stage, condition: str, executed: list[int]) -> None:
    runbook = load_runbook(
        {"name": "when", "steps": [{"type": "slack", "message": "a", "when": condition}, {"type": "slack", "message": "b"}]}
    )
    run = await stage.run(runbook)
    assert (await run.result()).status is RunStatus.SUCCEEDED
    assert stage.world.executed == executed


async def test_a_condition_that_cannot_be_evaluated_halts_the_run(stage: Stage) -> None:
    runbook = load_runbook({"name": "when", "steps": [{"type": "slack", "message": "a", "when": "metric_value > 3"}]})
    run = await stage.run(runbook)  # this anomaly has no metric_value
    result = await run.result()
    assert (result.status, stage.world.executed) == (RunStatus.HALTED, [])
    assert "metric_value > 3" in result.summary


async def test_an_outage_of_clickhouse_delays_the_close_and_loses_nothing(stage: Stage) -> None:
    outages: list[int] = []

    def fail_at_first(batch: RecordBatch) -> None:
        outages.append(len(batch.audit))
        if len(outages) < 6:
            raise Refused("Table is in readonly mode") if len(outages) % 2 else PlanChanged("anything else that is permanent")

    stage.world.on_append = fail_at_first
    run = await stage.run(load_runbook({"name": "one", "steps": [{"type": "slack", "message": "a"}]}))
    assert (await run.result()).status is RunStatus.SUCCEEDED
    assert stage.world.actions == ["runbook.started", "step.succeeded", "runbook.finished"]
    assert len(outages) >= 6


async def test_slack_being_down_delays_an_approval_by_seconds_and_the_run_ends_all_the_same(stage: Stage) -> None:
    def down(delivery: Delivery) -> None:
        raise Refused("Slack is down")

    stage.world.on_deliver = down
    run = await stage.run()
    assert (await run.result()).status is RunStatus.HALTED  # nobody decided
    approval = (await run.view()).steps[1].approval
    assert approval is not None and approval.deadline_at is not None
    assert approval.deadline_at - approval.opened_at <= timedelta(minutes=10, seconds=16)
    assert stage.world.executed == [1]


async def test_cancelling_during_a_step_leaves_it_unknown_and_writes_that_down(live_stage: Stage) -> None:
    running = asyncio.Event()

    def hang(request: StepRequest) -> StepResult | None:
        running.set()
        return None

    live_stage.world.on_execute = hang
    live_stage.world.execute_delay = timedelta(seconds=30)
    run = await live_stage.run(load_runbook({"name": "one", "steps": [{"type": "shell", "command": "sleep", "host": "a"}]}))
    await running.wait()
    await run.handle.cancel()
    with pytest.raises(WorkflowFailureError):
        await run.result()
    assert "step.unknown" in live_stage.world.actions and "runbook.finished" in live_stage.world.actions
    assert live_stage.world.executed == []


async def test_a_payload_that_cannot_be_read_fails_the_run_at_once(live_stage: Stage) -> None:
    handle = await live_stage.client.start_workflow(
        "RunbookWorkflow", {"incident_id": 7}, id="bad-payload/run", task_queue=live_stage.queue
    )
    with pytest.raises(WorkflowFailureError) as failure:
        await asyncio.wait_for(handle.result(), 10)
    assert isinstance(failure.value.cause, ApplicationError) and failure.value.cause.type == "PayloadInvalid"


async def test_a_signal_that_cannot_be_read_is_recorded_and_changes_nothing(stage: Stage) -> None:
    run = await stage.run()
    ref = await run.open_request()
    await run.handle.signal("decide", {"choice": "perhaps"})
    await run.handle.signal("decide", "approve")
    await run.decide(Choice.REJECT, ref)
    assert (await run.result()).status is RunStatus.HALTED
    assert stage.world.actions.count("approval.refused") == 2


async def test_without_slack_nothing_is_delivered_and_the_run_still_asks(stage: Stage) -> None:
    stage.world.slack = SlackMode.OFF
    run = await stage.run(slack=SlackMode.OFF, thread=None)
    await run.decide(Choice.APPROVE, await run.open_request())
    assert (await run.result()).status is RunStatus.SUCCEEDED
    assert stage.world.tellings == []
