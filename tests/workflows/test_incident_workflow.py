"""One incident: triage, alert, runbooks, resolution, memory; every task replayed from its history."""

from datetime import timedelta
from itertools import pairwise

import pytest

from activities.errors import Refused, Unreachable
from domain.approval import ApprovalStatus, Choice, ReplyTo
from domain.audit import RecordBatch
from domain.base import Actor
from domain.incident import (
    AcknowledgeRequest,
    EscalateRequest,
    EscalationKind,
    IncidentStatus,
    RecoverRequest,
    RunStatus,
    SlackMode,
    StepRequest,
    Verdict,
)
from domain.narration import Alert, ApprovalCard, Delivery, Note, Post, PostedMessage, Update
from domain.plan import StepResult
from tests.workflows.world import ADA, BOB, IncidentOnStage, Stage, eventually, scale_runbook


async def test_the_whole_story_is_told_in_one_thread_and_remembered(stage: Stage) -> None:
    stage.world.runbooks = (scale_runbook(),)
    incident = await stage.incident()
    run = await incident.run()
    await run.decide(Choice.APPROVE, await run.open_request())
    assert (await run.result()).status is RunStatus.SUCCEEDED
    await incident.resolve()
    view = await incident.result()
    assert view.status is IncidentStatus.RESOLVED
    assert view.resolution is not None and view.resolution.by.name == "ada"
    remembered = stage.world.remembered
    assert [(row.resolution.text, row.runbook_outcomes) for row in remembered] == [
        ("Scaled from 3 to 5 pods", {"scale-out-payment-api": "succeeded"})
    ]
    posts = [telling for telling in stage.world.tellings if isinstance(telling, Post)]
    assert isinstance(posts[0].message, Alert) and posts[0].thread is None
    assert all(post.thread == PostedMessage(channel="C0OPS", ts="1.0") for post in posts[1:])
    cards = [telling for telling in stage.world.tellings if isinstance(getattr(telling, "message", None), ApprovalCard)]
    assert isinstance(cards[0], Post) and isinstance(cards[-1], Update)
    assert isinstance(cards[-1].message, ApprovalCard) and cards[-1].message.status is ApprovalStatus.APPROVED
    times = [event.at for event in sorted(stage.world.events, key=lambda event: event.at)]
    assert all(earlier <= later for earlier, later in pairwise(times))


async def test_resolving_cancels_an_open_approval_and_halts_the_run(stage: Stage) -> None:
    stage.world.runbooks = (scale_runbook(),)
    incident = await stage.incident()
    run = await incident.run()
    await run.open_request()
    await incident.resolve(by=BOB)
    assert (await incident.result()).status is IncidentStatus.RESOLVED
    assert (await run.result()).status is RunStatus.HALTED
    assert "approval.cancelled" in stage.world.actions and "approval.rejected" not in stage.world.actions
    assert stage.world.remembered[0].runbook_outcomes == {"scale-out-payment-api": "halted"}
    assert stage.world.executed == [1]


async def test_a_suppressed_incident_is_not_alerted_but_its_runbook_asks_and_it_can_be_resolved(stage: Stage) -> None:
    stage.world.runbooks = (scale_runbook(),)
    stage.world.verdict = Verdict(alert=False, reason="quiet hours 23:00–07:00 UTC")
    incident = await stage.incident()
    run = await incident.run()
    ref = await run.open_request()
    assert (await incident.view()).status is IncidentStatus.SUPPRESSED
    await run.decide(Choice.APPROVE, ref)
    assert (await run.result()).status is RunStatus.SUCCEEDED
    await incident.resolve()
    assert (await incident.result()).status is IncidentStatus.RESOLVED
    assert "alert.suppressed" in stage.world.actions and "alert.sent" not in stage.world.actions
    messages = [telling.message for telling in stage.world.tellings if isinstance(telling, Post)]
    assert not any(isinstance(message, Alert) for message in messages)
    assert any(isinstance(message, ApprovalCard) for message in messages)
    suppressed = next(event for event in stage.world.events if event.action == "alert.suppressed")
    assert suppressed.detail["reason"] == "quiet hours 23:00–07:00 UTC"


async def test_a_second_resolution_changes_nothing(stage: Stage) -> None:
    stage.world.runbooks = (scale_runbook(),)
    incident = await stage.incident()
    run = await incident.run()
    await run.open_request()
    await stage.stop_worker()
    await incident.resolve("first")
    await incident.resolve("second", by=BOB)
    await stage.start_worker()
    view = await incident.result()
    assert view.resolution is not None and view.resolution.text == "first"
    assert stage.world.actions.count("incident.resolved") == 1
    assert len(stage.world.remembered) == 1


