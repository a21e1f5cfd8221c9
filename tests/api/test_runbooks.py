"""Definitions over HTTP, runs by hand, and the list of runs."""

import asyncio
from typing import Any

import pytest
from temporalio.client import Client

from domain.runbook import load_runbook
from tests.api.edge import Edge, an_id
from tests.workflows.world import Stage, eventually, scale_runbook

RUNBOOKS = "/api/v1/runbooks"


async def run_by_hand(edge: Edge, name: str, **body: Any) -> str:
    answer = await edge.post(f"{RUNBOOKS}/{name}/run", {"service_id": "payment-api", **body})
    assert answer.status_code == 202, answer.text
    return answer.json()["workflow_id"]


async def status_of(edge: Edge, workflow_id: str) -> str:
    return (await edge.get(f"/api/v1/incidents/{workflow_id}")).json()["status"]


async def test_the_definitions_are_listed_with_what_does_not_load(edge: Edge) -> None:
    edge.shelf.runbooks = (scale_runbook(),)
    edge.shelf.faults = ("broken.yaml: steps[0].replicas must be a whole number",)
    answer = (await edge.get(RUNBOOKS, key="readonly")).json()
    assert [runbook["name"] for runbook in answer["runbooks"]] == ["scale-out-payment-api"]
    assert answer["runbooks"][0]["steps"][1]["replicas"] == 5
    assert answer["faults"] == ["broken.yaml: steps[0].replicas must be a whole number"]


async def test_a_run_by_hand_waits_shows_and_is_decided_under_its_own_id(edge: Edge, stage: Stage) -> None:
    name = an_id()
    edge.shelf.runbooks = (scale_runbook(name=name),)
    workflow_id = await run_by_hand(edge, name, environment="staging", inputs={}, dry_run=False)
    assert workflow_id == f"manual/{name}/1"

    async def asked() -> bool:
        return await status_of(edge, workflow_id) == "awaiting_approval"

    await eventually(asked)
    shown = (await edge.get(f"/api/v1/incidents/{workflow_id}")).json()
    assert shown["kind"] == "run" and shown["alert"] is None and shown["environment"] == "staging"
    assert shown["runbooks"][0]["started_by"] == "operator"
    assert shown["timeline"][0]["action"] == "runbook.started"
    answer = await edge.post(f"/api/v1/incidents/{workflow_id}/decision", {"decision": "approve"})
    assert answer.status_code == 202

    async def done() -> bool:
        return await status_of(edge, workflow_id) == "succeeded"

    await eventually(done)
    assert stage.world.executed == [1, 2, 3]
    assert {event.incident_id for event in stage.world.events} == {workflow_id}


async def test_a_run_by_hand_can_be_halted_and_is_no_incident_to_resolve(edge: Edge) -> None:
    name = an_id()
    edge.shelf.runbooks = (scale_runbook(name=name),)
    workflow_id = await run_by_hand(edge, name)

    async def asked() -> bool:
        return await status_of(edge, workflow_id) == "awaiting_approval"

    await eventually(asked)
    path = f"/api/v1/incidents/{workflow_id}"
    assert (await edge.post(f"{path}/resolve", {"text": "x"})).status_code == 409
    assert (await edge.post(f"{path}/acknowledge")).status_code == 409
    assert (await edge.post(f"{path}/halt", {"reason": "enough"})).status_code == 202

    async def halted() -> bool:
        return await status_of(edge, workflow_id) == "halted"

    await eventually(halted)


async def test_a_dry_run_plans_and_executes_nothing(edge: Edge, stage: Stage) -> None:
    name = an_id()
    edge.shelf.runbooks = (scale_runbook(name=name),)
    workflow_id = await run_by_hand(edge, name, dry_run=True)

    async def done() -> bool:
        return await status_of(edge, workflow_id) == "succeeded"

    await eventually(done)
    assert stage.world.executed == []
    assert (await edge.get(f"/api/v1/incidents/{workflow_id}")).json()["runbooks"][0]["dry_run"] is True


