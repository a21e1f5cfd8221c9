"""The Kubernetes client against a simulated API server on loopback: guard, refusals, credentials, hygiene."""

import asyncio
import contextlib
import gc
import json
import random
import sys
import time
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
from activities.errors import (
    Conflict,
    InvalidStep,
    NotConfigured,
    OrchestratorError,
    RateLimited,
    Refused,
    Unreachable,
    to_application_error,
)
from tests.peers.cluster import (
    TroubledCluster,
    server_tls,
    write_authority,
    write_certificate_kubeconfig,
    write_kubeconfig,
)

NAMESPACE, DEPLOYMENT = "production", "payment-api"
WHERE = (NAMESPACE, DEPLOYMENT)
SECRET = "sw0rdf1sh-t0ken"


@pytest.fixture
async def api() -> AsyncIterator[TroubledCluster]:
    async with TroubledCluster() as running:
        running.add_deployment(*WHERE, 3, "payment-api:2.3.1")
        yield running


@pytest.fixture
async def cluster(api: TroubledCluster, tmp_path: Path) -> AsyncIterator[KubernetesCluster]:
    async with connected(api.write_kubeconfig(tmp_path / "kubeconfig")) as client:
        yield client


@contextlib.asynccontextmanager
async def connected(
    kubeconfig: Path | None, *, service_account: Path = Path("/nowhere"), seconds: float = 10
) -> AsyncIterator[KubernetesCluster]:
    client = KubernetesCluster.from_environment(
        kubeconfig, service_account=service_account, call_timeout=timedelta(seconds=seconds)
    )
    try:
        yield client
    finally:
        await client.aclose()


# Reading and scaling


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


async def test_a_count_that_admission_rewrote_is_not_reported_as_done(api: TroubledCluster, cluster: KubernetesCluster) -> None:
    body = {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {"uid": "u"}, "spec": {"replicas": 4}}
    api.answer_raw("PATCH", 200, json.dumps(body).encode(), "application/json")
    with pytest.raises(Refused, match="was to have 5 replicas, but an admission rule of the cluster made it 4"):
        await cluster.set_replicas(*WHERE, expected=3, target=5)


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


# Rollout and check


async def test_a_rollout_is_followed_to_its_end(tmp_path: Path) -> None:
    async with TroubledCluster(rollout=timedelta(milliseconds=150)) as api:
        api.add_deployment(*WHERE, 3, "payment-api:2.3.1")
        async with connected(api.write_kubeconfig(tmp_path / "kubeconfig")) as cluster:
            assert (await cluster.rollout_status(*WHERE)).is_complete
            await cluster.set_replicas(*WHERE, expected=3, target=5)
            status = await cluster.rollout_status(*WHERE)
            assert not status.is_complete
            said = {status.progress}
            deadline = time.monotonic() + 10
            while not status.is_complete and time.monotonic() < deadline:
                status = await cluster.rollout_status(*WHERE)
                said.add(status.progress)
            assert status.progress == "payment-api: rolled out, 5 of 5 replicas are available"
            assert "payment-api: waiting for the cluster to notice the change" in said
            assert "payment-api: 3 of 5 updated replicas are available" in said


async def test_check_proves_that_the_cluster_knows_our_credentials(api: TroubledCluster, cluster: KubernetesCluster) -> None:
    assert await cluster.check() == f"{api.url} answers; this account may scale deployments in every namespace"
    api.token = "renewed"
    with pytest.raises(Refused, match="does not accept our credentials"):
        await cluster.check()


async def test_check_tells_where_rights_are_only_a_namespaces(api: TroubledCluster, cluster: KubernetesCluster) -> None:
    review = {"kind": "SelfSubjectAccessReview", "spec": {}, "status": {"allowed": False}}
    api.answer_raw("POST", 201, json.dumps(review).encode(), "application/json")
    assert "only where a namespace's own Role allows it" in await cluster.check()


# Names and numbers


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


# Refusals and failures


async def test_an_unknown_deployment_is_an_invalid_step_that_names_it(cluster: KubernetesCluster) -> None:
    for attempt in (
        cluster.read_scale(NAMESPACE, "checkout"),
        cluster.set_replicas(NAMESPACE, "checkout", expected=3, target=5),
    ):
        with pytest.raises(InvalidStep, match="there is no deployment checkout in namespace production"):
            await attempt


