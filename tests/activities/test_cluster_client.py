"""The Kubernetes client against a simulated API server on loopback: reading, the guarded scale, the rollout."""

import asyncio
import gc
import json
import random
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
from lightkube import AsyncClient, KubeConfig
from lightkube.resources.apps_v1 import DeploymentScale
from lightkube.types import PatchType

from activities.clients.cluster import KubernetesCluster
from activities.errors import Conflict, InvalidStep, OrchestratorError, Refused, StepFailed, Unreachable
from tests.peers.cluster import HandClock, TroubledCluster, connected

NAMESPACE, DEPLOYMENT = "production", "payment-api"
WHERE = (NAMESPACE, DEPLOYMENT)


@pytest.fixture
async def api() -> AsyncIterator[TroubledCluster]:
    async with TroubledCluster() as running:
        running.add_deployment(*WHERE, 3, "payment-api:2.3.1")
        yield running


@pytest.fixture
async def cluster(api: TroubledCluster, tmp_path: Path) -> AsyncIterator[KubernetesCluster]:
    async with connected(api.write_kubeconfig(tmp_path / "kubeconfig")) as client:
        yield client


async def test_reading_tells_wished_and_ready_replicas(api: TroubledCluster, cluster: KubernetesCluster) -> None:
    scale = await cluster.read_scale(*WHERE)
    assert (scale.replicas, scale.ready) == (3, 3)
    assert scale.uid == api.deployment(*WHERE)["metadata"]["uid"]


async def test_scaling_changes_the_replicas_in_one_request_in_our_name(api: TroubledCluster, cluster: KubernetesCluster) -> None:
    scale = await cluster.set_replicas(*WHERE, expected=3, target=5)
    assert scale.replicas == api.replicas(*WHERE) == 5
    assert scale.uid == api.deployment(*WHERE)["metadata"]["uid"]
    assert [(write.before, write.after, write.field_manager) for write in api.writes] == [(3, 5, "infrasage")]
    (request,) = api.requests
    assert (request.method, request.path.rpartition("/")[2]) == ("PATCH", "scale")


async def test_scaling_to_zero_and_back_works_although_the_api_leaves_a_zero_out(
    api: TroubledCluster, cluster: KubernetesCluster
) -> None:
    assert (await cluster.set_replicas(*WHERE, expected=3, target=0)).replicas == 0
    assert (await cluster.read_scale(*WHERE)).replicas == 0
    assert (await cluster.set_replicas(*WHERE, expected=0, target=2)).replicas == 2
    assert api.replicas(*WHERE) == 2


async def test_a_scale_that_somebody_overtook_is_a_conflict_that_tells_both_numbers(
    api: TroubledCluster, cluster: KubernetesCluster
) -> None:
    api.change_before("PATCH", *WHERE, 7)
    with pytest.raises(Conflict) as caught:
        await cluster.set_replicas(*WHERE, expected=3, target=5)
    assert str(caught.value) == "payment-api in production has 7 replicas, the plan saw 3: nothing was changed"
    assert api.replicas(*WHERE) == 7


async def test_a_scale_from_zero_is_guarded_too(api: TroubledCluster, cluster: KubernetesCluster) -> None:
    with pytest.raises(Conflict, match="has 3 replicas, the plan saw 0"):
        await cluster.set_replicas(*WHERE, expected=0, target=5)
    assert api.writes == []


async def test_a_retry_after_a_lost_answer_is_success_and_writes_once(api: TroubledCluster, cluster: KubernetesCluster) -> None:
    api.lose_the_answer("PATCH")
    with pytest.raises(Unreachable):
        await cluster.set_replicas(*WHERE, expected=3, target=5)
    assert (await cluster.set_replicas(*WHERE, expected=3, target=5)).replicas == 5
    assert len(api.writes) == 1


async def test_a_dry_run_is_checked_by_the_server_and_writes_nothing(api: TroubledCluster, cluster: KubernetesCluster) -> None:
    assert (await cluster.set_replicas(*WHERE, expected=3, target=5, dry_run=True)).replicas == 5
    assert api.requests[-1].query["dryRun"] == "All"
    assert (api.writes, api.replicas(*WHERE)) == ([], 3)
    with pytest.raises(Conflict):
        await cluster.set_replicas(*WHERE, expected=4, target=5, dry_run=True)


