"""Restart steps against a simulated Kubernetes API: once however often they are tried, guarded by what the plan saw."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from activities.errors import undo_of
from domain.plan import Undo
from domain.runbook import Step
from tests.activities.kubernetes_steps import WHERE, World, a_world
from tests.activities.steps import Attempt, a_request, a_step, eventually, failure_of
from tests.peers.cluster import HandClock

STAMP = "2026-04-10T12:00:05.000000Z"
ANNOTATION = "kubectl.kubernetes.io/restartedAt"


def a_restart(**keys: object) -> Step:
    where = {"namespace": "production", "deployment": "payment-api"}
    return a_step(**{"type": "kubernetes", "action": "restart", **where, "require_approval": True, **keys})


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path, a_restart()) as running:
        yield running


def restarted_at(world: World) -> str | None:
    template = world.api.deployment(*WHERE)["spec"]["template"]
    return template["metadata"].get("annotations", {}).get(ANNOTATION)


def restart_by_somebody_else(world: World, stamp: str = "2026-04-10T14:00:00+02:00") -> None:
    changed = world.api.deployment(*WHERE)
    changed["spec"]["template"]["metadata"]["annotations"] = {ANNOTATION: stamp}
    world.api.workloads.store(changed, "kubectl")


async def test_the_plan_tells_which_revision_and_how_many_pods(world: World) -> None:
    plan = await world.plan()
    assert (plan.title, plan.change) == (
        "Restart deployment payment-api",
        "revision 1 restarted: 3 pods replaced one after the other",
    )
    assert ("Image", "payment-api:2.3.0") in [(fact.label, fact.value) for fact in plan.facts]
    assert plan.request == {"action": "restart", "namespace": "production", "deployment": "payment-api"}
    assert (plan.observed["revision"], plan.observed["restarted_at"]) == (1, None)
    assert world.our_templates == []


async def test_a_deployment_that_recreates_its_pods_says_that_all_stop_at_once(world: World) -> None:
    changed = world.api.deployment(*WHERE)
    changed["spec"]["strategy"] = {"type": "Recreate"}
    world.api.workloads.store(changed, "kubectl")
    assert (await world.plan()).change == "revision 1 restarted: 3 pods stopped at once and then started anew"


async def test_the_digest_stays_while_the_world_does_and_changes_with_it(world: World) -> None:
    first = await world.plan()
    world.api.workloads.touch(*WHERE)
    world.api.set_replicas(*WHERE, 4)
    assert (await world.plan()).digest == first.digest
    later = a_request(world.step).model_copy(update={"fixed_at": a_request(world.step).fixed_at + timedelta(hours=1)})
    assert (await world.plan(later)).digest == first.digest
    restart_by_somebody_else(world)
    assert (await world.plan()).digest != first.digest


async def test_a_restart_writes_its_time_once_in_our_name_and_leaves_no_undo(world: World) -> None:
    result = await world.execute(await world.planned())
    assert restarted_at(world) == STAMP
    assert world.our_templates == ["payment-api:2.3.0"]
    assert result.summary == "payment-api restarted: 3 pods replaced one after the other"
    assert (result.undo, result.repeated, world.revision) == (None, False, "2")


async def test_a_restart_keeps_the_other_annotations_of_the_template(world: World) -> None:
    changed = world.api.deployment(*WHERE)
    changed["spec"]["template"]["metadata"]["annotations"] = {"prometheus.io/scrape": "true"}
    world.api.workloads.store(changed, "kubectl")
    await world.execute(await world.planned())
    annotations = world.api.deployment(*WHERE)["spec"]["template"]["metadata"]["annotations"]
    assert annotations == {"prometheus.io/scrape": "true", ANNOTATION: STAMP}


async def test_a_restart_after_a_lost_answer_is_not_made_twice(world: World) -> None:
    request = await world.planned()
    world.api.lose_the_answer("PATCH")
    assert (await world.fails(request)).type == "Unreachable"
    result = await world.execute(request, number=2)
    assert result.repeated
    assert len(world.our_templates) == 1


async def test_a_second_attempt_does_what_the_first_could_not(world: World) -> None:
    result = await world.execute(await world.planned(), number=2)
    assert not result.repeated
    assert len(world.our_templates) == 1


@pytest.mark.parametrize(("number", "kind"), [(1, "PlanChanged"), (2, "Conflict")])
async def test_a_deployment_that_somebody_restarted_meanwhile_is_not_restarted_again(world: World, number: int, kind: str) -> None:
    request = await world.planned()
    restart_by_somebody_else(world)
    error = await world.fails(request, number=number)
    assert (error.type, error.non_retryable) == (kind, True)
    assert "was restarted at 2026-04-10T14:00:00+02:00" in error.message
    assert world.our_templates == []


async def test_another_image_since_the_plan_is_planned_again(world: World) -> None:
    request = await world.planned()
    world.api.set_image(*WHERE, "payment-api:2.3.1")
    assert (await world.fails(request)).type == "PlanChanged"
    assert world.our_templates == []


async def test_a_deploy_in_the_last_instant_is_a_conflict(world: World) -> None:
    request = await world.planned()
    world.api.before("PATCH", lambda: world.api.set_image(*WHERE, "payment-api:2.3.1"))
    error = await world.fails(request)
    assert (error.type, error.non_retryable) == ("Conflict", True)
    assert (world.our_templates, restarted_at(world)) == ([], None)


async def test_a_status_in_the_last_instant_only_makes_it_try_again(world: World) -> None:
    request = await world.planned()
    world.api.before("PATCH", lambda: world.api.workloads.touch(*WHERE))
    error = await world.fails(request)
    assert (error.type, error.non_retryable) == ("Unreachable", False)
    assert world.our_templates == []
    assert not (await world.execute(request, number=2)).repeated
    assert restarted_at(world) == STAMP


async def test_a_paused_deployment_is_refused_as_kubectl_does(world: World) -> None:
    changed = world.api.deployment(*WHERE)
    changed["spec"]["paused"] = True
    world.api.workloads.store(changed, "kubectl")
    error = await failure_of(world.plan())
    assert error.type == "InvalidStep"
    assert "payment-api in production is paused: resume it first with 'kubectl rollout resume" in error.message


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [(403, "Forbidden", "Refused"), (422, "Invalid", "Refused"), (503, "ServiceUnavailable", "Unreachable")],
)
async def test_what_the_cluster_would_refuse_is_refused_when_it_is_planned(world: World, code: int, reason: str, kind: str) -> None:
    world.api.deny("PATCH", code, reason, "a policy of the house")
    error = await failure_of(world.plan())
    assert error.type == kind
    assert "a policy of the house" in error.message


async def test_planning_writes_nothing_because_it_is_a_dry_run(world: World) -> None:
    await world.plan()
    (patch,) = [request for request in world.api.requests if request.method == "PATCH"]
    assert patch.query["dryRun"] == "All"
    assert restarted_at(world) is None


@pytest.mark.parametrize("hostile", ["../kube-system", "", "*", "payment-api/scale", "A"])
async def test_a_foreign_value_that_is_no_name_reaches_no_cluster(world: World, hostile: str) -> None:
    request = a_request(a_restart(deployment="{{ service_id }}"), names={"service_id": hostile})
    assert (await failure_of(world.plan(request))).type == "InvalidStep"
    assert world.api.requests == []


async def test_a_restart_is_done_when_its_pods_are(tmp_path: Path) -> None:
    clock = HandClock()
    async with a_world(tmp_path, a_restart(), rollout=timedelta(seconds=10), clock=clock) as world:
        running = Attempt()
        request = await world.planned()
        work = asyncio.ensure_future(running.run(world.activities.execute, request))
        await eventually(lambda: ("payment-api: waiting for the cluster to notice the change",) in running.heartbeats)
        clock.seconds = 5
        await eventually(lambda: ("payment-api: 2 of 3 new replicas have been updated",) in running.heartbeats)
        assert not work.done()
        clock.seconds = 10
        assert (await work).summary == "payment-api restarted: 3 pods replaced one after the other"


async def test_a_restart_whose_pods_do_not_come_fails_without_an_undo_unless_it_does_not_wait(tmp_path: Path) -> None:
    async with a_world(tmp_path, a_restart(), rollout=timedelta(hours=1)) as world:
        error = await world.fails(await world.planned(a_request(a_restart(timeout_seconds=0.2))))
        assert (error.type, undo_of(error)) == ("StepFailed", None)
        assert error.message.startswith("payment-api was told to restart, but the rollout did not complete in time (")
    async with a_world(tmp_path, a_restart(), rollout=timedelta(hours=1)) as world:
        result = await world.execute(await world.planned(a_request(a_restart(wait=False))))
        assert result.summary == "payment-api told to restart: 3 pods replaced one after the other"


async def test_a_restart_cannot_be_taken_back(world: World) -> None:
    error = await failure_of(world.undo(Undo(title="?", request={"action": "restart"})))
    assert (error.type, error.message) == ("InvalidStep", "step 2 is a restart, which leaves nothing to take back")
    assert world.api.requests == []
