"""Send one HTTP request to a host that the operator allowed, and to nothing else; no redirects, no proxies, no retries.

What protects the network behind: one strict parser (`web_urls`), an allow-list that is closed by default (`web_allow`), a
judgement of every address that DNS gives (`addresses`), and a connection to exactly those addresses (`web_exchange`). The
addresses are asked for once per request, and judged again at each: a name that moved since the plan is refused.
"""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from datetime import timedelta
from ipaddress import ip_address
from typing import Protocol

import certifi

from activities.clients.addresses import Address
from activities.clients.web_allow import AllowList, Permit
from activities.clients.web_exchange import ANSWER_LIMIT_TEXT, AnswerTooLarge, ExchangeBroken, Progress, exchange
from activities.clients.web_messages import (
    IDEMPOTENT_METHODS,
    READING_METHODS,
    HttpAnswer,
    HttpRequest,
    check_header_names,
    check_method,
    check_request,
)
from activities.clients.web_urls import Target, WebUrl, parse_url
from activities.errors import OrchestratorError, OutcomeUnknown, Refused, Unreachable

__all__ = [
    "HttpAnswer",
    "HttpRequest",
    "Resolver",
    "Target",
    "WebClient",
    "WebUrl",
    "check_header_names",
    "check_method",
    "system_resolver",
    "system_trust",
]

RESOLVE_TIMEOUT = timedelta(seconds=10)
"""Longest wait for DNS; resolv.conf's default is two rounds of 5 s."""


class Resolver(Protocol):
    """Turns a host name into IP addresses."""

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses as text, best first.

        Raises: OSError when there are none.
        """
        ...


async def system_resolver(host: str, port: int) -> Sequence[str]:
    """Ask the operating system: its hosts file, its DNS, in its order."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(place[0]) for *_, place in found]


def system_trust() -> ssl.SSLContext:
    """Trust the system's authorities, or those of SSL_CERT_FILE and SSL_CERT_DIR; where a system has none, certifi's."""
    paths = ssl.get_default_verify_paths()
    return ssl.create_default_context(cafile=None if paths.cafile or paths.capath else certifi.where())


class WebClient:
    """The HTTP client of runbooks.

    `allow` holds the entries of RUNBOOK_HTTP_ALLOW (see `web_allow` for their form); empty means that nothing is allowed.
    `allow_loopback` (the embedded stack) adds `localhost`, `127.0.0.1` and `[::1]`, on every port. `tls` replaces the trust
    of `system_trust`; it must verify.
    """

    def __init__(
        self,
        allow: Sequence[str],
        *,
        allow_loopback: bool = False,
        resolver: Resolver = system_resolver,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Read the allow-list.

        Raises: NotConfigured for an entry that cannot be read.
        """
        self._allowed = AllowList(allow, allow_loopback=allow_loopback)
        self._resolve = resolver
        self._tls = tls if tls is not None else system_trust()
        self._closed = False

    def judge(self, url: str) -> WebUrl:
        """Read the URL and find its host and port on the allow-list, without asking DNS.

        Raises: InvalidStep, NotConfigured.
        """
        parsed = parse_url(url)
        self._allowed.permit(parsed)
        return parsed

    async def check(self, url: str) -> Target:
        """Judge the URL and every address of its host, without connecting: one bad address refuses the host.

        Raises: InvalidStep, NotConfigured, Unreachable when the name does not resolve.
        """
        parsed = parse_url(url)
        permit = self._allowed.permit(parsed)
        addresses = await self._addresses(parsed)
        self._judge_addresses(permit, addresses)
        return Target(parsed, addresses)

    async def send(self, request: HttpRequest) -> HttpAnswer:
        """Send the request once and return the answer, whatever its status.

        Raises: InvalidStep, NotConfigured before anything is sent; Unreachable when nothing was sent, or when the method
        may be repeated; OutcomeUnknown when a POST or PATCH may have arrived; and for an answer above 1 MiB Refused, or
        OutcomeUnknown where the method changes something.
        """
        check_request(request)
        if self._closed:
            raise Unreachable("The HTTP client is shut down; nothing was sent.")
        progress = Progress()
        loop = asyncio.get_running_loop()
        started = loop.time()
        deadline = started + request.timeout.total_seconds()
        origin = self.judge(request.url).origin
        try:
            async with asyncio.timeout_at(deadline):
                target = await self.check(request.url)
                raw = await exchange(target, request, tls=self._tls, deadline=deadline, progress=progress)
        except TimeoutError:
            reason = f"no complete answer within {request.timeout.total_seconds():g} s"
            raise _broken(request.method, origin, progress, reason) from None
        except ExchangeBroken as error:
            raise _broken(request.method, origin, progress, str(error)) from None
        except AnswerTooLarge:
            raise _too_large(request.method, origin, progress) from None
        return HttpAnswer(raw.status, raw.headers, raw.body, timedelta(seconds=loop.time() - started))

    async def aclose(self) -> None:
        """Send nothing more. No connection outlives its request, so there is none to close."""
        self._closed = True

    async def _addresses(self, url: WebUrl) -> tuple[Address, ...]:
        if url.address is not None:
            return (url.address,)
        try:
            async with asyncio.timeout(RESOLVE_TIMEOUT.total_seconds()):
                found = await self._resolve(url.host, url.port)
        except TimeoutError:
            raise Unreachable(f"{url.host} could not be resolved in time; nothing was sent.") from None
        except OSError as error:
            raise Unreachable(f"{url.host} could not be resolved: {error.strerror or 'no answer'}; nothing was sent.") from None
        if not found:
            raise Unreachable(f"{url.host} has no address; nothing was sent.")
        return tuple(dict.fromkeys(ip_address(text) for text in found))

    def _judge_addresses(self, permit: Permit, addresses: Sequence[Address]) -> None:
        permit.require(addresses)


def _broken(method: str, origin: str, progress: Progress, reason: str) -> OrchestratorError:
    if not progress.request_started:
        return Unreachable(f"{origin} could not be reached: {reason}; nothing was sent.")
    if method in IDEMPOTENT_METHODS:
        return Unreachable(f"{origin} gave no complete answer to {method}: {reason}.")
    return OutcomeUnknown(f"{origin} may or may not have carried out the {method}: {reason}.")


def _too_large(method: str, origin: str, progress: Progress) -> OrchestratorError:
    sentence = f"{origin} answered {method} with status {progress.status} and a body of more than {ANSWER_LIMIT_TEXT}"
    if method in READING_METHODS:
        return Refused(f"{sentence}; an answer may have at most {ANSWER_LIMIT_TEXT}.")
    return OutcomeUnknown(f"{sentence}; what it changed was not read.")
