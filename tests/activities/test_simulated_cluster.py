"""The simulated cluster itself: what the demo and the other tests lean on must behave as an API server does."""

import contextlib
import stat
import time
from collections.abc import AsyncGenerator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import kubernetes_validate
import pytest

from cli.simulated_cluster import SimulatedCluster
from tests.peers.cluster import HandClock

WHERE = ("production", "payment-api")
PATH = "/apis/apps/v1/namespaces/production/deployments/payment-api"
KUBERNETES_VERSION = "1.37"

GUARDED = [{"op": "test", "path": "/spec/replicas", "value": 3}, {"op": "replace", "path": "/spec/replicas", "value": 5}]


@contextlib.asynccontextmanager
async def running(
    rollout: timedelta = timedelta(0), clock: Callable[[], float] = time.monotonic
) -> AsyncGenerator[tuple[SimulatedCluster, aiohttp.ClientSession]]:
    async with SimulatedCluster(rollout=rollout, clock=clock) as api:
        api.add_deployment(*WHERE, 3, "payment-api:2.3.1")
        headers = {"Authorization": f"Bearer {api.token}"}
        async with aiohttp.ClientSession(api.url, headers=headers) as client:
            yield api, client


async def patch(
    client: aiohttp.ClientSession, body: object, *, kind: str = "json-patch", path: str = f"{PATH}/scale", query: str = ""
) -> tuple[int, dict[str, Any]]:
    headers = {"Content-Type": f"application/{kind}+json"}
    async with client.patch(path + query, json=body, headers=headers) as answer:
        return answer.status, await answer.json()


async def get(client: aiohttp.ClientSession, path: str) -> tuple[int, dict[str, Any]]:
    async with client.get(path) as answer:
        return answer.status, await answer.json()


async def test_every_deployment_it_shows_is_valid_for_kubernetes() -> None:
    clock = HandClock()
    async with running(rollout=timedelta(seconds=10), clock=clock) as (api, client):
        api.add_deployment("default", "idle", 0)
        _, before = await get(client, PATH)
        api.set_replicas(*WHERE, 5)
        _, unseen = await get(client, PATH)
        clock.seconds = 6
        _, during = await get(client, PATH)
        clock.seconds = 10
        _, after = await get(client, PATH)
        for document in (before, unseen, during, after, api.deployment("default", "idle")):
            kubernetes_validate.validate(document, KUBERNETES_VERSION, strict=True)
    assert (unseen["metadata"]["generation"], unseen["status"]["observedGeneration"]) == (2, 1)
    assert (during["status"]["readyReplicas"], during["status"]["unavailableReplicas"]) == (4, 1)
    assert (after["status"]["readyReplicas"], "unavailableReplicas" in after["status"]) == (5, False)


async def test_every_replica_set_node_and_pod_it_shows_is_valid_for_kubernetes() -> None:
    async with running() as (api, client):
        api.set_image(*WHERE, "payment-api:2.3.2")
        api.nodes.add("node-1")
        api.nodes.add_pod("production", "one", "node-1", controller="Job", phase="Failed", empty_dir=True)
        api.nodes.add_pod("kube-system", "two", "node-1", controller=None, is_mirror=True)
        api.nodes.set_unschedulable("node-1", True)
        _, kept = await get(client, "/apis/apps/v1/namespaces/production/replicasets?labelSelector=app%3Dpayment-api")
        _, pods = await get(client, "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1")
        _, node = await get(client, "/api/v1/nodes/node-1")
        assert (len(kept["items"]), len(pods["items"])) == (2, 2)
        for document in (*kept["items"], *pods["items"], node, api.deployment(*WHERE)):
            kubernetes_validate.validate(document, KUBERNETES_VERSION, strict=True)


async def test_revisions_are_counted_as_the_deployment_controller_counts_them() -> None:
    async with running() as (api, client):
        api.set_image(*WHERE, "payment-api:2.3.2")
        api.set_image(*WHERE, "payment-api:2.3.1")  # the first template again: its ReplicaSet gets the highest number
        _, kept = await get(client, "/apis/apps/v1/replicasets")
        numbers = [one["metadata"]["annotations"]["deployment.kubernetes.io/revision"] for one in kept["items"]]
        assert numbers == ["3", "2"]
        deployment = api.deployment(*WHERE)
        assert deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"
        assert deployment["status"]["observedGeneration"] == deployment["metadata"]["generation"]
        hashes = {one["metadata"]["labels"]["pod-template-hash"] for one in kept["items"]}
        assert len(hashes) == 2
        assert (await get(client, "/apis/apps/v1/replicasets?labelSelector=app%3Dnobody"))[1]["items"] == []


