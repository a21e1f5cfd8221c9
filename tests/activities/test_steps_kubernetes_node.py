"""Cordon, uncordon and drain steps against a simulated Kubernetes API: guarded, within budgets, taken back."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import kmock
import pytest
from aiohttp import web

from activities.errors import undo_of
from cli.simulated_cluster import SimulatedCluster
from domain.plan import Undo
from domain.runbook import Step
from tests.activities.kubernetes_steps import World, a_world
from tests.activities.steps import Attempt, a_request, a_step, eventually, failure_of
from tests.peers.cluster import HandClock

NODE = "node-1"
UNCORDON = Undo(title="Uncordon node node-1", request={"action": "uncordon", "node": "node-1"})


def on_node(action: str, **keys: object) -> Step:
    return a_step(**{"type": "kubernetes", "action": action, "node": NODE, "require_approval": True, **keys})


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path, on_node("cordon")) as running:
        yield running


@pytest.fixture
async def drained(tmp_path: Path) -> AsyncIterator[World]:
    """A node with two pods to evict, and one of each kind that stays."""
    async with a_world(tmp_path, on_node("drain")) as running:
        fill(running)
        yield running


def fill(world: World) -> None:
    nodes = world.api.nodes
    nodes.add("node-2")
    nodes.add_pod("production", "payment-api-1", NODE)
    nodes.add_pod("production", "db-0", NODE, controller="StatefulSet")
    nodes.add_pod("kube-system", "log-agent", NODE, controller="DaemonSet", empty_dir=True)
    nodes.add_pod("kube-system", "static-proxy", NODE, controller=None, is_mirror=True)
    nodes.add_pod("production", "migration", NODE, controller=None, phase="Succeeded", empty_dir=True)
    nodes.add_pod("production", "payment-api-2", "node-2")


def is_cordoned(world: World) -> bool:
    return bool(world.api.nodes.node(NODE)["spec"].get("unschedulable"))


def our_cordons(world: World) -> list[bool]:
    return [write.unschedulable for write in world.api.nodes.writes if write.field_manager == "infrasage"]


def left_on_node(world: World) -> list[str]:
    return [pod["metadata"]["name"] for pod in world.api.nodes.pods(NODE)]


# Cordon and uncordon


async def test_a_cordon_is_planned_made_and_taken_back(world: World) -> None:
    request = await world.planned()
    plan = request.plan
    assert plan is not None
    assert (plan.title, plan.change, plan.observed) == ("Cordon node node-1", "schedulable → cordoned", {"is_schedulable": True})
    assert plan.request == {"action": "cordon", "node": NODE}
    assert our_cordons(world) == []
    result = await world.execute(request)
    assert (result.summary, result.undo, result.repeated) == ("Node node-1 cordoned", UNCORDON, False)
    assert is_cordoned(world)
    undone = await world.undo(result.undo)
    assert (undone.summary, undone.repeated, is_cordoned(world)) == ("Node node-1 uncordoned", False, False)
    assert (await world.undo(result.undo)).repeated
    assert our_cordons(world) == [True, False]


async def test_an_uncordon_is_the_reverse(world: World) -> None:
    world.api.nodes.set_unschedulable(NODE, True)
    request = await world.planned(a_request(on_node("uncordon")))
    assert request.plan is not None
    assert request.plan.change == "cordoned → schedulable"
    result = await world.execute(request)
    assert (result.summary, is_cordoned(world)) == ("Node node-1 uncordoned", False)
    await world.undo(result.undo)
    assert is_cordoned(world)


async def test_a_node_that_is_cordoned_already_is_success_without_an_undo(world: World) -> None:
    world.api.nodes.set_unschedulable(NODE, True)
    request = await world.planned()
    assert request.plan is not None
    assert request.plan.change == "cordoned, nothing to change"
    result = await world.execute(request)
    assert (result.summary, result.undo) == ("Node node-1 already is cordoned, nothing was changed", None)
    assert our_cordons(world) == []


async def test_the_digest_of_a_cordon_changes_with_the_node_and_not_with_its_status(world: World) -> None:
    first = await world.plan()
    world.api.nodes.touch(NODE)
    assert (await world.plan()).digest == first.digest
    world.api.nodes.set_unschedulable(NODE, True)
    assert (await world.plan()).digest != first.digest


async def test_a_cordon_after_a_lost_answer_is_not_made_twice(world: World) -> None:
    request = await world.planned()
    world.api.lose_the_answer("PATCH")
    assert undo_of(await world.fails(request)) == UNCORDON
    result = await world.execute(request, number=2)
    assert (result.repeated, result.undo, our_cordons(world)) == (True, UNCORDON, [True])


async def test_a_node_that_somebody_cordoned_since_the_plan_is_planned_again(world: World) -> None:
    request = await world.planned()
    world.api.nodes.set_unschedulable(NODE, True)
    assert (await world.fails(request)).type == "PlanChanged"


@pytest.mark.parametrize(("number", "kind"), [(1, "PlanChanged"), (2, "Conflict")])
async def test_a_plan_that_had_nothing_to_change_does_not_stand_when_the_node_moved(world: World, number: int, kind: str) -> None:
    world.api.nodes.set_unschedulable(NODE, True)
    request = await world.planned()
    world.api.nodes.set_unschedulable(NODE, False)
    assert (await world.fails(request, number=number)).type == kind
    assert our_cordons(world) == []


async def test_a_cordon_by_somebody_else_in_the_last_instant_is_a_conflict(world: World) -> None:
    request = await world.planned()
    world.api.before("PATCH", lambda: world.api.nodes.set_unschedulable(NODE, True))
    assert (await world.fails(request)).type == "Conflict"
    assert our_cordons(world) == []


async def test_a_status_of_the_kubelet_in_the_last_instant_only_makes_it_try_again(world: World) -> None:
    request = await world.planned()
    world.api.before("PATCH", lambda: world.api.nodes.touch(NODE))
    error = await world.fails(request)
    assert (error.type, error.non_retryable, our_cordons(world)) == ("Unreachable", False, [])
    await world.execute(request, number=2)
    assert our_cordons(world) == [True]


async def test_a_node_that_does_not_exist_fails_the_plan(world: World) -> None:
    error = await failure_of(world.plan(a_request(on_node("cordon", node="node-9"))))
    assert (error.type, error.message) == ("InvalidStep", "there is no node node-9")


@pytest.mark.parametrize("action", ["cordon", "uncordon", "drain"])
@pytest.mark.parametrize("hostile", ["../pods", "", "*", "a/b", "A", "node-1?dryRun=All"])
async def test_a_foreign_value_that_is_no_node_reaches_no_cluster(world: World, action: str, hostile: str) -> None:
    request = a_request(on_node(action, node="{{ service_id }}"), names={"service_id": hostile})
    error = await failure_of(world.plan(request))
    assert error.type == "InvalidStep"
    assert world.api.requests == []


async def test_a_missing_right_is_named_when_it_is_planned(world: World) -> None:
    world.api.deny("PATCH", 403, "Forbidden", "no")
    error = await failure_of(world.plan())
    assert error.type == "Refused"
    assert "patch nodes" in error.message


# Drain


async def test_the_plan_of_a_drain_names_the_pods_and_says_that_they_may_change(drained: World) -> None:
    plan = await drained.plan()
    assert (plan.title, plan.change) == ("Drain node node-1", "cordoned, then 2 pods evicted, 3 left")
    facts = {fact.label: fact.value for fact in plan.facts}
    assert facts["Pods now"] == "production/db-0, production/payment-api-1"
    assert "may be others" in facts["Evicted are"]
    assert plan.observed == {"is_schedulable": True}
    assert (drained.api.nodes.evictions, our_cordons(drained)) == ([], [])
    before = plan.digest
    drained.api.nodes.add_pod("production", "late", NODE)
    assert (await drained.plan()).digest == before
    drained.api.nodes.set_unschedulable(NODE, True)
    assert (await drained.plan()).digest != before


async def test_a_drain_evicts_what_kubectl_would_and_leaves_the_rest(drained: World) -> None:
    result = await drained.execute(await drained.planned())
    assert left_on_node(drained) == ["log-agent", "static-proxy", "migration"]
    assert sorted(drained.api.nodes.evictions) == [("production", "db-0"), ("production", "payment-api-1")]
    assert (result.summary, result.outputs) == ("Node node-1 drained: 2 pods evicted", {"pods_evicted": 2})
    assert (result.undo, our_cordons(drained)) == (UNCORDON, [True])
    await drained.undo(result.undo)
    assert not is_cordoned(drained)


async def test_a_node_is_cordoned_before_its_first_pod_is_evicted(drained: World) -> None:
    await drained.execute(await drained.planned())
    writes = [one for one in drained.api.requests if one.method in ("PATCH", "POST") and "dryRun" not in one.query]
    assert [one.method for one in writes] == ["PATCH", "POST", "POST"]


async def test_a_drain_of_a_node_that_was_cordoned_leaves_it_cordoned(drained: World) -> None:
    drained.api.nodes.set_unschedulable(NODE, True)
    request = await drained.planned()
    assert request.plan is not None
    assert request.plan.change == "already cordoned; 2 pods evicted, 3 left"
    result = await drained.execute(request)
    assert (result.undo, our_cordons(drained), result.repeated) == (None, [], False)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"controller": None}, "nothing would start it again"),
        ({"empty_dir": True}, "its emptyDir would be lost"),
    ],
)
async def test_a_pod_that_would_be_lost_refuses_the_plan_by_name(drained: World, keys: dict[str, Any], why: str) -> None:
    drained.api.nodes.add_pod("production", "precious", NODE, **keys)
    error = await failure_of(drained.plan())
    assert (error.type, error.non_retryable) == ("Refused", True)
    assert error.message == f"node node-1 has pods that may not be evicted: production/precious ({why})"


async def test_a_pod_that_would_be_lost_and_came_after_the_plan_stops_the_drain_before_it_begins(drained: World) -> None:
    request = await drained.planned()
    drained.api.nodes.add_pod("production", "precious", NODE, controller=None)
    error = await drained.fails(request)
    assert (error.type, undo_of(error)) == ("Refused", None)
    assert (our_cordons(drained), drained.api.nodes.evictions) == ([], [])


async def test_a_pod_that_would_be_lost_and_came_in_the_last_instant_is_not_evicted(drained: World) -> None:
    request = await drained.planned()
    drained.api.before("PATCH", lambda: drained.api.nodes.add_pod("production", "precious", NODE, controller=None))
    error = await drained.fails(request)
    assert (error.type, undo_of(error)) == ("StepFailed", UNCORDON)
    assert drained.api.nodes.evictions == []


async def test_a_pod_that_a_budget_holds_is_tried_again_until_it_may_go(drained: World) -> None:
    request = await drained.planned()
    drained.api.nodes.hold("production", "db-0")
    running = Attempt()
    work = asyncio.ensure_future(running.run(drained.activities.execute, request))
    await eventually(lambda: any("disruption budget" in str(beat) for beat in running.heartbeats))
    tries = [one for one in drained.api.requests if one.path.endswith("db-0/eviction")]
    await eventually(lambda: len([one for one in drained.api.requests if one.path.endswith("db-0/eviction")]) > len(tries) + 1)
    assert not work.done()
    drained.api.nodes.release("production", "db-0")
    assert (await work).outputs == {"pods_evicted": 2}
    assert drained.api.nodes.evictions.count(("production", "payment-api-1")) == 1


async def test_a_budget_that_never_allows_it_ends_with_the_step_and_its_undo(drained: World) -> None:
    drained.api.nodes.hold("production", "db-0")
    error = await drained.fails(await drained.planned(a_request(on_node("drain", timeout_seconds=0.3))))
    assert (error.type, error.non_retryable, undo_of(error)) == ("StepFailed", True, UNCORDON)
    assert error.message.startswith("node node-1 is cordoned, but not drained in time: 1 of 2 pods still there (production/db-0)")
    assert "disruption budget" in error.message


async def test_a_drain_ends_when_the_pods_are_gone_and_not_when_they_are_told(tmp_path: Path) -> None:
    clock = HandClock()
    async with a_world(tmp_path, on_node("drain"), rollout=timedelta(seconds=30), clock=clock) as world:
        fill(world)
        running = Attempt()
        work = asyncio.ensure_future(running.run(world.activities.execute, await world.planned()))
        await eventually(lambda: len(world.api.nodes.evictions) == 2)
        clock.seconds = 29
        seen = len(running.heartbeats)
        await eventually(lambda: len(running.heartbeats) > seen + 5)
        assert not work.done()
        clock.seconds = 30
        await work
        told = [one.path for one in world.api.requests if one.method == "POST" and "dryRun" not in one.query]
        assert len(told) == len(set(told)) == 2


async def test_a_pod_that_takes_the_name_of_an_evicted_one_is_another_pod(drained: World) -> None:
    request = await drained.planned()

    async def replaced(sent: kmock.Request) -> web.StreamResponse | None:
        drained.api.nodes.add_pod("production", "db-0", NODE, controller="StatefulSet")
        return await SimulatedCluster.answer(drained.api, sent)

    drained.api.trouble("POST", replaced)
    result = await drained.execute(request)
    assert drained.api.nodes.evictions == [("production", "payment-api-1")]
    assert "db-0" in left_on_node(drained)
    assert result.summary == "Node node-1 drained: 2 pods evicted"


async def test_a_drain_that_lost_its_worker_goes_on_with_what_is_left(drained: World) -> None:
    request = await drained.planned()
    drained.api.nodes.hold("production", "db-0")
    running = Attempt()
    task = asyncio.ensure_future(running.run(drained.activities.execute, request))
    await eventually(lambda: len(drained.api.nodes.evictions) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    drained.api.nodes.release("production", "db-0")
    result = await drained.execute(request, number=2)
    assert (our_cordons(drained), result.undo) == ([True], UNCORDON)
    assert drained.api.nodes.evictions == [("production", "payment-api-1"), ("production", "db-0")]
    again = await drained.execute(request, number=3)
    assert (again.repeated, again.undo, len(drained.api.nodes.evictions)) == (True, UNCORDON, 2)


async def test_a_run_that_is_cancelled_while_it_drains_reports_what_has_to_be_taken_back(drained: World) -> None:
    drained.api.nodes.hold("production", "db-0")
    running = Attempt()
    task = asyncio.ensure_future(running.run(drained.activities.execute, await drained.planned()))
    await eventually(lambda: bool(drained.api.nodes.evictions))
    running.environment.cancel()
    error = await failure_of(task)
    assert (error.type, error.message, undo_of(error)) == (
        "StepFailed",
        "the run was cancelled while node node-1 was being drained",
        UNCORDON,
    )


async def test_a_look_that_fails_for_the_moment_does_not_end_the_drain(drained: World) -> None:
    request = await drained.planned()
    drained.api.before("PATCH", lambda: drained.api.deny("GET", 503, "ServiceUnavailable", "one moment"))
    assert (await drained.execute(request)).outputs == {"pods_evicted": 2}


async def test_an_eviction_that_is_refused_ends_the_drain_with_its_undo(drained: World) -> None:
    request = await drained.planned()
    drained.api.deny("POST", 403, "Forbidden", "not for you")
    error = await drained.fails(request)
    assert (error.type, undo_of(error)) == ("StepFailed", UNCORDON)
    assert "create pods/eviction in namespace production" in error.message


async def test_a_missing_right_to_evict_is_named_when_it_is_planned_and_a_held_pod_is_no_refusal(drained: World) -> None:
    drained.api.deny("POST", 403, "Forbidden", "no")
    error = await failure_of(drained.plan())
    assert (error.type, "create pods/eviction in namespace production" in error.message) == ("Refused", True)
    drained.api.nodes.hold("production", "db-0")
    assert (await drained.plan()).change == "cordoned, then 2 pods evicted, 3 left"


async def test_a_node_without_pods_is_drained_at_once(drained: World) -> None:
    result = await drained.execute(await drained.planned(a_request(on_node("drain", node="node-2"))))
    assert result.summary == "Node node-2 drained: 1 pod evicted"
    again = await drained.planned(a_request(on_node("drain", node="node-2")))
    assert again.plan is not None
    assert ("Pods now", "none to evict") in [(fact.label, fact.value) for fact in again.plan.facts]


async def test_a_long_list_of_pods_is_clipped(drained: World) -> None:
    for number in range(110):
        drained.api.nodes.add_pod("production", f"payment-api-with-a-long-name-{number}", NODE)
    facts = {fact.label: fact.value for fact in (await drained.plan()).facts}
    assert len(facts["Pods now"]) == 300
    assert cast(str, facts["Pods now"]).endswith("…")
