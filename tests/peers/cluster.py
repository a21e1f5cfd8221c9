"""A simulated cluster that makes trouble on demand, and https material for it.

The simulation itself is `cli.simulated_cluster`; here is what only a test wants: refusals, lost answers, silence.
"""

import asyncio
import base64
import contextlib
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType

import kmock
import yaml
from aiohttp import web

from activities.clients.cluster import KubernetesCluster
from cli.simulated_cluster import Denied, SimulatedCluster, json_answer

Trouble = Callable[[kmock.Request], Awaitable[web.StreamResponse | None]]

# A throw-away authority and one certificate of it for 127.0.0.1, good for servers and clients, 2020 to 2120 (DER).
_AUTHORITY = (
    "MIIBYTCCAQegAwIBAgIBATAKBggqhkjOPQQDAjAXMRUwEwYDVQQDDAxzaW11bGF0ZWQtY2EwIBcNMjAwMTAxMDAwMDAwWhgPMjEy"
    "MDAxMDEwMDAwMDBaMBcxFTATBgNVBAMMDHNpbXVsYXRlZC1jYTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABMjDA8qhdtZBrRQP"
    "ZJ4PbV3DbQtuHkc8Ez4u1KHJGdxwsVyW5Axuc8nwkgIFhriAT5KloIUHfY9mElX5o55RIECjQjBAMA8GA1UdEwEB/wQFMAMBAf8w"
    "DgYDVR0PAQH/BAQDAgEGMB0GA1UdDgQWBBSRaUChrb1UQPPKC175gCxAJcEZBDAKBggqhkjOPQQDAgNIADBFAiA+f/0TeOxCHnk6"
    "+ZgguoSFC+lNsjtXDCIVAEJy0Hw2DAIhAJGP5SeEgZCq9DOqAyt8QHDsnoaLUqU/gL8g3P3v4VE7"
)
_CERTIFICATE = (
    "MIIBrTCCAVSgAwIBAgIBAjAKBggqhkjOPQQDAjAXMRUwEwYDVQQDDAxzaW11bGF0ZWQtY2EwIBcNMjAwMTAxMDAwMDAwWhgPMjEy"
    "MDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMMCXNpbXVsYXRlZDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABGqJFNaabIHtVCjgrp05"
    "1pPbGU9NXva/XKEP8JT/v8HilkAYlcitAPM07T4zKO+JJvu4TBOSR/cBwJGBuprW4hOjgZEwgY4wDAYDVR0TAQH/BAIwADAOBgNV"
    "HQ8BAf8EBAMCB4AwHQYDVR0lBBYwFAYIKwYBBQUHAwEGCCsGAQUFBwMCMA8GA1UdEQQIMAaHBH8AAAEwHQYDVR0OBBYEFFwYU4ql"
    "b5coKaspkcgvpdm0SewqMB8GA1UdIwQYMBaAFJFpQKGtvVRA88oLXvmALEAlwRkEMAoGCCqGSM49BAMCA0cAMEQCIDTuKICZ+oSy"
    "ggZZxtszPCPyjuJjppIaIoI2ynoEXiHaAiB/3g5wRD22eog2hjfDBpj0m4bVSMPrvBmzskDMq2M11g=="
)
_KEY = (
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgWhKxJ72ES57LcALDH1jWoqRdLtg6Rjr9hDiZa79fYqWhRANCAARq"
    "iRTWmmyB7VQo4K6dOdaT2xlPTV72v1yhD/CU/7/B4pZAGJXIrQDzNO0+MyjviSb7uEwTkkf3AcCRgbqa1uIT"
)


