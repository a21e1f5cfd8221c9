"""How the Kubernetes client fails: every refusal, silence and nonsense has its place in the error tree."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from activities.clients.cluster import KubernetesCluster
from activities.errors import (
    Conflict,
    InvalidStep,
    OrchestratorError,
    RateLimited,
    Refused,
    Unreachable,
    to_application_error,
)
from tests.peers.cluster import TroubledCluster, connected, write_kubeconfig

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


async def test_a_cluster_that_is_gone_is_unreachable(tmp_path: Path) -> None:
    async with TroubledCluster() as api:
        kubeconfig, url = api.write_kubeconfig(tmp_path / "kubeconfig"), api.url
    async with connected(kubeconfig) as cluster:
        with pytest.raises(Unreachable, match=f"{url} cannot be reached"):
            await cluster.read_scale(*WHERE)


async def test_a_silent_cluster_is_unreachable_within_the_timeout(api: TroubledCluster, tmp_path: Path) -> None:
    async with connected(api.write_kubeconfig(tmp_path / "kubeconfig"), seconds=0.2) as cluster:
        api.stay_silent("GET")
        with pytest.raises(Unreachable, match=r"did not answer within 0\.2 s"):
            await cluster.read_scale(*WHERE)


@contextlib.asynccontextmanager
async def serving(answer: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> AsyncGenerator[str]:
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
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", {"server": url}, {"token": "any"})
        async with connected(kubeconfig, seconds=0.3) as cluster:
            with pytest.raises(Unreachable, match=r"did not answer within 0\.3 s"):
                await asyncio.wait_for(cluster.read_scale(*WHERE), 5)


async def test_a_connection_that_breaks_is_unreachable(tmp_path: Path) -> None:
    async def hang_up(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{")
        await writer.drain()

    async with serving(hang_up) as url:
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", {"server": url}, {"token": "any"})
        async with connected(kubeconfig) as cluster:
            with pytest.raises(Unreachable, match="broke off the call"):
                await cluster.read_scale(*WHERE)


async def test_a_long_message_of_the_server_is_clipped(api: TroubledCluster, cluster: KubernetesCluster) -> None:
    api.deny("GET", 500, "InternalError", "x" * 100_000)
    with pytest.raises(Unreachable) as caught:
        await cluster.read_scale(*WHERE)
    assert len(str(caught.value)) < 500