async def test_a_patch_found_invalid_for_another_reason_says_so_and_is_no_conflict(
    api: TroubledCluster, cluster: KubernetesCluster
) -> None:
    api.deny("PATCH", 422, "Invalid", "a quota allows 4 replicas")
    with pytest.raises(Refused, match="a quota allows 4 replicas"):
        await cluster.set_replicas(*WHERE, expected=3, target=5)


@pytest.mark.parametrize(("dry_run", "expected"), [(False, StepFailed), (True, Refused)])
async def test_a_count_that_admission_rewrote_is_not_reported_as_done(
    api: TroubledCluster, cluster: KubernetesCluster, dry_run: bool, expected: type[OrchestratorError]
) -> None:
    body = {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {"uid": "u"}, "spec": {"replicas": 4}}
    api.answer_raw("PATCH", 200, json.dumps(body).encode(), "application/json")
    with pytest.raises(expected, match="was to have 5 replicas, but an admission rule of the cluster makes it 4"):
        await cluster.set_replicas(*WHERE, expected=3, target=5, dry_run=dry_run)


# The race: the guard, and the same race without it


@dataclass
class Race:
    """How one race went; `lost` counts writes of ours that overwrote a number the plan had not seen."""

    done: int = 0
    conflicts: int = 0
    lost: int = 0


async def run_race(
    api: TroubledCluster,
    cluster: KubernetesCluster,
    write: Callable[[int, int], Awaitable[object]],
    *,
    rounds: int,
    seed: int,
) -> Race:
    """Plan and write `rounds` times while a second writer scales the same Deployment over its own connection.

    Ours are odd numbers and theirs even ones, each used once, so that no number can come back unseen.
    """
    race, dice = Race(), random.Random(seed)  # noqa: S311
    seen_by_plan: dict[int, int] = {}
    headers = {"Authorization": f"Bearer {api.token}", "Content-Type": "application/merge-patch+json"}
    path = f"{api.url}/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{DEPLOYMENT}/scale?fieldManager=kubectl"

    async def ours(expected: int, target: int, delay_turns: int) -> None:
        await turns(delay_turns)
        try:
            await write(expected, target)
        except Conflict:
            race.conflicts += 1
        else:
            race.done += 1

    async def theirs(rival: aiohttp.ClientSession, replicas: int, delay_turns: int) -> None:
        await turns(delay_turns)
        async with rival.patch(path, data=json.dumps({"spec": {"replicas": replicas}})) as answer:
            assert answer.status == 200

    async with aiohttp.ClientSession(headers=headers) as rival:
        for number in range(rounds):
            plan = await cluster.read_scale(*WHERE)
            target = 1_001 + 2 * number
            seen_by_plan[target] = plan.replicas
            await asyncio.gather(
                ours(plan.replicas, target, dice.randrange(12)), theirs(rival, 1_002 + 2 * number, dice.randrange(12))
            )

    our_writes = [one for one in api.writes if one.field_manager == "infrasage"]
    assert len(our_writes) == race.done
    race.lost = sum(1 for one in our_writes if one.before != seen_by_plan[one.after])
    return race


