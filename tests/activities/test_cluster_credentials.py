"""The credentials of the Kubernetes client: every way to connect, and that none of them enters an error."""

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from activities.clients.cluster import KubernetesCluster
from activities.errors import NotConfigured, OrchestratorError, Refused, Unreachable
from tests.peers.cluster import (
    TroubledCluster,
    connected,
    server_tls,
    write_authority,
    write_certificate_kubeconfig,
    write_kubeconfig,
)

WHERE = ("production", "payment-api")
SECRET = "sw0rdf1sh-t0ken"


@pytest.fixture
async def api() -> AsyncIterator[TroubledCluster]:
    async with TroubledCluster() as running:
        running.add_deployment(*WHERE, 3, "payment-api:2.3.1")
        yield running


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
