"""Calls to a service whose address the operator configured, with JSON in the answer: the only importer of httpx.

The address is not subject to RUNBOOK_HTTP_ALLOW, because no runbook can choose it. There are no redirects, no proxies, no retries
and no connection that outlives its call: one that the far side dropped meanwhile would make a lost answer of every second call.
Nothing that is raised or logged holds a header or a body of the request; errors are raised outside of the handlers that caught
their causes, so that not even `__context__` leads to one.
"""

import asyncio
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast
from urllib.parse import urlsplit

import httpx

from activities.clients.web import system_trust
from activities.errors import OrchestratorError, OutcomeUnknown, RateLimited, Unreachable

# At INFO httpx writes every URL, at DEBUG httpcore the headers of every answer.
logging.getLogger("httpx").setLevel(logging.WARNING)
logging.getLogger("httpcore").setLevel(logging.INFO)

ANSWER_LIMIT_BYTES = 1024 * 1024
CALL_TIMEOUT = timedelta(seconds=10)
"""Bound of one whole call, connecting included."""
CONNECT_TIMEOUT = timedelta(seconds=5)
RETRY_AFTER_LIMIT = timedelta(hours=1)
"""Longest wait that is believed."""

_DELTA_SECONDS = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class JsonAnswer:
    """One complete answer, whatever its status; `body` is None where it was not JSON."""

    status: int
    body: Any = field(repr=False)
    retry_after: timedelta | None = None

    @property
    def fields(self) -> Mapping[str, Any]:
        """The body if it is an object, else nothing."""
        return cast("Mapping[str, Any]", self.body) if isinstance(self.body, dict) else {}


class JsonService:
    """One service. It connects at its first call; close it with `aclose`."""

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        basic: tuple[str, str] | None = None,
        timeout: timedelta = CALL_TIMEOUT,
    ) -> None:
        """`name` begins the sentences of failures, with the host; `basic` are user and password of HTTP Basic."""
        self._base_url = base_url
        self.where = f"{name} ({urlsplit(base_url).hostname})"
        self._basic = httpx.BasicAuth(*basic) if basic else None
        self._timeout = timeout
        self._client: httpx.AsyncClient | None = None
        self._is_closed = False

    async def call(
        self,
        method: str,
        path: str = "",
        *,
        json: Any = None,
        form: Mapping[str, str] | None = None,
        within: timedelta | None = None,
    ) -> JsonAnswer:
        """Send one request and read its answer to the end.

        within: bound of the whole call, where it is shorter than the service's own.
        Raises: Unreachable when nothing was sent; OutcomeUnknown when it may have arrived and no complete answer came.
        """
        limit = min(self._timeout, within) if within is not None else self._timeout
        failure: OrchestratorError
        try:
            async with asyncio.timeout(limit.total_seconds()):
                return await self._exchange(method, path, json=json, form=form)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
            failure = Unreachable(f"{self.where} cannot be reached ({_kind(error)}); nothing was sent")
        except TimeoutError:
            failure = OutcomeUnknown(f"{self.where} gave no complete answer within {limit.total_seconds():g} s")
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            failure = OutcomeUnknown(f"{self.where} gave no complete answer ({_kind(error)})")
        raise failure

    async def aclose(self) -> None:
        """Send nothing more."""
        self._is_closed = True
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _exchange(self, method: str, path: str, *, json: Any, form: Mapping[str, str] | None) -> JsonAnswer:
        request = self._opened().build_request(method, self._base_url + path, json=json, data=form)
        response = await self._opened().send(request, auth=self._basic, stream=True, follow_redirects=False)
        try:
            body = bytearray()
            async for chunk in response.aiter_raw():  # as sent: nothing is decompressed, so nothing grows
                body += chunk
                if len(body) > ANSWER_LIMIT_BYTES:
                    raise OutcomeUnknown(f"{self.where} answered with more than 1 MiB, which is not read")
        finally:
            await response.aclose()
        return JsonAnswer(response.status_code, _decoded(bytes(body)), _retry_after(response.headers.get("retry-after", "")))

    def _opened(self) -> httpx.AsyncClient:
        if self._is_closed:
            raise Unreachable(f"{self.where} is closed in this process; nothing was sent")
        if self._client is None:
            self._client = httpx.AsyncClient(
                verify=system_trust(),
                trust_env=False,
                timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT.total_seconds()),
                limits=httpx.Limits(max_keepalive_connections=0),
                headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "infrasage-orchestrator"},
            )
        return self._client


def slowed_down(where: str, answer: JsonAnswer) -> RateLimited:
    """The error for status 429."""
    wait = answer.retry_after
    return RateLimited(f"{where} asked to slow down" + (f" for {wait.total_seconds():g} s" if wait else ""), retry_after=wait)


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _retry_after(text: str) -> timedelta | None:
    """Seconds (RFC 9110 section 10.2.3); a date, which neither of our services sends, counts as nothing."""
    return min(timedelta(seconds=int(text)), RETRY_AFTER_LIMIT) if _DELTA_SECONDS.fullmatch(text) else None


def _kind(error: Exception) -> str:
    """What broke, without the error's own text, which may quote what was sent or received."""
    match error:
        case httpx.TimeoutException():
            return "no answer in time"
        case httpx.ConnectError():
            return "no connection"
        case httpx.UnsupportedProtocol():
            return "no http:// or https:// address"
        case _:
            return "the connection broke off"
