"""Scale steps against a simulated Kubernetes API: the plan tells the truth, the write is guarded, the undo is too."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import kmock
import pytest
from aiohttp import web

from activities.errors import undo_of
from cli.simulated_cluster import SimulatedCluster, json_answer
from domain.plan import StepResult, Undo
from tests.activities.kubernetes_steps import WHERE, World, a_world, activities_on
from tests.activities.steps import (
    Attempt,
    a_request,
    a_scale,
    an_undo_request,
    attempt,
    eventually,
    failure_of,
)
from tests.peers.cluster import HandClock

UNDO = Undo(
    title="Scale deployment payment-api back to 3 replicas",
    request={"action": "scale", "namespace": "production", "deployment": "payment-api", "from": 5, "to": 3},
)


# Plan


async def test_the_plan_tells_what_is_and_what_will_be(world: World) -> None:
    plan = await attempt(world.activities.plan, a_request(a_scale(require_approval=True)))
    assert (plan.title, plan.change) == ("Scale deployment to 5 replicas", "replicas 3 → 5")
    assert [(fact.label, fact.value) for fact in plan.facts] == [("Namespace", "production"), ("Deployment", "payment-api")]
    assert plan.request == {"action": "scale", "namespace": "production", "deployment": "payment-api", "replicas": 5}
    assert plan.observed == {"replicas": 3}
    assert world.api.writes == []


async def test_a_plan_that_has_nothing_to_do_says_so(world: World) -> None:
    plan = await attempt(world.activities.plan, a_request(a_scale(replicas=3)))
    assert plan.change == "replicas 3, nothing to change"


async def test_names_are_filled_into_namespace_and_deployment(world: World) -> None:
    step = a_scale(namespace="{{ environment }}", deployment="{{ service_id }}")
    plan = await attempt(world.activities.plan, a_request(step))
    assert (plan.request["namespace"], plan.request["deployment"]) == WHERE


async def test_a_count_may_be_a_name_that_is_filled_in(world: World) -> None:
    step = a_scale(replicas="{{ wanted }}", require_approval=True)
    request = await world.planned(a_request(step, names={"wanted": 4}))
    assert request.plan is not None
    assert (request.plan.title, request.plan.request["replicas"]) == ("Scale deployment to 4 replicas", 4)
    await world.execute(request)
    assert world.our_writes == [(3, 4)]


@pytest.mark.parametrize("wanted", ["-1", "1.5", "", "many", "10001", "1e3", "٣", True, "9" * 5_000])
async def test_a_count_that_is_none_reaches_no_cluster(world: World, wanted: str | bool) -> None:
    request = a_request(a_scale(replicas="{{ wanted }}"), names={"wanted": wanted})
    error = await failure_of(attempt(world.activities.plan, request))
    assert (error.type, error.non_retryable) == ("InvalidStep", True)
    assert error.message.endswith("allowed is a whole number from 0 to 10,000")
    assert len(error.message) < 200
    assert world.api.requests == []


@pytest.mark.parametrize("hostile", ["../kube-system", "a/b", "", "A", "payment-api?dryRun=All", "*"])
async def test_a_foreign_value_that_is_no_name_reaches_no_cluster(world: World, hostile: str) -> None:
    request = a_request(a_scale(deployment="{{ service_id }}"), names={"service_id": hostile})
    error = await failure_of(attempt(world.activities.plan, request))
    assert error.type == "InvalidStep"
    assert world.api.requests == []


async def test_a_deployment_that_does_not_exist_fails_the_plan_before_anybody_is_asked(world: World) -> None:
    error = await failure_of(attempt(world.activities.plan, a_request(a_scale(deployment="nobody"))))
    assert (error.type, error.message) == ("InvalidStep", "there is no deployment nobody in namespace production")


async def test_without_a_cluster_a_step_names_the_setting_that_is_missing() -> None:
    error = await failure_of(attempt(activities_on(None).plan, a_request(a_scale())))
    assert (error.type, error.non_retryable) == ("NotConfigured", True)
    assert "KUBECONFIG" in error.message


# Execute


async def test_an_approved_scale_changes_the_replicas_and_leaves_its_undo(world: World) -> None:
    result = await world.execute(await world.planned())
    assert world.our_writes == [(3, 5)]
    assert result.summary == "payment-api scaled from 3 to 5 replicas"
    assert result.outputs == {"replicas_before": 3, "replicas": 5}
    assert result.undo == UNDO
    assert not result.repeated


async def test_a_scale_to_one_replica_is_told_in_the_singular(world: World) -> None:
    result = await world.execute(await world.planned(a_request(a_scale(replicas=1))))
    assert result.summary == "payment-api scaled from 3 to 1 replica"


async def test_a_scale_to_zero_and_its_undo_work(world: World) -> None:
    result = await world.execute(await world.planned(a_request(a_scale(replicas=0))))
    assert world.replicas == 0
    assert result.undo is not None
    await world.undo(result.undo)
    assert world.replicas == 3


async def test_a_scale_with_nothing_to_change_writes_nothing_and_has_no_undo(world: World) -> None:
    result = await world.execute(await world.planned(a_request(a_scale(replicas=3))))
    assert world.api.writes == []
    assert result.undo is None
    assert result.summary == "payment-api already has 3 replicas, nothing was changed"


@pytest.mark.parametrize("meanwhile", [4, 5])
async def test_a_world_that_moved_since_the_plan_is_planned_again_and_not_overwritten(world: World, meanwhile: int) -> None:
    request = await world.planned()
    world.api.set_replicas(*WHERE, meanwhile)
    error = await world.fails(request)
    assert (error.type, error.non_retryable) == ("PlanChanged", True)
    assert (world.replicas, world.our_writes) == (meanwhile, [])


@pytest.mark.parametrize("number", [1, 2])
async def test_a_plan_that_had_nothing_to_change_does_not_stand_when_the_world_moved(world: World, number: int) -> None:
    request = await world.planned(a_request(a_scale(replicas=3)))
    world.api.set_replicas(*WHERE, 7)
    assert (await world.fails(request, number=number)).type == "PlanChanged"
    assert world.our_writes == []


async def test_a_change_in_the_last_instant_is_a_conflict_and_not_overwritten(world: World) -> None:
    request = await world.planned()
    world.api.change_before("PATCH", *WHERE, 7)
    error = await world.fails(request)
    assert (error.type, error.non_retryable) == ("Conflict", True)
    assert (world.replicas, world.our_writes) == (7, [])


async def test_a_second_attempt_after_a_lost_answer_finds_its_own_work_done(world: World) -> None:
    request = await world.planned()
    world.api.lose_the_answer("PATCH")
    first = await world.fails(request)
    assert (first.type, first.non_retryable) == ("Unreachable", False)
    result = await world.execute(request, number=2)
    assert result.repeated
    assert world.our_writes == [(3, 5)]
    assert result.undo == UNDO


async def test_a_lost_answer_carries_the_undo_in_case_no_further_attempt_comes(world: World) -> None:
    request = await world.planned()
    world.api.lose_the_answer("PATCH")
    undo = undo_of(await world.fails(request))
    assert undo == UNDO
    assert not (await world.undo(UNDO)).repeated
    assert world.replicas == 3


async def test_a_second_attempt_does_what_the_first_could_not(world: World) -> None:
    request = await world.planned()
    result = await world.execute(request, number=2)
    assert not result.repeated
    assert world.our_writes == [(3, 5)]


async def test_a_second_attempt_does_not_overwrite_what_somebody_else_did(world: World) -> None:
    request = await world.planned()
    world.api.set_replicas(*WHERE, 7)
    assert (await world.fails(request, number=2)).type == "Conflict"
    assert world.replicas == 7


async def test_a_refused_write_has_no_undo(world: World) -> None:
    request = await world.planned()
    world.api.deny("PATCH", 403, "Forbidden", "not for you")
    error = await world.fails(request)
    assert (error.type, undo_of(error)) == ("Refused", None)


async def test_a_count_that_the_cluster_made_of_ours_is_a_failure_that_can_be_taken_back(world: World) -> None:
    request = await world.planned()

    async def clamp(_: kmock.Request) -> web.StreamResponse:
        world.api.set_replicas(*WHERE, 4, field_manager="infrasage")
        return json_answer(
            {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {"name": "payment-api"}, "spec": {"replicas": 4}}
        )

    world.api.trouble("PATCH", clamp)
    error = await world.fails(request)
    assert error.type == "StepFailed"
    undo = undo_of(error)
    assert undo is not None
    await world.undo(undo)
    assert world.replicas == 3


# Rollout


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path, a_scale(require_approval=True)) as running:
        yield running


@pytest.fixture
async def slow(tmp_path: Path) -> AsyncIterator[World]:
    """A world whose pods never become ready."""
    async with a_world(tmp_path, a_scale(require_approval=True), rollout=timedelta(hours=1)) as running:
        yield running


async def test_a_scale_is_done_when_its_pods_are_and_tells_how_far_they_are(tmp_path: Path) -> None:
    clock = HandClock()
    async with a_world(tmp_path, a_scale(require_approval=True), rollout=timedelta(seconds=10), clock=clock) as world:
        running = Attempt()
        work = await started(world, running)
        await eventually(lambda: ("payment-api: waiting for the cluster to notice the change",) in running.heartbeats)
        clock.seconds = 5
        await eventually(lambda: ("payment-api: 4 of 5 updated replicas are available",) in running.heartbeats)
        assert not work.done()
        clock.seconds = 10
        await work
        assert world.api.deployment(*WHERE)["status"]["readyReplicas"] == 5


async def test_a_scale_that_is_not_to_wait_ends_before_its_pods_are_there(slow: World) -> None:
    result = await slow.execute(await slow.planned(a_request(a_scale(wait=False))))
    assert (slow.replicas, result.undo) == (5, UNDO)
    assert slow.api.deployment(*WHERE)["status"]["readyReplicas"] == 3


async def test_what_the_cluster_would_refuse_is_refused_when_it_is_planned(world: World) -> None:
    world.api.deny("PATCH", 403, "Forbidden", "not for you")
    error = await failure_of(attempt(world.activities.plan, a_request(a_scale())))
    assert (error.type, error.non_retryable) == ("Refused", True)
    assert world.api.writes == []


async def test_a_cluster_that_takes_no_dry_run_can_still_be_planned_for(world: World) -> None:
    world.api.deny("PATCH", 400, "BadRequest", 'admission webhook "a.b" does not support dry run')
    assert (await attempt(world.activities.plan, a_request(a_scale()))).change == "replicas 3 → 5"


async def test_a_world_that_moves_while_it_is_planned_is_planned_again(world: World) -> None:
    world.api.change_before("PATCH", *WHERE, 7)
    error = await failure_of(attempt(world.activities.plan, a_request(a_scale())))
    assert (error.type, error.non_retryable) == ("Unreachable", False)
    assert (await attempt(world.activities.plan, a_request(a_scale()), number=2)).change == "replicas 7 → 5"


async def test_a_rollout_that_does_not_complete_in_time_fails_and_can_be_taken_back(slow: World) -> None:
    error = await slow.fails(await slow.planned(a_request(a_scale(timeout_seconds=0.3))))
    assert (error.type, error.non_retryable) == ("StepFailed", True)
    assert error.message.startswith("payment-api was set to 5 replicas, but the rollout did not complete in time (")
    undo = undo_of(error)
    assert undo == UNDO
    await slow.undo(UNDO)
    assert slow.replicas == 3


async def test_a_cluster_that_falls_silent_after_the_write_does_not_outlast_the_step(world: World) -> None:
    request = await world.planned(a_request(a_scale(timeout_seconds=0.3)))
    patched = asyncio.Event()

    async def patch_then_silence(sent: kmock.Request) -> web.StreamResponse | None:
        patched.set()
        world.api.stay_silent("GET")
        return await SimulatedCluster.answer(world.api, sent)

    world.api.trouble("PATCH", patch_then_silence)
    error = await world.fails(request)
    assert patched.is_set()
    assert (error.type, undo_of(error)) == ("StepFailed", UNDO)


async def test_a_look_that_fails_for_the_moment_does_not_end_the_wait(world: World) -> None:
    request = await world.planned()

    async def patch_then_trouble(sent: kmock.Request) -> web.StreamResponse | None:
        world.api.deny("GET", 503, "ServiceUnavailable", "one moment")
        return await SimulatedCluster.answer(world.api, sent)

    world.api.trouble("PATCH", patch_then_trouble)
    assert (await world.execute(request)).undo == UNDO


@pytest.mark.parametrize(("code", "reason"), [(403, "Forbidden"), (404, "NotFound")])
async def test_a_look_that_is_refused_after_the_write_still_leaves_the_undo(world: World, code: int, reason: str) -> None:
    request = await world.planned()

    async def patch_then_refuse(sent: kmock.Request) -> web.StreamResponse | None:
        world.api.deny("GET", code, reason, "no longer")
        return await SimulatedCluster.answer(world.api, sent)

    world.api.trouble("PATCH", patch_then_refuse)
    error = await world.fails(request)
    assert (error.type, undo_of(error)) == ("StepFailed", UNDO)


def gave_up(world: World, *, noticed: bool) -> None:
    """Let the next look find a rollout that passed its progress deadline, before or after our own change was noticed."""

    async def answer(_: kmock.Request) -> web.StreamResponse:
        deployment = world.api.deployment(*WHERE)
        if not noticed:
            deployment["status"]["observedGeneration"] = deployment["metadata"]["generation"] - 1
        deployment["status"]["conditions"] = [
            {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"},
        ]
        return json_answer(deployment)

    async def patch(sent: kmock.Request) -> web.StreamResponse | None:
        world.api.trouble("GET", answer)
        return await SimulatedCluster.answer(world.api, sent)

    world.api.trouble("PATCH", patch)


async def test_a_rollout_that_the_cluster_gave_up_fails_at_once_and_can_be_taken_back(world: World) -> None:
    request = await world.planned()
    gave_up(world, noticed=True)
    error = await world.fails(request)
    assert (error.type, undo_of(error)) == ("StepFailed", UNDO)
    assert "progress deadline" in error.message


async def test_a_rollout_that_was_given_up_before_our_change_is_not_held_against_it(world: World) -> None:
    request = await world.planned()
    gave_up(world, noticed=False)
    assert (await world.execute(request)).undo == UNDO


async def started(world: World, running: Attempt) -> asyncio.Future[StepResult]:
    request = await world.planned()
    task = asyncio.ensure_future(running.run(world.activities.execute, request))
    await eventually(lambda: world.replicas == 5 and bool(running.heartbeats[1:]))
    return task


async def test_a_run_that_is_cancelled_during_the_rollout_reports_what_has_to_be_taken_back(slow: World) -> None:
    running = Attempt()
    task = await started(slow, running)
    running.environment.cancel()
    error = await failure_of(task)
    assert (error.type, undo_of(error)) == ("StepFailed", UNDO)
    assert error.message == "the run was cancelled while payment-api was being scaled"


async def test_a_worker_that_stops_during_the_rollout_leaves_the_step_to_its_next_attempt(slow: World) -> None:
    running = Attempt()
    task = await started(slow, running)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# Undo


async def test_an_undo_puts_the_replicas_back(world: World) -> None:
    await world.execute(await world.planned())
    result = await world.undo(UNDO)
    assert world.our_writes == [(3, 5), (5, 3)]
    assert (result.summary, result.repeated) == ("payment-api scaled back to 3 replicas", False)
    assert result.outputs == {"replicas_before": 5, "replicas": 3}


async def test_an_undo_that_finds_its_work_done_is_a_success_and_writes_nothing(world: World) -> None:
    result = await world.undo(UNDO)
    assert result.repeated
    assert world.api.writes == []


async def test_an_undo_does_not_overwrite_what_somebody_else_did(world: World) -> None:
    await world.execute(await world.planned())
    world.api.set_replicas(*WHERE, 7)
    error = await failure_of(world.undo(UNDO))
    assert (error.type, error.non_retryable) == ("Conflict", True)
    assert world.replicas == 7


async def test_an_undo_overtaken_in_the_last_instant_is_a_conflict(world: World) -> None:
    await world.execute(await world.planned())
    world.api.change_before("PATCH", *WHERE, 7)
    assert (await failure_of(world.undo(UNDO))).type == "Conflict"
    assert world.replicas == 7


async def test_an_undo_without_a_request_changes_nothing(world: World) -> None:
    request = an_undo_request(a_scale(), UNDO).model_copy(update={"undo": None})
    error = await failure_of(attempt(world.activities.undo, request))
    assert (error.type, error.message) == ("InvalidStep", "step 2 left nothing by which it could be taken back")
    assert world.api.requests == []


async def test_an_undo_that_cannot_be_read_changes_nothing(world: World) -> None:
    error = await failure_of(world.undo(Undo(title="?", request={"action": "scale", "namespace": "production"})))
    assert (error.type, error.message) == ("InvalidStep", "the undo of step 2 cannot be read: check deployment, from, to")
    assert world.api.requests == []