async def test_a_template_is_rolled_out_pod_by_pod() -> None:
    clock = HandClock()
    async with running(rollout=timedelta(seconds=10), clock=clock) as (api, _):
        api.set_image(*WHERE, "payment-api:2.3.2")
        seen: list[tuple[int, int]] = []
        for seconds in (0, 5, 9, 10):
            clock.seconds = seconds
            status = api.deployment(*WHERE)["status"]
            kubernetes_validate.validate(api.deployment(*WHERE), KUBERNETES_VERSION, strict=True)
            seen.append((status["replicas"], status["updatedReplicas"]))
    assert seen == [(3, 3), (4, 2), (4, 3), (3, 3)]


async def test_a_patch_of_another_version_is_409_and_changes_nothing() -> None:
    async with running() as (api, client):
        api.nodes.add("node-1")
        stale = {"metadata": {"resourceVersion": "0"}, "spec": {"unschedulable": True}}
        for path, body in (("/api/v1/nodes/node-1", stale), (PATH, {**stale, "spec": {"replicas": 9}})):
            code, status = await patch(client, body, kind="strategic-merge-patch", path=path)
            assert (code, status["reason"]) == (409, "Conflict")
        assert (api.writes, api.nodes.writes) == ([], [])


async def test_a_template_that_the_selector_does_not_match_is_refused() -> None:
    async with running() as (api, client):
        body = [{"op": "replace", "path": "/spec/template/metadata/labels", "value": {"app": "other"}}]
        assert (await patch(client, body, path=PATH))[0] == 422
        assert api.workloads.template_writes == []


async def test_an_eviction_tells_a_pod_to_stop_and_is_held_by_its_budget() -> None:
    clock = HandClock()
    async with running(rollout=timedelta(seconds=30), clock=clock) as (api, client):
        api.nodes.add("node-1")
        api.nodes.add_pod("production", "one", "node-1")
        path = "/api/v1/namespaces/production/pods/one/eviction"

        async def evict(uid: str | None = None, query: str = "") -> int:
            options = {"deleteOptions": {"preconditions": {"uid": uid}}} if uid else {}
            async with client.post(path + query, json={"kind": "Eviction", "apiVersion": "policy/v1", **options}) as answer:
                return answer.status

        api.nodes.hold("production", "one")
        assert await evict() == 429
        api.nodes.release("production", "one")
        assert (await evict("another"), await evict(query="?dryRun=All")) == (409, 201)
        assert api.nodes.evictions == []
        assert (await evict(), api.nodes.evictions) == (201, [("production", "one")])
        (pod,) = api.nodes.pods("node-1")
        kubernetes_validate.validate(pod, KUBERNETES_VERSION, strict=True)
        clock.seconds = 30
        assert (api.nodes.pods("node-1"), await evict()) == ([], 404)


async def test_its_scale_is_valid_for_kubernetes_and_leaves_a_zero_out() -> None:
    async with running() as (api, client):
        _, scale = await get(client, f"{PATH}/scale")
        kubernetes_validate.validate(scale, KUBERNETES_VERSION, strict=True)
        assert scale["spec"] == {"replicas": 3}
        assert scale["metadata"]["uid"] == api.deployment(*WHERE)["metadata"]["uid"]
        api.set_replicas(*WHERE, 0)
        assert (await get(client, f"{PATH}/scale"))[1]["spec"] == {}
        assert (await get(client, PATH))[1]["spec"]["replicas"] == 0


async def test_a_json_patch_whose_test_fails_is_422_and_changes_nothing() -> None:
    async with running() as (api, client):
        api.set_replicas(*WHERE, 7)
        code, status = await patch(client, GUARDED)
        assert (code, status["kind"], status["reason"], status["code"]) == (422, "Status", "Invalid", 422)
        assert status["message"] == "the server rejected our request due to an error in our request"
        assert api.replicas(*WHERE) == 7
        assert [write.field_manager for write in api.writes] == ["kubectl"]


async def test_a_patch_is_stored_with_its_field_manager_unless_it_is_a_dry_run() -> None:
    async with running() as (api, client):
        code, scale = await patch(client, GUARDED, query="?dryRun=All")
        assert (code, scale["spec"]["replicas"], api.replicas(*WHERE)) == (200, 5, 3)
        assert api.writes == []
        code, scale = await patch(client, GUARDED, query="?fieldManager=infrasage")
        assert (code, scale["spec"]["replicas"], api.replicas(*WHERE)) == (200, 5, 5)
        assert [(write.before, write.after, write.field_manager) for write in api.writes] == [(3, 5, "infrasage")]
        assert (await patch(client, GUARDED, query="?dryRun=Most"))[0] == 422


