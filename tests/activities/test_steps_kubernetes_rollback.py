"""Rollback steps against a simulated Kubernetes API: the right revision, guarded, once, and taken back."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from activities.errors import undo_of
from domain.runbook import Step
from tests.activities.kubernetes_steps import WHERE, World, a_world
from tests.activities.steps import a_request, a_step, failure_of
from tests.peers.cluster import HandClock

OLD, NEW = "payment-api:2.3.0", "payment-api:2.3.1"


def a_rollback(**keys: object) -> Step:
    where = {"namespace": "production", "deployment": "payment-api"}
    return a_step(**{"type": "kubernetes", "action": "rollout-undo", **where, "require_approval": True, **keys})


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Revision 1 has the image 2.3.0, revision 2 the image 2.3.1 and is what runs."""
    async with a_world(tmp_path, a_rollback()) as running:
        running.api.set_image(*WHERE, NEW)
        assert running.revision == "2"
        yield running


async def test_the_plan_tells_both_revisions_and_both_images(world: World) -> None:
    plan = await world.plan()
    assert (plan.title, plan.change) == ("Roll back deployment payment-api", f"revision 2 → 1, image {NEW} → {OLD}")
    assert [(fact.label, fact.value) for fact in plan.facts] == [("Namespace", "production"), ("Deployment", "payment-api")]
    expected: dict[str, Any] = {
        "action": "rollout-undo",
        "namespace": "production",
        "deployment": "payment-api",
        "to_revision": None,
    }
    assert plan.request == expected
    assert (plan.observed["revision"], plan.observed["to_revision"]) == (2, 1)
    assert world.our_templates == []


async def test_the_digest_stays_while_the_world_does_and_changes_with_it(world: World) -> None:
    first = await world.plan()
    world.api.workloads.touch(*WHERE)
    world.api.set_replicas(*WHERE, 4)
    assert (await world.plan()).digest == first.digest
    world.api.set_image(*WHERE, "payment-api:2.3.2")
    assert (await world.plan()).digest != first.digest


async def test_a_rollback_restores_the_template_and_leaves_its_undo(world: World) -> None:
    before = world.api.deployment(*WHERE)["spec"]["template"]
    result = await world.execute(await world.planned())
    template = world.api.deployment(*WHERE)["spec"]["template"]
    assert template == {**before, "spec": {"containers": [{"name": "payment-api", "image": OLD}]}}
    assert "pod-template-hash" not in template["metadata"]["labels"]
    assert (world.our_templates, world.revision) == ([OLD], "3")
    assert result.summary == "payment-api rolled back from revision 2 to 1"
    assert result.outputs == {"revision_before": 2, "revision_restored": 1}
    assert result.undo is not None
    assert result.undo.title == "Give deployment payment-api the template of revision 2 again"


async def test_a_rollback_brings_back_fields_that_no_model_here_knows(world: World) -> None:
    changed = world.api.deployment(*WHERE)
    changed["spec"]["template"]["spec"]["fieldOfTheFuture"] = {"deep": [1]}
    world.api.workloads.store(changed, "kubectl")
    world.api.set_image(*WHERE, "payment-api:2.3.2")
    await world.execute(await world.planned())
    assert world.api.deployment(*WHERE)["spec"]["template"]["spec"]["fieldOfTheFuture"] == {"deep": [1]}