async def test_runs_that_are_started_at_once_get_numbers_of_their_own(lone_edge: Edge) -> None:
    name = an_id()
    lone_edge.shelf.runbooks = (scale_runbook(name=name),)
    ids = await asyncio.gather(*(run_by_hand(lone_edge, name) for _ in range(20)))
    assert len(set(ids)) == 20
    assert {int(workflow_id.rsplit("/", 1)[1]) for workflow_id in ids} >= set(range(1, 21))


async def test_the_number_of_an_ended_run_is_not_given_again(lone_edge: Edge, temporal: Client) -> None:
    name = an_id()
    lone_edge.shelf.runbooks = (scale_runbook(name=name),)
    first = await run_by_hand(lone_edge, name)
    await temporal.get_workflow_handle(first).terminate()
    assert await run_by_hand(lone_edge, name) == f"manual/{name}/2"


async def test_a_runbook_whose_name_begins_like_another_has_numbers_of_its_own(lone_edge: Edge) -> None:
    name = an_id()
    lone_edge.shelf.runbooks = (scale_runbook(name=name), scale_runbook(name=f"{name}-2"))
    await run_by_hand(lone_edge, f"{name}-2")
    assert await run_by_hand(lone_edge, name) == f"manual/{name}/1"


async def test_an_unknown_runbook_is_404_and_says_what_there_is(edge: Edge) -> None:
    edge.shelf.runbooks = (scale_runbook(),)
    answer = await edge.post(f"{RUNBOOKS}/nothing/run", {"service_id": "payment-api"})
    assert answer.status_code == 404 and "scale-out-payment-api" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "service_id"),
        ({"service_id": ""}, "service_id"),
        ({"service_id": "x", "inputs": None}, "inputs"),
        ({"service_id": "x", "dry_run": "true"}, "dry_run"),
        ({"service_id": "x", "dryrun": True}, "dryrun"),
    ],
)
async def test_a_run_that_is_not_clear_is_422_and_starts_nothing(edge: Edge, body: dict[str, Any], path: str) -> None:
    edge.shelf.runbooks = (scale_runbook(),)
    answer = await edge.post(f"{RUNBOOKS}/scale-out-payment-api/run", body)
    assert answer.status_code == 422
    assert [fault["path"] for fault in answer.json()["errors"]] == [path]


async def test_inputs_are_held_against_those_that_the_runbook_declares(edge: Edge) -> None:
    name = an_id()
    steps = [{"type": "slack", "message": "a"}]
    edge.shelf.runbooks = (load_runbook({"name": name, "steps": steps, "inputs": {"size": {"type": "integer"}}}),)
    for inputs, sentence in (
        ({"replicas": 3}, "'replicas' is not an input of this runbook; its inputs are: size."),
        ({}, "the input 'size' has no default and must be given."),
        ({"size": "3"}, "the input 'size' must be of type integer."),
    ):
        answer = await edge.post(f"{RUNBOOKS}/{name}/run", {"service_id": "payment-api", "inputs": inputs})
        assert (answer.status_code, answer.json()["detail"]) == (422, sentence)
    answer = await edge.post(f"{RUNBOOKS}/{name}/run", {"service_id": "payment-api", "inputs": {"size": 3}})
    assert answer.status_code == 202


async def test_the_list_of_runs_finds_those_that_wait_for_an_approval(edge: Edge) -> None:
    name, service = an_id(), an_id()
    edge.shelf.runbooks = (scale_runbook(name=name),)
    waiting = await run_by_hand(edge, name, service_id=service)
    dry = await run_by_hand(edge, name, service_id=service, dry_run=True)

    async def runs(**query: str) -> dict[str, str]:
        answer = await edge.get("/api/v1/runs", params={"runbook": name, **query})
        return {run["workflow_id"]: run["status"] for run in answer.json()["runs"]}

    async def both() -> bool:
        return await runs() == {waiting: "awaiting_approval", dry: "succeeded"}

    await eventually(both)
    assert await runs(status="awaiting_approval", service_id=service) == {waiting: "awaiting_approval"}
    assert await runs(service_id="another") == {}