async def test_a_merge_patch_overwrites_without_asking() -> None:
    async with running() as (api, client):
        assert (await patch(client, {"spec": {"replicas": 9}}, kind="merge-patch"))[0] == 200
        assert api.replicas(*WHERE) == 9
        assert (await patch(client, {"spec": {"replicas": None}}, kind="merge-patch"))[0] == 200
        assert api.replicas(*WHERE) == 0


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        ({"spec": {"replicas": -1}}, "merge-patch", 422),
        ({"spec": {"replicas": "five"}}, "merge-patch", 422),
        ({"spec": {"replicas": 5}}, "apply-patch", 415),
        ({"spec": {"replicas": -5}}, "strategic-merge-patch", 422),
        ({"spec": {"replicas": [5]}}, "strategic-merge-patch", 400),
        ({"spec": {"replicas": 5}}, "json-patch", 400),
        ([], "merge-patch", 400),
        ([{"op": "replace", "path": "/spec/absent", "value": 1}], "json-patch", 422),
        ([{"op": "explode", "path": "/spec/replicas"}], "json-patch", 422),
    ],
)
async def test_a_patch_that_an_api_server_refuses_is_refused(body: object, kind: str, code: int) -> None:
    async with running() as (api, client):
        answered, status = await patch(client, body, kind=kind)
        assert (answered, status["kind"]) == (code, "Status")
        assert api.writes == []


async def test_an_unknown_deployment_is_a_proper_status_object() -> None:
    async with running() as (_, client):
        for path in (PATH.replace("payment-api", "checkout"), PATH.replace("production", "staging")):
            for code, status in (await get(client, path), await patch(client, GUARDED, path=f"{path}/scale")):
                name = path.rpartition("/")[2]
                assert (code, status["kind"], status["reason"]) == (404, "Status", "NotFound")
                assert status["message"] == f'deployments.apps "{name}" not found'
                assert status["details"] == {"group": "apps", "kind": "deployments", "name": name}


async def test_what_is_not_simulated_says_so() -> None:
    async with running() as (_, client):
        async with client.delete(PATH) as answer:
            assert (answer.status, (await answer.json())["reason"]) == (405, "MethodNotAllowed")
        assert (await get(client, "/api/v1/namespaces/production/pods/x"))[0] == 405
        assert (await get(client, "/api/v1/namespaces/production/secrets/x"))[0] == 404


async def test_nobody_gets_in_without_the_token() -> None:
    async with running() as (api, client):
        for headers in ({"Authorization": ""}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer é"}):
            async with client.get(PATH, headers=headers) as answer:
                assert answer.status == 401
        async with client.get(PATH, headers={"authorization": f"Bearer {api.token}"}) as answer:
            assert answer.status == 200


async def test_discovery_and_lists_name_the_deployments() -> None:
    async with running() as (api, client):
        api.add_deployment("staging", "payment-api", 1)
        resources = (await get(client, "/apis/apps/v1"))[1]["resources"]
        assert {one["name"] for one in resources} == {"deployments", "deployments/scale", "replicasets"}
        everywhere = (await get(client, "/apis/apps/v1/deployments"))[1]
        assert [one["metadata"]["namespace"] for one in everywhere["items"]] == ["production", "staging"]
        assert len((await get(client, "/apis/apps/v1/namespaces/staging/deployments"))[1]["items"]) == 1
        assert (await get(client, "/version"))[0] == 200


async def test_the_kubeconfig_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    async with running() as (api, _):
        path = api.write_kubeconfig(tmp_path / "kubeconfig")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert api.token in path.read_text()


async def test_two_clusters_may_be_left_in_any_order() -> None:
    first, second = SimulatedCluster(), SimulatedCluster()
    await first.__aenter__()
    await second.__aenter__()
    assert first.url != second.url
    await first.__aexit__(None, None, None)
    await second.__aexit__(None, None, None)
    with pytest.raises(RuntimeError, match="not running"):
        _ = first.url


async def test_the_log_of_requests_holds_no_credential() -> None:
    async with running() as (api, client):
        await get(client, PATH)
        assert api.requests[0].path == PATH
        assert api.token not in repr(api.requests)