async def test_slack_being_down_delays_the_runbook_by_seconds_and_its_thread_is_found_later(stage: Stage) -> None:
    stage.world.runbooks = (scale_runbook(),)
    calls: list[int] = []

    def down_at_first(delivery: Delivery) -> None:
        calls.append(1)
        if len(calls) < 8:
            raise Unreachable("Slack does not answer")

    stage.world.on_deliver = down_at_first
    incident = await stage.incident()
    await stage.pass_time(timedelta(seconds=30))
    run = await incident.run()
    view = await run.view()
    assert view.started_at - (await incident.view()).opened_at <= timedelta(seconds=16)
    await stage.pass_time(timedelta(minutes=11))
    assert (await run.result()).status is RunStatus.HALTED  # nobody decided
    await incident.resolve()
    assert (await incident.result()).alert.sent
    assert "alert.sent" in stage.world.actions
    last = [telling for telling in stage.world.tellings if isinstance(telling, Post) and isinstance(telling.message, Note)][-1]
    assert last.thread is not None


async def test_an_alert_that_slack_refuses_for_good_is_recorded_and_the_runbook_runs(stage: Stage) -> None:
    stage.world.runbooks = (scale_runbook(),)
    stage.world.refusal = "channel_not_found"
    incident = await stage.incident()
    run = await incident.run()
    await run.decide(Choice.APPROVE, await run.open_request())
    assert (await run.result()).status is RunStatus.SUCCEEDED
    view = await incident.view()
    assert not view.alert.sent and view.alert.reason is not None and "channel_not_found" in view.alert.reason
    await incident.resolve()
    await incident.result()
    assert "alert.failed" in stage.world.actions and "alert.sent" not in stage.world.actions


async def test_recovery_is_noted_shown_on_the_open_card_and_closes_the_incident_a_day_later(stage: Stage) -> None:
    stage.world.runbooks = (scale_runbook(),)
    incident = await stage.incident()
    run = await incident.run()
    await run.open_request()
    recovered_at = await stage.now()
    await incident.handle.signal("recover", RecoverRequest(recovered_at=recovered_at))
    await eventually(lambda: any(f'"recovered_at":"{recovered_at:%Y}' in said and "update" in said for said in stage.world.said()))
    view = await incident.result()  # time passes: the approval expires, then a quiet day
    assert (view.status, view.closed_reason) == (IncidentStatus.CLOSED, "recovered and quiet")
    assert "incident.recovered" in stage.world.actions and "incident.closed" in stage.world.actions
    assert stage.world.remembered == []
    assert (await stage.now()) - recovered_at >= timedelta(hours=24)


async def test_an_incident_that_nobody_resolves_closes_after_thirty_days(stage: Stage) -> None:
    incident = await stage.incident()
    opened_at = await stage.now()
    view = await incident.result()
    assert (view.status, view.closed_reason) == (IncidentStatus.CLOSED, "open for too long")
    assert (await stage.now()) - opened_at >= timedelta(days=30) - timedelta(minutes=1)


async def test_an_acknowledgement_is_recorded_once(stage: Stage) -> None:
    incident = await stage.incident()
    for actor in (ADA, BOB):
        await incident.handle.signal("acknowledge", AcknowledgeRequest(by=actor, received_at=await stage.now()))
    await incident.resolve()
    view = await incident.result()
    assert view.acknowledged_by == "ada"
    assert stage.world.actions.count("incident.acknowledged") == 1


async def test_an_anomaly_that_triage_could_not_record_is_recorded_by_the_scribe(stage: Stage) -> None:
    stage.world.triage_overrides = {"recorded": False}
    batches: list[RecordBatch] = []
    stage.world.on_append = batches.append
    incident = await stage.incident()
    await incident.resolve()
    await incident.result()
    recorded = [row for batch in batches for row in batch.anomalies]
    assert [row.anomaly.anomaly_id for row in recorded] == [incident.handle.id]
    assert stage.world.actions.count("anomaly.recorded") == 1


async def test_a_failed_runbook_leaves_the_incident_open(stage: Stage) -> None:
    def refuse(request: StepRequest) -> StepResult | None:
        raise Refused("no")

    stage.world.runbooks = (scale_runbook(),)
    stage.world.on_execute = refuse
    incident = await stage.incident()
    run = await incident.run()
    assert (await run.result()).status is RunStatus.FAILED
    assert (await incident.view()).status is IncidentStatus.OPEN
    await incident.resolve("By hand")
    await incident.result()
    assert stage.world.remembered[0].runbook_outcomes == {"scale-out-payment-api": "failed"}


