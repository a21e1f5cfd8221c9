"""The HTTP client as the tests of `activities.clients.web` use it: one allowed host, a resolver of their own."""

import ssl
from collections.abc import Sequence
from datetime import timedelta

from activities.clients.web import HttpRequest, WebClient, system_trust

HOST = "api.example.test"
ALLOW = (f"{HOST}:*@127.0.0.0/8", "127.0.0.1:*")
SECRET = "s3cret-of-the-runbook"
UNSAFE = ("POST", "PATCH")
SAFE_TO_REPEAT = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")
TRUST = system_trust()  # once: it reads every authority of the system


class FixedResolver:
    """Gives the same addresses for every name."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        return self.addresses


def client(*addresses: str, tls: ssl.SSLContext | None = None) -> WebClient:
    """Return a client for `HOST`, which is at the given addresses (127.0.0.1), and for 127.0.0.1, on every port."""
    return WebClient(ALLOW, resolver=FixedResolver(*(addresses or ("127.0.0.1",))), tls=tls or TRUST)


def get(url: str, *, seconds: float = 10, **headers: str) -> HttpRequest:
    """Return a GET with a timeout of `seconds`."""
    return HttpRequest("GET", url, headers=headers, timeout=timedelta(seconds=seconds))
