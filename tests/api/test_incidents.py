"""Incidents over HTTP: list, show, and what people do to them, in front of the real workflows."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from temporalio.client import Client, WorkflowExecutionStatus

from activities.errors import Unreachable
from api import reading
from domain.approval import ApprovalStatus, Choice
from domain.audit import RecordBatch
from domain.base import Source
from domain.incident import RunStatus, StepStatus, Verdict
from domain.plan import StepResult
from tests.api.edge import Edge, a_report, an_id
from tests.workflows.world import Stage, eventually, scale_runbook

INCIDENTS = "/api/v1/incidents"


async def posted(edge: Edge, **values: Any) -> str:
    report = a_report(**values)
    assert (await edge.post("/api/v1/anomalies", report)).status_code == 202
    return report["anomaly_id"]


async def shown(edge: Edge, incident_id: str) -> dict[str, Any]:
    answer = await edge.get(f"{INCIDENTS}/{incident_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def waiting(edge: Edge, incident_id: str) -> dict[str, Any]:
    """Show the incident, as soon as one of its runs waits for an approval whose clock runs."""

    async def asked() -> dict[str, Any] | None:
        incident = await shown(edge, incident_id)
        approvals = [step["approval"] for run in incident["runbooks"] for step in run["steps"] if step["approval"]]
        return incident if any(approval["deadline_at"] for approval in approvals) else None

    return await eventually(asked)


async def ended(edge: Edge, incident_id: str, status: str) -> dict[str, Any]:
    async def reached() -> dict[str, Any] | None:
        incident = await shown(edge, incident_id)
        return incident if incident["status"] == status else None

    return await eventually(reached)


# --- show ---------------------------------------------------------------------------------------------------------


async def test_an_incident_is_shown_with_its_alert_its_runs_and_one_timeline(edge: Edge, stage: Stage) -> None:
    stage.world.runbooks = (scale_runbook(),)
    incident_id = await posted(edge, root_cause="DB pool exhausted", rca_confidence=0.92)
    incident = await waiting(edge, incident_id)
    assert (incident["incident_id"], incident["status"], incident["severity"]) == (incident_id, "open", "critical")
    assert incident["alert"]["sent"] is True and incident["alert"]["reason"] is None
    assert "Anomaly Detected — payment-api" in incident["alert"]["text"]
    assert "DB pool exhausted" in json.dumps(incident["alert"]["blocks"])
    run = incident["runbooks"][0]
    assert (run["name"], run["status"]) == ("scale-out-payment-api", "awaiting_approval")
    assert [step["status"] for step in run["steps"]] == ["succeeded", "awaiting_approval", "pending"]
    assert [step["index"] for step in run["steps"]] == [1, 2, 3]
    assert run["steps"][1]["type"] == "kubernetes"
    assert run["steps"][1]["summary"] == "Scale deployment to 5 replicas"
    assert run["steps"][1]["change"] == "replicas 3 → 5"
    approval = run["steps"][1]["approval"]
    assert approval["status"] == "open" and approval["ref"]["step"] == 2 and len(approval["ref"]["digest"]) == 64
    assert run["steps"][0]["approval"] is None
    assert incident["resolution"] is None
    actions = [entry["action"] for entry in incident["timeline"]]
    assert actions[0] == "anomaly.recorded" and {"alert.sent", "runbook.started", "approval.requested"} < set(actions)
    times = [entry["at"] for entry in incident["timeline"]]
    assert times == sorted(times)


async def test_a_suppressed_incident_says_why_and_still_shows_what_the_alert_would_be(edge: Edge, stage: Stage) -> None:
    stage.world.verdict = Verdict(alert=False, reason="quiet hours 23:00–07:00 UTC")
    incident_id = await posted(edge)
    incident = await ended(edge, incident_id, "suppressed")
    assert incident["alert"]["sent"] is False and incident["alert"]["reason"] == "quiet hours 23:00–07:00 UTC"
    assert incident["alert"]["blocks"]


async def test_an_unknown_incident_is_404_on_every_route(edge: Edge) -> None:
    bodies: dict[str, Any] = {
        "resolve": {"text": "x"},
        "decision": {"decision": "approve"},
        "acknowledge": None,
        "halt": {},
        "settle": {"choice": "done"},
    }
    for unknown in (an_id(), f"manual/nothing/{an_id()}", "x" * 3_000, "'; drop", "%00"):
        assert (await edge.get(f"{INCIDENTS}/{unknown}")).status_code == 404
        for action, body in bodies.items():
            answer = await edge.post(f"{INCIDENTS}/{unknown}/{action}", body)
            assert answer.status_code == 404, (unknown, action, answer.text)


async def test_a_workflow_of_another_kind_is_not_an_incident(edge: Edge, temporal: Client) -> None:
    stranger = an_id()
    await temporal.start_workflow("SomethingElse", id=stranger, task_queue="nobody-listens")
    assert (await edge.get(f"{INCIDENTS}/{stranger}")).status_code == 404
    assert (await edge.post(f"{INCIDENTS}/{stranger}/resolve", {"text": "x"})).status_code == 404


async def test_without_a_worker_an_incident_cannot_be_shown_and_the_sentence_says_so(
    lone_edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "VIEWS_SECONDS", 0.3)
    incident_id = await posted(lone_edge)
    answer = await lone_edge.get(f"{INCIDENTS}/{incident_id}")
    assert answer.status_code == 503 and "worker" in answer.json()["detail"]
    assert int(answer.headers["Retry-After"]) > 0


# --- list ---------------------------------------------------------------------------------------------------------


async def listed(edge: Edge, **query: Any) -> list[dict[str, Any]]:
    answer = await edge.get(INCIDENTS, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["incidents"]


@pytest.mark.parametrize(
    "service",
    [
        "plain",
        "it's",
        'the "quoted"',
        "back\\slash",
        "trailing\\",
        "x' OR WorkflowType = 'IncidentWorkflow",
        "' OR ''='",
        "100%_",
        "ünïcode ☃",
        "`backtick`",
        "a;b--c",
    ],
)
async def test_a_service_filter_finds_that_service_and_nothing_else(lone_edge: Edge, service: str) -> None:
    service = f"{an_id()} {service}"
    wanted = await posted(lone_edge, service_id=service)
    await posted(lone_edge, service_id=f"{service}x")
    await posted(lone_edge, service_id=an_id())

    async def found() -> bool:
        return [item["incident_id"] for item in await listed(lone_edge, service_id=service)] == [wanted]

    await eventually(found)


async def test_the_list_is_filtered_by_status_and_bounded(edge: Edge) -> None:
    service = an_id()
    ids = [await posted(edge, service_id=service, anomaly_score=0.5 + number / 10) for number in range(3)]
    await edge.post(f"{INCIDENTS}/{ids[0]}/resolve", {"text": "done"})

    async def settled() -> bool:
        statuses = {item["incident_id"]: item["status"] for item in await listed(edge, service_id=service)}
        return statuses == {ids[0]: "resolved", ids[1]: "open", ids[2]: "open"}

    await eventually(settled)
    assert {item["incident_id"] for item in await listed(edge, service_id=service, status="open")} == set(ids[1:])
    assert [item["incident_id"] for item in await listed(edge, service_id=service, status="resolved")] == ids[:1]
    assert await listed(edge, service_id=service, status="suppressed") == []
    assert len(await listed(edge, service_id=service, limit=1)) == 1
    line = (await listed(edge, service_id=service, status="resolved"))[0]
    assert (line["service_id"], line["metric_name"], line["anomaly_score"]) == (service, "cpu_usage_percent", 0.5)
    assert line["severity"] == "critical" and line["opened_at"].endswith(("Z", "+00:00"))


async def test_an_incident_that_was_ended_in_temporal_itself_counts_as_closed(lone_edge: Edge, temporal: Client) -> None:
    service = an_id()
    incident_id = await posted(lone_edge, service_id=service)
    await temporal.get_workflow_handle(incident_id).terminate()

    async def closed() -> bool:
        return [item["incident_id"] for item in await listed(lone_edge, service_id=service, status="closed")] == [incident_id]

    await eventually(closed)
    assert await listed(lone_edge, service_id=service, status="open") == []
    answer = await lone_edge.post(f"{INCIDENTS}/{incident_id}/resolve", {"text": "x"})
    assert answer.status_code == 409 and "closed" in answer.json()["detail"]
    assert (await lone_edge.post(f"{INCIDENTS}/{incident_id}/acknowledge")).status_code == 409


# --- resolve and acknowledge --------------------------------------------------------------------------------------


async def test_a_resolution_is_stored_with_who_and_from_where(edge: Edge, stage: Stage) -> None:
    incident_id = await posted(edge)
    await ended(edge, incident_id, "open")
    answer = await edge.post(
        f"{INCIDENTS}/{incident_id}/resolve", {"text": "  Scaled to 5 pods  "}, key="admin", headers={"X-InfraSage-Source": "cli"}
    )
    assert answer.status_code == 202
    incident = await ended(edge, incident_id, "resolved")
    assert incident["resolution"]["text"] == "Scaled to 5 pods"
    assert incident["resolution"]["by"] == {"id": "key:admin", "name": "admin", "source": "cli"}
    await eventually(lambda: [row.resolution.text for row in stage.world.remembered] == ["Scaled to 5 pods"])


@pytest.mark.parametrize("header", ["slack", "console", "system", "CLI", ""])
async def test_nobody_can_claim_another_surface_than_the_command_line(edge: Edge, header: str) -> None:
    incident_id = await posted(edge)
    await edge.post(f"{INCIDENTS}/{incident_id}/resolve", {"text": "x"}, headers={"X-InfraSage-Source": header})
    incident = await ended(edge, incident_id, "resolved")
    assert incident["resolution"]["by"]["source"] == Source.API


async def test_a_second_resolution_is_409_and_says_by_whom_and_when(edge: Edge) -> None:
    incident_id = await posted(edge)
    await edge.post(f"{INCIDENTS}/{incident_id}/resolve", {"text": "first"}, key="admin")
    first = await ended(edge, incident_id, "resolved")
    answer = await edge.post(f"{INCIDENTS}/{incident_id}/resolve", {"text": "second"})
    assert answer.status_code == 409
    at = datetime.fromisoformat(first["resolution"]["at"]).astimezone(UTC)
    assert f"already resolved by admin at {at:%Y-%m-%d %H:%M:%S} UTC" in answer.json()["detail"]
    assert (await shown(edge, incident_id))["resolution"]["text"] == "first"


async def test_a_second_resolution_is_409_also_while_the_first_is_still_being_recorded(edge: Edge, stage: Stage) -> None:
    incident_id = await posted(edge)
    await ended(edge, incident_id, "open")

    def outage(batch: RecordBatch) -> None:
        raise Unreachable("ClickHouse does not answer.")

    stage.world.on_append = outage
    await edge.post(f"{INCIDENTS}/{incident_id}/resolve", {"text": "first"}, key="admin")
    await ended(edge, incident_id, "resolved")
    answer = await edge.post(f"{INCIDENTS}/{incident_id}/resolve", {"text": "second"})
    assert answer.status_code == 409 and "already resolved by admin" in answer.json()["detail"]
    found = await stage.client.get_workflow_handle(incident_id).describe()
    assert found.status is WorkflowExecutionStatus.RUNNING
    stage.world.on_append = lambda batch: None


async def test_a_resolution_needs_no_worker(lone_edge: Edge, temporal: Client) -> None:
    incident_id = await posted(lone_edge)
    answer = await lone_edge.post(f"{INCIDENTS}/{incident_id}/resolve", {"text": "done"})
    assert answer.status_code == 202
    history = await temporal.get_workflow_handle(incident_id).fetch_history()
    assert any(event.HasField("workflow_execution_signaled_event_attributes") for event in history.events)


@pytest.mark.parametrize(
    "body", [{}, {"text": ""}, {"text": "   "}, {"text": "x" * 4_001}, {"text": None}, {"text": 5}, {"text": "x", "by": "me"}]
)
async def test_a_resolution_without_a_usable_text_is_422(lone_edge: Edge, body: dict[str, Any]) -> None:
    incident_id = await posted(lone_edge)
    assert (await lone_edge.post(f"{INCIDENTS}/{incident_id}/resolve", body)).status_code == 422


async def test_somebody_can_say_that_they_are_on_it(edge: Edge) -> None:
    incident_id = await posted(edge)
    assert (await edge.post(f"{INCIDENTS}/{incident_id}/acknowledge")).status_code == 202

    async def acknowledged() -> bool:
        return (await shown(edge, incident_id))["acknowledged_by"] == "operator"

    await eventually(acknowledged)


# --- decisions ----------------------------------------------------------------------------------------------------


async def test_an_approval_runs_the_step_and_says_who_approved(edge: Edge, stage: Stage) -> None:
    stage.world.runbooks = (scale_runbook(),)
    incident_id = await posted(edge)
    await waiting(edge, incident_id)
    answer = await edge.post(f"{INCIDENTS}/{incident_id}/decision", {"decision": "approve", "reason": "looks right"})
    assert answer.status_code == 202
    assert answer.json()["runbook"] == "scale-out-payment-api" and answer.json()["step"] == 2

    async def done() -> dict[str, Any] | None:
        incident = await shown(edge, incident_id)
        return incident if incident["runbooks"][0]["status"] == "succeeded" else None

    approval = (await eventually(done))["runbooks"][0]["steps"][1]["approval"]
    assert (approval["status"], approval["decided_by"], approval["reason"]) == ("approved", "operator", "looks right")
    approved = next(event for event in stage.world.events if event.action == "approval.approved")
    assert (approved.actor, approved.source) == ("key:operator", "api")
    assert stage.world.executed == [1, 2, 3]


async def test_a_rejection_needs_no_reason_and_nothing_is_run(edge: Edge, stage: Stage) -> None:
    stage.world.runbooks = (scale_runbook(),)
    incident_id = await posted(edge)
    await waiting(edge, incident_id)
    assert (await edge.post(f"{INCIDENTS}/{incident_id}/decision", {"decision": "reject"})).status_code == 202

    async def halted() -> bool:
        return (await shown(edge, incident_id))["runbooks"][0]["status"] == "halted"

    await eventually(halted)
    assert stage.world.executed == [1]


async def test_where_nothing_is_open_a_decision_is_409(edge: Edge, stage: Stage) -> None:
    stage.world.runbooks = (scale_runbook(),)
    incident_id = await posted(edge)
    await waiting(edge, incident_id)
    path = f"{INCIDENTS}/{incident_id}/decision"
    for named in ({"runbook": "another"}, {"step": 1}, {"step": 3}, {"runbook": "scale-out-payment-api", "step": 1}):
        answer = await edge.post(path, {"decision": "approve", **named})
        assert answer.status_code == 409, named
    assert stage.world.executed == [1]
    assert (await edge.post(path, {"decision": "approve"})).status_code == 202

    async def over() -> bool:
        return (await edge.post(path, {"decision": "approve"})).status_code == 409

    await eventually(over)


async def test_where_several_are_open_a_decision_must_name_one(edge: Edge, stage: Stage) -> None:
    stage.world.runbooks = (scale_runbook(name="one"), scale_runbook(name="two"))
    incident_id = await posted(edge)

    async def both() -> bool:
        incident = await shown(edge, incident_id)
        return [run["status"] for run in incident["runbooks"]] == ["awaiting_approval"] * 2

    await eventually(both)
    path = f"{INCIDENTS}/{incident_id}/decision"
    answer = await edge.post(path, {"decision": "approve"})
    assert answer.status_code == 409
    assert "one step 2" in answer.json()["detail"] and "two step 2" in answer.json()["detail"]
    assert (await edge.post(path, {"decision": "approve", "step": 2})).status_code == 409
    assert stage.world.executed == [1, 1]
    assert (await edge.post(path, {"decision": "approve", "runbook": "two"})).json()["workflow_id"] == f"{incident_id}/two"

    async def only_two() -> bool:
        runs = {run["name"]: run["status"] for run in (await shown(edge, incident_id))["runbooks"]}
        return runs == {"one": "awaiting_approval", "two": "succeeded"}

    await eventually(only_two)


async def test_a_decision_about_a_plan_that_is_not_the_open_one_decides_nothing(edge: Edge, stage: Stage) -> None:
    stage.world.runbooks = (scale_runbook(),)
    incident_id = await posted(edge)
    incident = await waiting(edge, incident_id)
    seen = incident["runbooks"][0]["steps"][1]["approval"]["ref"]["digest"]
    path = f"{INCIDENTS}/{incident_id}/decision"
    assert (await edge.post(path, {"decision": "approve", "digest": "0" * 64})).status_code == 409
    assert stage.world.executed == [1]
    assert (await edge.post(path, {"decision": "approve", "digest": seen})).status_code == 202


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"decision": "yes"},
        {"decision": "APPROVE"},
        {"decision": "approve", "step": 0},
        {"decision": "approve", "step": "2"},
        {"decision": "approve", "step": True},
        {"decision": "approve", "reason": "x" * 1_001},
        {"decision": "approve", "digest": "short"},
        {"decision": "approve", "actor": "ada"},
    ],
)
async def test_a_decision_that_is_not_clear_is_422(edge: Edge, body: dict[str, Any]) -> None:
    assert (await edge.post(f"{INCIDENTS}/{an_id()}/decision", body)).status_code == 422


async def test_of_many_decisions_at_once_one_counts(edge: Edge, stage: Stage) -> None:
    stage.world.runbooks = (scale_runbook(),)
    incident_id = await posted(edge)
    await waiting(edge, incident_id)
    path = f"{INCIDENTS}/{incident_id}/decision"
    choices = [Choice.APPROVE, Choice.REJECT] * 10
    answers = await asyncio.gather(*(edge.post(path, {"decision": choice.value}) for choice in choices))
    assert {answer.status_code for answer in answers} <= {202, 409}

    async def over() -> dict[str, Any] | None:
        run = (await shown(edge, incident_id))["runbooks"][0]
        return run if run["status"] in (RunStatus.SUCCEEDED, RunStatus.HALTED) else None

    run = await eventually(over)
    decided = [event for event in stage.world.events if event.action in ("approval.approved", "approval.rejected")]
    assert len(decided) == 1
    assert run["steps"][1]["approval"]["status"] in (ApprovalStatus.APPROVED, ApprovalStatus.REJECTED)
    assert stage.world.executed.count(2) <= 1


async def test_a_decision_counts_from_when_its_request_arrived_and_not_from_when_its_body_was_there(
    edge: Edge, stage: Stage
) -> None:
    stage.world.runbooks = (scale_runbook(),)
    incident_id = await posted(edge)
    await waiting(edge, incident_id)
    sent_at: list[datetime] = []

    async def late() -> AsyncIterator[bytes]:
        yield b'{"decision": '
        await asyncio.sleep(0.3)
        sent_at.append(datetime.now(UTC))
        yield b'"approve"}'

    path = f"{INCIDENTS}/{incident_id}/decision"
    answer = await edge.post(path, content=late(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 202

    def approved() -> list[Any]:
        return [event for event in stage.world.events if event.action == "approval.approved"]

    await eventually(approved)
    assert datetime.fromisoformat(approved()[0].detail["received_at"]) < sent_at[0]


# --- halt and settle ----------------------------------------------------------------------------------------------


async def test_halting_stops_the_runs_and_says_which(edge: Edge, stage: Stage) -> None:
    stage.world.runbooks = (scale_runbook(name="one"), scale_runbook(name="two"))
    incident_id = await posted(edge)
    await waiting(edge, incident_id)

    async def statuses() -> dict[str, str]:
        return {run["name"]: run["status"] for run in (await shown(edge, incident_id))["runbooks"]}

    answer = await edge.post(f"{INCIDENTS}/{incident_id}/halt", {"reason": "wrong cluster", "runbook": "one"})
    assert (answer.status_code, answer.json()["runbooks"]) == (202, ["one"])

    async def one_halted() -> bool:
        return (await statuses())["one"] == "halted"

    await eventually(one_halted)
    assert (await edge.post(f"{INCIDENTS}/{incident_id}/halt")).json()["runbooks"] == ["two"]

    async def both_halted() -> bool:
        return set((await statuses()).values()) == {"halted"}

    await eventually(both_halted)
    assert (await edge.post(f"{INCIDENTS}/{incident_id}/halt", {})).status_code == 409
    assert stage.world.executed == [1, 1]


async def test_a_step_of_unknown_outcome_is_settled_by_hand(edge: Edge, stage: Stage) -> None:
    def lost(request: Any) -> StepResult | None:
        if request.number == 1:
            raise RuntimeError("the worker died")
        return None

    stage.world.runbooks = (scale_runbook(steps=[{"type": "shell", "command": "restart", "host": "web-1"}]),)
    stage.world.on_execute = lost
    incident_id = await posted(edge)

    async def unknown() -> bool:
        runs = (await shown(edge, incident_id))["runbooks"]
        return bool(runs) and runs[0]["steps"][0]["status"] == StepStatus.UNKNOWN

    await eventually(unknown)
    path = f"{INCIDENTS}/{incident_id}/settle"
    assert (await edge.post(path, {"choice": "maybe"})).status_code == 422
    assert (await edge.post(path, {"choice": "done", "step": 2})).status_code == 409
    assert (await edge.post(path, {"choice": "done"})).status_code == 202

    async def done() -> bool:
        return (await shown(edge, incident_id))["runbooks"][0]["status"] == "succeeded"

    await eventually(done)
    assert (await edge.post(path, {"choice": "done"})).status_code == 409