async def test_a_forbidden_verb_is_refused_with_verb_and_resource_and_the_servers_reason(
    api: TroubledCluster, cluster: KubernetesCluster
) -> None:
    api.deny("PATCH", 403, "Forbidden", 'User "infrasage" cannot patch resource "deployments/scale"')
    with pytest.raises(Refused) as caught:
        await cluster.set_replicas(*WHERE, expected=3, target=5)
    assert str(caught.value) == (
        "the cluster does not let us patch deployments.apps/scale in namespace production: an RBAC rule for that verb may"
        ' be missing (it says: User "infrasage" cannot patch resource "deployments/scale")'
    )
    assert to_application_error(caught.value).non_retryable


async def test_an_expired_token_is_refused_with_the_verb_and_the_way_out(api: TroubledCluster, cluster: KubernetesCluster) -> None:
    api.token = "renewed"
    with pytest.raises(Refused, match=r"\(get deployments.apps in namespace production\): renew what KUBECONFIG holds"):
        await cluster.read_scale(*WHERE)


@pytest.mark.parametrize(
    ("code", "expected", "retry_after"),
    [
        (400, Refused, None),
        (409, Conflict, None),
        (410, Refused, None),
        (429, RateLimited, timedelta(seconds=7)),
        (500, Unreachable, timedelta(seconds=7)),
        (503, Unreachable, timedelta(seconds=7)),
        (504, Unreachable, timedelta(seconds=7)),
    ],
)
async def test_every_refusal_has_its_place_in_the_error_tree(
    api: TroubledCluster,
    cluster: KubernetesCluster,
    code: int,
    expected: type[OrchestratorError],
    retry_after: timedelta | None,
) -> None:
    api.deny("PATCH", code, "Reason", "the words of the server", headers={"Retry-After": "7"})
    with pytest.raises(expected, match=r"patch deployments.apps/scale in namespace production.*the words") as caught:
        await cluster.set_replicas(*WHERE, expected=3, target=5)
    assert type(caught.value) is expected
    assert to_application_error(caught.value).next_retry_delay == retry_after
    assert api.writes == []


@pytest.mark.parametrize("wish", ["-1", "soon", "9" * 5_000, "Wed, 21 Oct 2026 07:28:00 GMT", "١"])
async def test_an_unreadable_retry_after_is_left_out(api: TroubledCluster, cluster: KubernetesCluster, wish: str) -> None:
    api.deny("GET", 429, "TooManyRequests", "slow down", headers={"Retry-After": wish})
    with pytest.raises(RateLimited) as caught:
        await cluster.read_scale(*WHERE)
    assert caught.value.retry_after is None


@pytest.mark.parametrize(
    ("code", "body", "content_type", "expected"),
    [
        (200, b"<html>log in</html>", "text/html", Unreachable),
        (200, b'{"kind": "Deployment", "spec": 7}', "application/json", Unreachable),
        (502, b"<html>bad gateway</html>", "text/html", Unreachable),
        (502, b"bad gateway", None, Unreachable),
        (503, b"not json", "application/json", Unreachable),
        (503, b'{"code": "not a Status"}', "application/json", Unreachable),
        (403, b"[]", "application/json", Refused),
        (403, b'{"message": ["no text"]}', "application/json", Refused),
        (302, b"", "text/html", Refused),
    ],
)
async def test_answers_of_something_else_than_an_api_server_are_errors_too(
    api: TroubledCluster,
    cluster: KubernetesCluster,
    code: int,
    body: bytes,
    content_type: str | None,
    expected: type[OrchestratorError],
) -> None:
    api.answer_raw("GET", code, body, content_type)
    with pytest.raises(expected, match=r"get deployments\.apps in namespace production") as caught:
        await cluster.read_scale(*WHERE)
    assert code == 200 or code == 403 or str(code) in str(caught.value)


async def test_a_cluster_that_is_gone_is_unreachable(api: TroubledCluster, tmp_path: Path) -> None:
    kubeconfig = api.write_kubeconfig(tmp_path / "gone")
    url = api.url
    await api.__aexit__(None, None, None)
    async with connected(kubeconfig) as cluster:
        with pytest.raises(Unreachable, match=url):
            await cluster.read_scale(*WHERE)
    await api.__aenter__()


async def test_a_silent_cluster_is_unreachable_within_the_timeout(api: TroubledCluster, tmp_path: Path) -> None:
    async with connected(api.write_kubeconfig(tmp_path / "kubeconfig"), seconds=0.2) as cluster:
        api.stay_silent("GET")
        with pytest.raises(Unreachable, match=r"did not answer within 0\.2 s"):
            await cluster.read_scale(*WHERE)