class HandClock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class TroubledCluster(SimulatedCluster):
    """A simulated cluster whose next answers a test can replace."""

    def __init__(
        self,
        *,
        rollout: timedelta = timedelta(0),
        clock: Callable[[], float] = time.monotonic,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(rollout=rollout, clock=clock, tls=tls)
        self._troubles: list[tuple[str, Trouble]] = []
        self._leaving = asyncio.Event()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leaving.set()
        await super().__aexit__(kind, error, traceback)

    async def answer(self, request: kmock.Request) -> web.StreamResponse | None:
        for position, (method, trouble) in enumerate(self._troubles):
            if method == request.method.value:
                del self._troubles[position]
                return await trouble(request)
        return await super().answer(request)

    def trouble(self, method: str, trouble: Trouble) -> None:
        """Let `trouble` answer the next request of this method."""
        self._troubles.append((method, trouble))

    def deny(self, method: str, code: int, reason: str, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        """Refuse the next request of this method with a Status object."""

        async def denied(_: kmock.Request) -> web.StreamResponse:
            return json_answer(Denied(code, reason, message).status, code, headers)

        self.trouble(method, denied)

    def answer_raw(self, method: str, code: int, body: bytes, content_type: str | None) -> None:
        """Answer the next request of this method as something else than an API server would."""

        async def raw(_: kmock.Request) -> web.StreamResponse:
            response = web.Response(status=code, body=body)
            if content_type is None:
                response.headers.popall("Content-Type", None)
            else:
                response.headers["Content-Type"] = content_type
            return response

        self.trouble(method, raw)

    def lose_the_answer(self, method: str) -> None:
        """Do what the next request of this method asks, and answer that the time was up."""

        async def lost(request: kmock.Request) -> web.StreamResponse:
            await SimulatedCluster.answer(self, request)
            return json_answer(Denied(504, "Timeout", "Timeout: request did not complete").status, 504)

        self.trouble(method, lost)

    def stay_silent(self, method: str) -> None:
        """Do not answer the next request of this method as long as the cluster runs."""

        async def silent(_: kmock.Request) -> web.StreamResponse | None:
            await self._leaving.wait()
            return json_answer({}, 503)

        self.trouble(method, silent)

    def change_before(self, method: str, namespace: str, deployment: str, replicas: int) -> None:
        """Let somebody else scale in the instant before the next request of this method is served."""
        self.before(method, lambda: self.set_replicas(namespace, deployment, replicas))

    def before(self, method: str, change: Callable[[], None]) -> None:
        """Let somebody else do something in the instant before the next request of this method is served."""

        async def overtaken(request: kmock.Request) -> web.StreamResponse | None:
            change()
            return await SimulatedCluster.answer(self, request)

        self.trouble(method, overtaken)


@contextlib.asynccontextmanager
async def connected(
    kubeconfig: Path | None, *, service_account: Path = Path("/nowhere"), seconds: float = 10
) -> AsyncGenerator[KubernetesCluster]:
    """Connect as a worker would, and close; `seconds` bounds each call."""
    client = KubernetesCluster.from_environment(
        kubeconfig, service_account=service_account, call_timeout=timedelta(seconds=seconds)
    )
    try:
        yield client
    finally:
        await client.aclose()


def write_authority(path: Path) -> Path:
    """Write the test authority's certificate as PEM."""
    path.write_text(_pem("CERTIFICATE", _AUTHORITY))
    return path


def server_tls(folder: Path, *, asks_for_a_certificate: bool = False) -> ssl.SSLContext:
    """Build a server's context; with `asks_for_a_certificate` only holders of a test certificate get in."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(write_authority(folder / "ca.pem")))
    both = folder / "server.pem"
    both.write_text(_pem("CERTIFICATE", _CERTIFICATE) + _pem("PRIVATE KEY", _KEY))
    context.load_cert_chain(both)
    if asks_for_a_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def write_certificate_kubeconfig(path: Path, server: str) -> Path:
    """Write a kubeconfig whose user has a client certificate and no token, all of it inline as base64."""
    inline = {
        name: base64.b64encode(pem.encode()).decode()
        for name, pem in {
            "certificate-authority-data": _pem("CERTIFICATE", _AUTHORITY),
            "client-certificate-data": _pem("CERTIFICATE", _CERTIFICATE),
            "client-key-data": _pem("PRIVATE KEY", _KEY),
        }.items()
    }
    authority = inline.pop("certificate-authority-data")
    return write_kubeconfig(path, {"server": server, "certificate-authority-data": authority}, inline)


def write_kubeconfig(path: Path, cluster: Mapping[str, object], user: Mapping[str, object]) -> Path:
    """Write a kubeconfig of one cluster and one user."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": dict(cluster)}],
        "users": [{"name": "test", "user": dict(user)}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
    path.write_text(yaml.safe_dump(config))
    return path


def _pem(kind: str, der: str) -> str:
    body = "\n".join(der[start : start + 64] for start in range(0, len(der), 64))
    return f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n"