async def test_annotations_come_back_as_kubectl_brings_them_back(world: World) -> None:
    mine = {"kubernetes.io/change-cause": "2.3.2", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
    world.api.set_image(*WHERE, "payment-api:2.3.2", annotations=mine)
    assert world.revision == "3"
    await world.execute(await world.planned())
    annotations = world.api.deployment(*WHERE)["metadata"]["annotations"]
    assert annotations == {"kubectl.kubernetes.io/last-applied-configuration": "{}", "deployment.kubernetes.io/revision": "4"}


async def test_a_revision_that_is_named_is_the_one_that_comes(world: World) -> None:
    world.api.set_image(*WHERE, "payment-api:2.3.2")
    request = await world.planned(a_request(a_rollback(to_revision=1)))
    assert request.plan is not None
    assert request.plan.change == f"revision 3 → 1, image payment-api:2.3.2 → {OLD}"
    await world.execute(request)
    assert world.image == OLD


async def test_a_revision_that_is_not_kept_is_named_with_those_that_are(world: World) -> None:
    error = await failure_of(world.plan(a_request(a_rollback(to_revision=9))))
    assert (error.type, error.message) == ("InvalidStep", "payment-api in production has no revision 9; kept are 2, 1")


async def test_a_deployment_of_one_revision_has_nothing_to_go_back_to(world: World) -> None:
    world.api.workloads.forget_revision(*WHERE, 1)
    error = await failure_of(world.plan())
    assert (error.type, error.message) == ("InvalidStep", "payment-api in production has no earlier revision to go back to")


async def test_replica_sets_of_another_deployment_with_the_same_labels_do_not_count(world: World) -> None:
    world.api.add_deployment("production", "payment-api-canary", 1, "payment-api:9.9.9")
    stranger = world.api.workloads.replica_sets("production", {"app": "payment-api-canary"})[0]
    stranger["metadata"]["labels"]["app"] = "payment-api"
    stranger["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "7"
    assert (await world.plan()).observed["to_revision"] == 1


async def test_the_revision_in_use_has_nothing_to_change(world: World) -> None:
    request = await world.planned(a_request(a_rollback(to_revision=2)))
    assert request.plan is not None
    assert request.plan.change == "revision 2 has the template of revision 2, nothing to change"
    result = await world.execute(request)
    assert result.summary == "payment-api already has the template of revision 2, nothing was changed"
    assert (result.undo, world.our_templates) == (None, [])


async def test_a_rollback_after_a_lost_answer_is_not_made_twice(world: World) -> None:
    request = await world.planned()
    world.api.lose_the_answer("PATCH")
    first = await world.fails(request)
    assert first.type == "Unreachable"
    result = await world.execute(request, number=2)
    assert result.repeated
    assert (world.our_templates, world.image) == ([OLD], OLD)
    assert result.undo == undo_of(first)


@pytest.mark.parametrize(("number", "kind"), [(1, "PlanChanged"), (2, "Conflict")])
async def test_a_deploy_since_the_plan_is_not_overwritten(world: World, number: int, kind: str) -> None:
    request = await world.planned()
    world.api.set_image(*WHERE, "payment-api:2.3.2")
    error = await world.fails(request, number=number)
    assert (error.type, error.non_retryable) == (kind, True)
    assert (world.our_templates, world.image) == ([], "payment-api:2.3.2")


async def test_a_rollback_by_somebody_else_since_the_plan_is_planned_again(world: World) -> None:
    request = await world.planned()
    world.api.set_image(*WHERE, OLD)
    assert (await world.fails(request)).type == "PlanChanged"


async def test_a_deploy_in_the_last_instant_is_a_conflict(world: World) -> None:
    request = await world.planned()
    world.api.before("PATCH", lambda: world.api.set_image(*WHERE, "payment-api:2.3.2"))
    error = await world.fails(request)
    assert (error.type, error.non_retryable) == ("Conflict", True)
    assert (world.our_templates, world.image) == ([], "payment-api:2.3.2")


async def test_a_deploy_that_the_controller_has_not_counted_yet_is_not_overwritten(tmp_path: Path) -> None:
    clock = HandClock()
    async with a_world(tmp_path, a_rollback(), rollout=timedelta(seconds=10), clock=clock) as world:
        world.api.set_image(*WHERE, NEW)
        clock.seconds = 20
        request = await world.planned()
        world.api.before("PATCH", lambda: world.api.set_image(*WHERE, "payment-api:2.3.2"))
        assert (await world.fails(request)).type == "Conflict"
        assert (world.revision, world.image) == ("2", "payment-api:2.3.2")
        error = await failure_of(world.plan())
        assert (error.type, error.non_retryable) == ("Unreachable", False)  # the one before the newest is not known yet


async def test_a_scale_in_the_last_instant_only_makes_it_try_again(world: World) -> None:
    request = await world.planned()
    world.api.change_before("PATCH", *WHERE, 7)
    error = await world.fails(request)
    assert (error.type, error.non_retryable) == ("Unreachable", False)
    assert world.our_templates == []
    await world.execute(request, number=2)
    assert (world.image, world.replicas) == (OLD, 7)


async def test_a_status_in_the_last_instant_does_not_matter(world: World) -> None:
    request = await world.planned()
    world.api.before("PATCH", lambda: world.api.workloads.touch(*WHERE))
    await world.execute(request)
    assert world.image == OLD


async def test_a_paused_deployment_is_refused_as_kubectl_does(world: World) -> None:
    changed = world.api.deployment(*WHERE)
    changed["spec"]["paused"] = True
    world.api.workloads.store(changed, "kubectl")
    error = await failure_of(world.plan())
    assert error.type == "InvalidStep"
    assert "is paused" in error.message


async def test_a_template_that_is_no_longer_kept_is_a_conflict(world: World) -> None:
    request = await world.planned()
    world.api.workloads.forget_revision(*WHERE, 1)
    error = await world.fails(request)
    assert (error.type, world.our_templates) == ("Conflict", [])
    assert "no longer keeps the template of revision 1" in error.message


@pytest.mark.parametrize(("code", "reason"), [(403, "Forbidden"), (422, "Invalid")])
async def test_what_the_cluster_would_refuse_is_refused_when_it_is_planned(world: World, code: int, reason: str) -> None:
    world.api.deny("PATCH", code, reason, "a policy of the house")
    error = await failure_of(world.plan())
    assert error.type == "Refused"
    assert "a policy of the house" in error.message


async def test_a_missing_right_to_list_replica_sets_is_named(world: World) -> None:
    world.api.before("GET", lambda: world.api.deny("GET", 403, "Forbidden", "no"))
    error = await failure_of(world.plan())
    assert error.type == "Refused"
    assert "list replicasets.apps in namespace production" in error.message


async def test_a_rollout_that_does_not_complete_fails_with_its_undo(tmp_path: Path) -> None:
    clock = HandClock()
    async with a_world(tmp_path, a_rollback(timeout_seconds=0.2), rollout=timedelta(seconds=10), clock=clock) as world:
        world.api.set_image(*WHERE, NEW)
        clock.seconds = 20
        error = await world.fails(await world.planned())
        assert error.type == "StepFailed"
        assert error.message.startswith(
            "payment-api was given the template of revision 1, but the rollout did not complete in time"
        )
        assert undo_of(error) is not None
        clock.seconds = 40
        result = await world.execute(await world.planned(a_request(a_rollback(wait=False, to_revision=2))))
        assert (world.image, result.repeated) == (NEW, False)


async def test_an_undo_gives_back_what_the_step_found_and_is_made_once(world: World) -> None:
    undo = (await world.execute(await world.planned())).undo
    result = await world.undo(undo)
    assert (world.image, result.summary) == (NEW, "payment-api has the template of revision 2 again")
    assert not result.repeated
    assert (await world.undo(undo)).repeated
    assert world.our_templates == [OLD, NEW]


async def test_an_undo_does_not_overwrite_what_somebody_deployed_since(world: World) -> None:
    undo = (await world.execute(await world.planned())).undo
    world.api.set_image(*WHERE, "payment-api:2.3.2")
    error = await failure_of(world.undo(undo))
    assert (error.type, world.image) == ("Conflict", "payment-api:2.3.2")


async def test_an_undo_overtaken_in_the_last_instant_is_a_conflict(world: World) -> None:
    undo = (await world.execute(await world.planned())).undo
    world.api.before("PATCH", lambda: world.api.set_image(*WHERE, "payment-api:2.3.2"))
    assert (await failure_of(world.undo(undo))).type == "Conflict"
    assert world.image == "payment-api:2.3.2"


async def test_an_undo_whose_template_is_no_longer_kept_changes_nothing(world: World) -> None:
    undo = (await world.execute(await world.planned())).undo
    world.api.workloads.forget_revision(*WHERE, 2)
    assert (await failure_of(world.undo(undo))).type == "Conflict"
    assert world.image == OLD
