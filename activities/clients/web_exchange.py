"""Carry one HTTP/1.1 exchange to addresses that were judged before; the only importer of httpcore.

httpcore and not httpx: it takes the URL in parts, so no second parser reads it; it follows no redirect, keeps no cookie,
reads no proxy or netrc variable and decodes no compression; and httpx writes every URL, query included, to its log.
A connection carries one request, so that no other host's TLS session is ever reused for the same address.
"""

import asyncio
import logging
import os
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self, cast

import httpcore

from activities.clients.web_messages import HttpRequest
from activities.clients.web_urls import Target
from activities.errors import clip

# At DEBUG httpcore writes out the headers of every answer, cookies included, and whatever a broken server said.
logging.getLogger("httpcore").setLevel(logging.INFO)

ANSWER_LIMIT_BYTES = 1024 * 1024
"""Longest body taken. It keeps what enters a history below Temporal's 2 MiB for one payload."""

ANSWER_LIMIT_TEXT = "1 MiB"
HEADER_LIMIT_CHARACTERS = 1_000

KEPT_HEADERS = frozenset({"content-encoding", "content-type", "etag", "location", "retry-after", "x-request-id"})
"""Nothing that carries a session: a Set-Cookie would end up in a history."""

_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


@dataclass
class Progress:
    """How far an exchange came: what decides whether a failure may have changed something."""

    request_started: bool = False
    status: int | None = None


class AnswerTooLarge(Exception):
    """The answer's body is longer than `ANSWER_LIMIT_BYTES`; reading stopped there."""


class ExchangeBroken(Exception):
    """No complete answer came; `str(error)` is half a sentence without anything the request or the answer said."""


@dataclass(frozen=True)
class RawAnswer:
    """Status, kept headers and body of a complete answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def exchange(target: Target, request: HttpRequest, *, tls: ssl.SSLContext, deadline: float, progress: Progress) -> RawAnswer:
    """Connect to one of the target's addresses, send the request once and read the answer to its end.

    `deadline` is in the running loop's time and shares itself out among the addresses; the caller cancels at it.
    Raises: ExchangeBroken, AnswerTooLarge; `progress` then says how far it came.
    """

    async def trace(event: str, _: object) -> None:
        if event.startswith("http11.send_request"):
            progress.request_started = True

    url = target.url
    try:
        async with (
            JudgedBackend(target, deadline) as backend,
            httpcore.AsyncConnectionPool(
                ssl_context=tls,
                max_keepalive_connections=0,
                http2=False,
                retries=0,
                network_backend=backend,
            ) as pool,
            pool.stream(
                request.method,
                httpcore.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target),
                headers=_headers(target, request),
                content=_content(request),
                extensions={"trace": trace},
            ) as response,
        ):
            progress.status = response.status
            return RawAnswer(response.status, _kept(response.headers), await _body(response))
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError) as error:
        raise ExchangeBroken(_reason(error)) from None


class JudgedBackend(httpcore.AsyncNetworkBackend):
    """Connect to the judged addresses whatever httpcore asks for: no name is resolved a second time.

    Leaving it closes the connection: httpcore leaves one open that is cancelled within its TLS handshake.
    """

    def __init__(self, target: Target, deadline: float) -> None:
        self._target = target
        self._deadline = deadline
        # httpcore declares a second, empty AnyIOBackend for machines without anyio, which hides the type of the real one.
        self._sockets = cast(httpcore.AsyncNetworkBackend, httpcore.AnyIOBackend())
        self._connection: httpcore.AsyncNetworkStream | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._connection is not None:
            await self._connection.aclose()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's own signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Try the addresses in order, each for its share of the time that is left."""
        failure: Exception = httpcore.ConnectError("no address")
        for position, address in enumerate(self._target.addresses):
            left = self._deadline - asyncio.get_running_loop().time()
            share = left / (len(self._target.addresses) - position)
            try:
                connection = await self._sockets.connect_tcp(str(address), self._target.url.port, timeout=max(share, 0))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                self._connection = connection
                return connection
        raise failure

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's own signature
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: a URL never names a socket file."""
        raise httpcore.ConnectError("no address")

    async def sleep(self, seconds: float) -> None:
        """Wait, for httpcore's own retries; there are none."""
        await asyncio.sleep(seconds)


def _headers(target: Target, request: HttpRequest) -> list[tuple[str, str]]:
    own = {"Host": target.url.authority, "Connection": "close", "Accept-Encoding": "identity"}
    given = {name.lower() for name in request.headers}
    usual = {"Accept": "*/*", "User-Agent": "infrasage-orchestrator"}
    filled = {name: value for name, value in usual.items() if name.lower() not in given}
    return [*own.items(), *filled.items(), *request.headers.items()]


def _content(request: HttpRequest) -> bytes | None:
    # RFC 9110 section 8.6: a method that means a body says Content-Length: 0 when it has none.
    return request.body if request.body is not None or request.method not in _WITH_BODY else b""


async def _body(response: httpcore.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_stream():
        body += chunk
        if len(body) > ANSWER_LIMIT_BYTES:
            raise AnswerTooLarge
    return bytes(body)


def _kept(headers: Iterable[tuple[bytes, bytes]]) -> Mapping[str, str]:
    kept: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name = raw_name.decode("ascii").lower()
        if name in KEPT_HEADERS and name not in kept:
            value = raw_value.decode("latin-1")
            kept[name] = clip(_without_query(value) if name == "location" else value, HEADER_LIMIT_CHARACTERS)
    return kept


def _without_query(url: str) -> str:
    # A query or fragment of a redirect is where a login hands over its token.
    return url.partition("#")[0].partition("?")[0]


def _reason(error: BaseException) -> str:
    """Say in half a sentence what broke; texts of h11 are left out, since they quote what was sent or received."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its TLS certificate was not accepted ({clip(cause.verify_message, 200).rstrip('.')})"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed ({cause.reason or 'handshake'})"
        if isinstance(cause, OSError) and cause.errno is not None:
            return os.strerror(cause.errno).lower()
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpcore.TimeoutException):
        return "no connection in time"
    if isinstance(error, httpcore.ConnectError):
        return "no connection"
    return "the connection broke off or did not speak HTTP"