async def turns(count: int) -> None:
    """Let the event loop go round `count` times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_thousand_races_against_a_second_writer_lose_no_update(api: TroubledCluster, cluster: KubernetesCluster) -> None:
    async def guarded(expected: int, target: int) -> None:
        await cluster.set_replicas(*WHERE, expected=expected, target=target)

    race = await run_race(api, cluster, guarded, rounds=1_000, seed=7)
    assert race.lost == 0
    assert race.done + race.conflicts == 1_000
    assert race.done > 50
    assert race.conflicts > 50


async def test_the_same_race_without_the_guard_does_lose_updates(
    api: TroubledCluster, cluster: KubernetesCluster, tmp_path: Path
) -> None:
    config = KubeConfig.from_file(tmp_path / "kubeconfig")
    async with AsyncClient(config, field_manager="infrasage", trust_env=False) as plain:

        async def unguarded(_: int, target: int) -> None:
            patch = {"spec": {"replicas": target}}
            await plain.patch(DeploymentScale, DEPLOYMENT, patch, namespace=NAMESPACE, patch_type=PatchType.MERGE)

        race = await run_race(api, cluster, unguarded, rounds=100, seed=7)
    assert race.lost > 0
    assert race.conflicts == 0


async def test_a_rollout_is_followed_to_its_end(tmp_path: Path) -> None:
    clock = HandClock()
    async with TroubledCluster(rollout=timedelta(seconds=10), clock=clock) as api:
        api.add_deployment(*WHERE, 3, "payment-api:2.3.1")
        async with connected(api.write_kubeconfig(tmp_path / "kubeconfig")) as cluster:
            assert (await cluster.rollout_status(*WHERE)).is_complete
            await cluster.set_replicas(*WHERE, expected=3, target=5)
            said: list[tuple[bool, str]] = []
            for seconds in (0, 2, 6, 10):
                clock.seconds = seconds
                status = await cluster.rollout_status(*WHERE)
                said.append((status.is_complete, status.progress))
    assert said == [
        (False, "payment-api: waiting for the cluster to notice the change"),
        (False, "payment-api: 3 of 5 updated replicas are available"),
        (False, "payment-api: 4 of 5 updated replicas are available"),
        (True, "payment-api: rolled out, 5 of 5 replicas are available"),
    ]


async def test_check_proves_that_the_cluster_knows_our_credentials(api: TroubledCluster, cluster: KubernetesCluster) -> None:
    assert await cluster.check() == f"{api.url} answers; this account may scale deployments in every namespace"
    api.token = "renewed"
    with pytest.raises(Refused, match="does not accept our credentials"):
        await cluster.check()


async def test_check_tells_where_rights_are_only_a_namespaces(api: TroubledCluster, cluster: KubernetesCluster) -> None:
    review = {"kind": "SelfSubjectAccessReview", "spec": {}, "status": {"allowed": False}}
    api.answer_raw("POST", 201, json.dumps(review).encode(), "application/json")
    assert "only where a namespace's own Role allows it" in await cluster.check()


@pytest.mark.parametrize(
    ("namespace", "deployment", "named"),
    [
        ("", DEPLOYMENT, "namespace ''"),
        (NAMESPACE, "", "deployment ''"),
        ("*", DEPLOYMENT, "namespace '*'"),
        ("Production", DEPLOYMENT, "namespace 'Production'"),
        ("production\n", DEPLOYMENT, "namespace"),
        ("a" * 64, DEPLOYMENT, "namespace"),
        ("a.b", DEPLOYMENT, "namespace 'a.b'"),
        (NAMESPACE, "../secrets", "deployment '../secrets'"),
        (NAMESPACE, "payment-api/scale", "deployment"),
        (NAMESPACE, "payment-api?dryRun=All", "deployment"),
        (NAMESPACE, "-payment", "deployment '-payment'"),
        (NAMESPACE, "a..b", "deployment 'a..b'"),
        (NAMESPACE, ".".join(["a" * 63] * 4), "deployment"),
    ],
)
async def test_a_name_that_is_empty_or_no_kubernetes_name_is_refused_before_anything_is_sent(
    api: TroubledCluster, cluster: KubernetesCluster, namespace: str, deployment: str, named: str
) -> None:
    for attempt in (
        cluster.read_scale(namespace, deployment),
        cluster.rollout_status(namespace, deployment),
        cluster.set_replicas(namespace, deployment, expected=3, target=5),
    ):
        with pytest.raises(InvalidStep) as caught:
            await attempt
        assert named in str(caught.value)
        assert "allowed are lower-case letters, digits and '-'" in str(caught.value)
    assert api.requests == []


@pytest.mark.parametrize(("expected", "target"), [(3, -1), (-1, 3), (3, 2**31), (3, True), (3, 2.5)])
async def test_a_count_outside_of_what_the_api_holds_is_refused_before_anything_is_sent(
    api: TroubledCluster, cluster: KubernetesCluster, expected: int, target: int
) -> None:
    with pytest.raises(InvalidStep, match="a whole number from 0 to 2147483647"):
        await cluster.set_replicas(*WHERE, expected=expected, target=target)
    assert api.requests == []


async def test_closing_leaves_no_connection_behind(api: TroubledCluster, tmp_path: Path) -> None:
    kubeconfig = api.write_kubeconfig(tmp_path / "kubeconfig")

    async def warnings_of_one_client(*, close: bool) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            client = KubernetesCluster.from_environment(kubeconfig)
            await client.read_scale(*WHERE)
            if close:
                await client.aclose()
            del client
            gc.collect()
            await turns(3)
            gc.collect()
        return [str(one.message) for one in caught if one.category is ResourceWarning]

    assert await warnings_of_one_client(close=True) == []
    assert await warnings_of_one_client(close=False) != []
