"""What the Kubernetes client reads out of objects: revisions, templates, pods, and what it writes to roll back."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonpatch
import msgspec
import pytest
from lightkube.resources.core_v1 import Pod

from activities.clients.cluster import KubernetesCluster
from activities.clients.cluster_nodes import pod_of
from activities.clients.cluster_objects import PodOnNode
from activities.clients.cluster_templates import revision_of, rollback_patch, state_of
from activities.errors import Conflict, InvalidStep, RateLimited, Unreachable
from cli.simulated_deployment import new_deployment, new_replica_set
from tests.peers.cluster import TroubledCluster, connected

WHERE = ("production", "payment-api")


@pytest.fixture
async def api() -> AsyncIterator[TroubledCluster]:
    async with TroubledCluster() as running:
        running.add_deployment(*WHERE, 3, "payment-api:2.3.0")
        running.set_image(*WHERE, "payment-api:2.3.1")
        running.nodes.add("node-1")
        yield running


@pytest.fixture
async def cluster(api: TroubledCluster, tmp_path: Path) -> AsyncIterator[KubernetesCluster]:
    async with connected(api.write_kubeconfig(tmp_path / "kubeconfig")) as client:
        yield client


def test_a_template_and_the_replica_set_that_keeps_it_have_one_digest() -> None:
    deployment = new_deployment(*WHERE, 3, "payment-api:2.3.0", "1")
    kept = new_replica_set(deployment, 4, "2")
    assert state_of(deployment).digest == revision_of(kept).digest
    assert revision_of(kept).number == 4
    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = "payment-api:2.3.1"
    assert state_of(deployment).digest != revision_of(kept).digest


@pytest.mark.parametrize(("annotation", "number"), [("14", 14), ("", 0), ("-1", 0), ("x", 0), ("١", 0)])
def test_a_revision_that_is_no_number_is_not_counted(annotation: str, number: int) -> None:
    deployment = new_deployment(*WHERE, 3, "payment-api:2.3.0", "1")
    deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = annotation
    assert state_of(deployment).revision == number


@pytest.mark.parametrize(
    ("path", "value"), [("/metadata/generation", 2), ("/metadata/annotations/deployment.kubernetes.io~1revision", "2")]
)
def test_the_rollback_patch_does_not_apply_to_a_deployment_that_moved(path: str, value: object) -> None:
    deployment = new_deployment(*WHERE, 3, "payment-api:2.3.1", "1")
    target = revision_of(new_replica_set(new_deployment(*WHERE, 3, "payment-api:2.3.0", "1"), 1, "2"))
    patch: list[dict[str, Any]] = rollback_patch(state_of(deployment), target)
    rolled_back = jsonpatch.apply_patch(deployment, patch)
    assert rolled_back["spec"]["template"]["spec"]["containers"][0]["image"] == "payment-api:2.3.0"
    moved = jsonpatch.apply_patch(deployment, [{"op": "replace", "path": path, "value": value}])
    with pytest.raises(jsonpatch.JsonPatchTestFailed):
        jsonpatch.apply_patch(moved, patch)


def a_pod(**changes: Any) -> PodOnNode:
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": "u", "controller": True}
    metadata = {"name": "one", "namespace": "production", "uid": "1", "ownerReferences": [owner], **changes.pop("metadata", {})}
    spec = {"containers": [{"name": "main"}], **changes.pop("spec", {})}
    return pod_of(msgspec.convert({"metadata": metadata, "spec": spec, "status": {"phase": "Running"}, **changes}, Pod))


EMPTY_DIR = {"volumes": [{"name": "scratch", "emptyDir": {}}]}


@pytest.mark.parametrize(
    ("pod", "stays", "obstacle"),
    [
        (a_pod(), False, None),
        (a_pod(metadata={"ownerReferences": []}), False, "nothing would start it again"),
        (
            a_pod(metadata={"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"}]}),
            False,
            "nothing would start it again",
        ),
        (a_pod(spec=EMPTY_DIR), False, "its emptyDir would be lost"),
        (a_pod(spec=EMPTY_DIR, metadata={"deletionTimestamp": "2026-04-10T12:00:05Z"}), False, None),
        (a_pod(spec=EMPTY_DIR, status={"phase": "Failed"}), True, None),
        (a_pod(metadata={"ownerReferences": [], "annotations": {"kubernetes.io/config.mirror": "x"}}), True, None),
        (
            a_pod(
                spec=EMPTY_DIR,
                metadata={
                    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "u", "controller": True}]
                },
            ),
            True,
            None,
        ),
    ],
)
def test_a_pod_is_judged_as_kubectl_judges(pod: PodOnNode, stays: bool, obstacle: str | None) -> None:
    assert (pod.stays, pod.obstacle) == (stays, obstacle)


async def test_revisions_are_read_newest_first_with_their_images(cluster: KubernetesCluster) -> None:
    state = await cluster.read_template(*WHERE)
    kept = await cluster.read_revisions("production", state)
    assert [(one.number, one.image) for one in kept] == [(2, "payment-api:2.3.1"), (1, "payment-api:2.3.0")]
    assert (state.revision, state.digest) == (2, kept[0].digest)


async def test_what_a_write_saw_is_its_guard(api: TroubledCluster, cluster: KubernetesCluster) -> None:
    state, node = await cluster.read_template(*WHERE), await cluster.read_node("node-1")
    first = (await cluster.read_revisions("production", state))[1]
    api.set_image(*WHERE, "payment-api:2.3.2")
    api.nodes.set_unschedulable("node-1", True)
    before = len(api.workloads.template_writes)
    with pytest.raises(Conflict, match="was changed to revision 3"):
        await cluster.restart("production", state, "2026-04-10T12:00:05Z")
    with pytest.raises(Conflict, match="was changed to revision 3"):
        await cluster.roll_back("production", state, first)
    with pytest.raises(Conflict, match="somebody else cordoned node node-1"):
        await cluster.set_schedulable(node, False)
    assert len(api.workloads.template_writes) == before
    assert [write.field_manager for write in api.nodes.writes] == ["kubectl"]


async def test_an_answer_that_is_no_deployment_is_no_success(api: TroubledCluster, cluster: KubernetesCluster) -> None:
    for body in (b"{}", b'{"metadata": {}, "spec": null}', b"[]", b"<html>"):
        api.answer_raw("GET", 200, body, "application/json")
        with pytest.raises(Unreachable):
            await cluster.read_template(*WHERE)


async def test_a_pod_with_a_long_name_is_evicted_and_one_that_is_gone_is_no_failure(
    api: TroubledCluster, cluster: KubernetesCluster
) -> None:
    name = "a" * 90  # a pod's name may have 253 characters without a dot
    api.nodes.add_pod("production", name, "node-1")
    (pod,) = await cluster.list_pods("node-1")
    api.nodes.hold("production", name)
    with pytest.raises(RateLimited, match="disruption budget"):
        await cluster.evict(pod)
    api.nodes.release("production", name)
    assert await cluster.evict(pod)
    assert api.nodes.evictions == [("production", name)]
    assert not await cluster.evict(pod)


@pytest.mark.parametrize("node", ["", "*", "a/b", "Node-1", "node-1?dryRun=All"])
async def test_a_node_without_a_name_reaches_no_cluster(api: TroubledCluster, cluster: KubernetesCluster, node: str) -> None:
    for request in (cluster.read_node(node), cluster.list_pods(node)):
        with pytest.raises(InvalidStep, match="is not a Kubernetes name"):
            await request
    assert api.requests == []