@contextlib.asynccontextmanager
async def serving(answer: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """Serve every connection with `answer`, which need not speak HTTP; yields the address."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await answer(writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_cluster_that_answers_a_byte_at_a_time_does_not_outlast_the_timeout(tmp_path: Path) -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serving(drip) as url:
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", {"server": url}, {"token": SECRET})
        async with connected(kubeconfig, seconds=0.3) as cluster:
            with pytest.raises(Unreachable, match=r"did not answer within 0\.3 s"):
                await asyncio.wait_for(cluster.read_scale(*WHERE), 5)


async def test_a_connection_that_breaks_is_unreachable(tmp_path: Path) -> None:
    async def hang_up(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{")
        await writer.drain()

    async with serving(hang_up) as url:
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", {"server": url}, {"token": SECRET})
        async with connected(kubeconfig) as cluster:
            with pytest.raises(Unreachable, match="broke off the call"):
                await cluster.read_scale(*WHERE)


# Credentials


async def test_a_client_certificate_opens_the_cluster(tmp_path: Path) -> None:
    async with TroubledCluster(tls=server_tls(tmp_path, asks_for_a_certificate=True)) as api:
        api.add_deployment(*WHERE, 3)
        async with connected(write_certificate_kubeconfig(tmp_path / "kubeconfig", api.url)) as cluster:
            assert (await cluster.set_replicas(*WHERE, expected=3, target=5)).replicas == 5


async def test_a_server_certificate_of_a_stranger_is_not_trusted(tmp_path: Path) -> None:
    async with TroubledCluster(tls=server_tls(tmp_path)) as api:
        api.add_deployment(*WHERE, 3)
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", {"server": api.url}, {"token": api.token})
        async with connected(kubeconfig) as cluster:
            with pytest.raises(Unreachable, match="certificate verify failed"):
                await cluster.read_scale(*WHERE)
        assert api.requests == []


async def test_a_pod_connects_by_its_service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with TroubledCluster(tls=server_tls(tmp_path)) as api:
        api.add_deployment(*WHERE, 3)
        account = tmp_path / "serviceaccount"
        account.mkdir()
        (account / "token").write_text(api.token)
        (account / "namespace").write_text("infrasage")
        write_authority(account / "ca.crt")
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", api.url.rpartition(":")[2])
        async with connected(None, service_account=account) as cluster:
            assert (await cluster.read_scale(*WHERE)).replicas == 3


async def test_a_credential_plugin_is_run(api: TroubledCluster, tmp_path: Path) -> None:
    async with connected(plugin_kubeconfig(tmp_path, api.url, f"print('{token_json(api.token)}')")) as cluster:
        assert (await cluster.read_scale(*WHERE)).replicas == 3


@pytest.mark.parametrize(
    "program",
    [
        f"import sys; sys.exit('{SECRET}')",
        f"print('{SECRET}')",
        f"print('\"{SECRET}\"')",
        "print('{}')",
    ],
)
async def test_a_failing_credential_plugin_is_one_sentence_without_its_output(
    api: TroubledCluster, tmp_path: Path, program: str
) -> None:
    async with connected(plugin_kubeconfig(tmp_path, api.url, program)) as cluster:
        with pytest.raises(OrchestratorError) as caught:
            await cluster.read_scale(*WHERE)
    assert_bare(caught.value)


async def test_a_missing_credential_plugin_is_not_configured(api: TroubledCluster, tmp_path: Path) -> None:
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": str(tmp_path / "absent")}}
    async with connected(write_kubeconfig(tmp_path / "kubeconfig", {"server": api.url}, user)) as cluster:
        with pytest.raises(NotConfigured, match="credential plugin that KUBECONFIG names"):
            await cluster.read_scale(*WHERE)


def plugin_kubeconfig(folder: Path, server: str, program: str) -> Path:
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": sys.executable,
        "args": ["-S", "-c", program],
    }
    return write_kubeconfig(folder / "kubeconfig", {"server": server}, {"exec": plugin})


def token_json(token: str) -> str:
    return json.dumps({"status": {"token": token}})


async def test_loopback_is_never_sent_through_a_proxy(
    api: TroubledCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with connected(api.write_kubeconfig(tmp_path / "kubeconfig")) as cluster:
        assert (await cluster.read_scale(*WHERE)).replicas == 3


async def test_without_any_credentials_the_sentence_names_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".kube").mkdir()
    write_kubeconfig(tmp_path / ".kube" / "config", {"server": "https://127.0.0.1:1"}, {"token": SECRET})
    with pytest.raises(NotConfigured, match="set KUBECONFIG to the path of a kubeconfig file"):
        KubernetesCluster.from_environment(None, service_account=tmp_path / "absent")


GOOD_CLUSTERS = "clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\n"
GOOD_CONTEXTS = "contexts: [{name: x, context: {cluster: c, user: u}}]\ncurrent-context: x\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"users: [{{name: u, user: {{token: {SECRET}\n", "it is not YAML"),
        (f"{SECRET}\n", "it needs clusters, contexts, users and a current-context"),
        ("", "it needs clusters"),
        (f"[{SECRET}]\n", "it needs clusters"),
        (GOOD_CLUSTERS + GOOD_CONTEXTS, "it needs clusters"),
        (GOOD_CLUSTERS + f"users: [{{name: u, user: {SECRET}}}]\n" + GOOD_CONTEXTS, "it needs clusters"),
        (GOOD_CLUSTERS + f"users: []\ncontexts: []\ncurrent-context: {SECRET}\n", "it needs clusters"),
        (GOOD_CLUSTERS + "contexts: [{name: x, context: {cluster: c}}]\ncurrent-context: x\n", "it names no user"),
        (
            GOOD_CLUSTERS.replace("https", "ftp") + f"users: [{{name: u, user: {{token: {SECRET}}}}}]\n" + GOOD_CONTEXTS,
            "https:// address",
        ),
        (
            GOOD_CLUSTERS.replace("https://127.0.0.1", "http://cluster.example")
            + f"users: [{{name: u, user: {{token: {SECRET}}}}}]\n"
            + GOOD_CONTEXTS,
            "http:// is allowed on this machine alone",
        ),
        (
            GOOD_CLUSTERS.replace("https://127.0.0.1", "https://[127")
            + f"users: [{{name: u, user: {{token: {SECRET}}}}}]\n"
            + GOOD_CONTEXTS,
            "it needs clusters",
        ),
        (
            GOOD_CLUSTERS
            + f"users: [{{name: u, user: {{client-certificate-data: {SECRET}, client-key-data: {SECRET}}}}}]\n"
            + GOOD_CONTEXTS,
            "cannot be used",
        ),
        (
            GOOD_CLUSTERS
            + "users: [{name: u, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: aws}}}]\n"
            + GOOD_CONTEXTS,
            "credential plugin of a version other than",
        ),
        (
            GOOD_CLUSTERS + f"users: [{{name: u, user: {{auth-provider: {{token: {SECRET}}}}}}}]\n" + GOOD_CONTEXTS,
            "kind of authentication cannot be loaded",
        ),
    ],
)
async def test_a_kubeconfig_that_cannot_be_used_is_one_sentence_that_quotes_nothing_of_it(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(NotConfigured) as caught:
        KubernetesCluster.from_environment(path)
    assert "the KUBECONFIG file" in str(caught.value)
    assert said in str(caught.value)
    assert_bare(caught.value)


async def test_a_kubeconfig_that_is_not_there_or_is_several_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match="absent, which is not a file"):
        KubernetesCluster.from_environment(tmp_path / "absent")
    with pytest.raises(NotConfigured, match="names several files"):
        KubernetesCluster.from_environment(Path(f"{tmp_path / 'one'}:{tmp_path / 'two'}"))


@pytest.mark.parametrize("token", [f"{SECRET}\nX-Injected: yes", f"{SECRET}\ud800"])
async def test_a_token_that_fits_no_header_is_not_quoted(api: TroubledCluster, tmp_path: Path, token: str) -> None:
    kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", {"server": api.url}, {"token": token})
    async with connected(kubeconfig) as cluster:
        with pytest.raises(NotConfigured, match="check the token") as caught:
            await cluster.read_scale(*WHERE)
    assert_bare(caught.value)


@pytest.mark.parametrize("said", ["you sent {token}", "Authorization: Bearer {token}", "{token}{token}"])
async def test_a_server_that_repeats_the_token_does_not_bring_it_into_the_error(
    api: TroubledCluster, tmp_path: Path, said: str
) -> None:
    kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", {"server": api.url}, {"token": SECRET})
    async with connected(kubeconfig) as cluster:
        api.deny("GET", 403, "Forbidden", said.format(token=SECRET))
        with pytest.raises(Refused, match=r"\[hidden\]") as caught:
            await cluster.read_scale(*WHERE)
    assert_bare(caught.value)


def assert_bare(error: BaseException) -> None:
    """Assert that neither the text nor anything that hangs on the error holds the secret."""
    assert SECRET not in str(error)
    assert error.__cause__ is None
    assert error.__context__ is None


async def test_a_long_message_of_the_server_is_clipped(api: TroubledCluster, cluster: KubernetesCluster) -> None:
    api.deny("GET", 500, "InternalError", "x" * 100_000)
    with pytest.raises(Unreachable) as caught:
        await cluster.read_scale(*WHERE)
    assert len(str(caught.value)) < 500


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