async def test_faults_of_runbook_files_are_told_in_the_thread(stage: Stage) -> None:
    stage.world.triage_overrides = {"faults": ("runbooks/bad.yaml: steps[0].replicas: must be a number",)}
    incident = await stage.incident()
    await incident.resolve()
    view = await incident.result()
    assert view.faults == ("runbooks/bad.yaml: steps[0].replicas: must be a number",)
    assert any("runbooks/bad.yaml" in said for said in stage.world.said())


@pytest.mark.parametrize("mode", [SlackMode.OFF, SlackMode.WEBHOOK])
async def test_the_story_works_with_less_of_slack(stage: Stage, mode: SlackMode) -> None:
    stage.world.slack = mode
    stage.world.runbooks = (scale_runbook(),)
    incident = await stage.incident()
    run = await incident.run()
    await run.decide(Choice.APPROVE, await run.open_request())
    assert (await run.result()).status is RunStatus.SUCCEEDED
    await incident.resolve()
    assert (await incident.result()).alert.sent is (mode is SlackMode.WEBHOOK)
    assert bool(stage.world.tellings) is (mode is SlackMode.WEBHOOK)


async def test_two_runbooks_of_one_incident_are_decided_apart(stage: Stage) -> None:
    stage.world.runbooks = (scale_runbook(), scale_runbook(name="restart-payment-api"))
    incident = await stage.incident()
    first, second = await incident.run(), await incident.run("restart-payment-api")
    ref = await first.open_request()
    assert ref == await second.open_request()  # the same step and plan: only the run tells them apart
    await first.decide(Choice.APPROVE, ref)
    assert (await first.result()).status is RunStatus.SUCCEEDED
    assert (await second.view()).status is RunStatus.AWAITING_APPROVAL
    await incident.resolve()
    await incident.result()
    assert stage.world.remembered[0].runbook_outcomes == {
        "scale-out-payment-api": "succeeded",
        "restart-payment-api": "halted",
    }


async def press(stage: Stage, incident: IncidentOnStage, kind: EscalationKind, by: Actor) -> None:
    """Press a button of the alert, which has to be there first."""
    await eventually(lambda: stage.world.tellings)
    reply_to = ReplyTo(channel="C0OPS", user=by.id)
    request = EscalateRequest(kind=kind, by=by, received_at=await stage.now(), reply_to=reply_to)
    await incident.handle.signal("escalate", request)


async def test_an_escalation_button_works_once_and_is_answered_in_the_thread(stage: Stage) -> None:
    stage.world.triage_overrides = {"offers": (EscalationKind.PAGE, EscalationKind.TICKET)}
    incident = await stage.incident()
    await press(stage, incident, EscalationKind.PAGE, ADA)
    await eventually(lambda: any("asked for by ada" in said for said in stage.world.said()))
    await press(stage, incident, EscalationKind.PAGE, BOB)
    await eventually(lambda: any('"op":"tell"' in said and "done already" in said for said in stage.world.said()))
    await incident.resolve()
    await incident.result()
    assert stage.world.executed == [0]
    assert stage.world.pages_resolved == [incident.handle.id]
    assert [event.actor_name for event in stage.world.events if event.action == "incident.escalated"] == ["ada"]


async def test_an_escalation_that_is_not_configured_sends_nothing(stage: Stage) -> None:
    incident = await stage.incident()
    await press(stage, incident, EscalationKind.TICKET, ADA)
    await eventually(lambda: any('"op":"tell"' in said and "not configured" in said for said in stage.world.said()))
    await incident.resolve()
    await incident.result()
    assert (stage.world.executed, stage.world.pages_resolved) == ([], [])


async def test_an_escalation_that_failed_may_be_pressed_again(stage: Stage) -> None:
    stage.world.triage_overrides = {"offers": (EscalationKind.TICKET,)}
    tries: list[int] = []

    def refuse_once(request: StepRequest) -> StepResult | None:
        tries.append(request.number)
        if len(tries) == 1:
            raise Refused("Jira said 400")
        return None

    stage.world.on_execute = refuse_once
    incident = await stage.incident()
    await press(stage, incident, EscalationKind.TICKET, ADA)
    await eventually(lambda: any("Jira said 400" in said for said in stage.world.said()))
    await press(stage, incident, EscalationKind.TICKET, ADA)
    await eventually(lambda: stage.world.executed == [0])
    await incident.resolve()
    await incident.result()
    assert stage.world.actions.count("incident.escalated") == 2
