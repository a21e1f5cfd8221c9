"""The operator's side of the HTTP API: one request, one answer, and every failure as one sentence."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar, cast
from urllib.parse import quote, urlsplit

import httpx

from cli import local_stack
from cli.output import Failure
from domain.access import KEY_PREFIX
from domain.base import Source
from domain.web_address import IN_WORDS, web_address

URL_VARIABLE = "INFRASAGE_URL"
KEY_VARIABLE = "INFRASAGE_API_KEY"
DEFAULT_URL = "http://localhost:9093"

TIMEOUT_SECONDS = 20.0
"""Of one request. The API answers within 9 s at the worst, and says then that it could not."""

_Answer = TypeVar("_Answer")


class ApiError(Failure):
    """The API said no; `status` is HTTP's."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Api:
    """The API of one InfraSage. Close it, or use it in `with`."""

    def __init__(self, url: str, key: str | None) -> None:
        self.url = url
        headers = {"X-InfraSage-Source": Source.CLI.value, "Accept": "application/json"}
        if key:
            headers["X-API-Key"] = key
        local = urlsplit(url).hostname in local_stack.LOOPBACK_HOSTS
        # Nobody proxies loopback, whatever HTTP_PROXY says; and a redirect could carry the key elsewhere.
        self._http = httpx.Client(
            base_url=url, headers=headers, timeout=TIMEOUT_SECONDS, trust_env=not local, follow_redirects=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **parameters: str | int | None) -> dict[str, Any]:
        """Ask. Raises: Failure."""
        given = {name: value for name, value in parameters.items() if value is not None}
        return self._answer(lambda: self._http.get(path, params=given))

    def post(self, path: str, body: Mapping[str, Any] | bytes | None = None) -> dict[str, Any]:
        """Act. Never repeated here: what came of it is asked for with `get`. Raises: Failure."""
        if body is None:
            return self._answer(lambda: self._http.post(path))
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._answer(lambda: self._http.post(path, content=content, headers={"Content-Type": "application/json"}))

    def _answer(self, send: Callable[[], httpx.Response]) -> dict[str, Any]:
        try:
            response = send()
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise Failure(
                f"No InfraSage answers at {self.url}: start one with `infrasage up`, or set {URL_VARIABLE} to where it is."
            ) from None
        except httpx.TimeoutException:
            raise Failure(
                f"{self.url} did not answer within {TIMEOUT_SECONDS:g} s: look with `infrasage show` whether it was done."
            ) from None
        except httpx.HTTPError as error:
            raise Failure(f"The connection to {self.url} failed ({type(error).__name__}): try again.") from None
        return self._read(response)

    def _read(self, response: httpx.Response) -> dict[str, Any]:
        try:
            content: object = response.json()
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise ApiError(
                response.status_code,
                f"{self.url} answered HTTP {response.status_code}, and not as InfraSage does: check {URL_VARIABLE}.",
            )
        answer = cast("dict[str, Any]", content)
        if response.is_success:
            return answer
        raise ApiError(response.status_code, self._refusal(response.status_code, answer))

    def _refusal(self, status: int, problem: Mapping[str, Any]) -> str:
        if status == 401:
            given = f"The key in {KEY_VARIABLE} is not known at {self.url}"
            if "x-api-key" not in self._http.headers:
                given = f"{self.url} asks for an API key"
            return f"{given}: set {KEY_VARIABLE} to one that `infrasage up` printed or an administrator gave you."
        faults = cast("list[dict[str, str]]", problem.get("errors") or [])
        if len(faults) > 1:
            return "; ".join(f"{fault['path']}: {fault['reason']}" if fault["path"] else fault["reason"] for fault in faults)
        return str(problem.get("detail") or f"{self.url} answered HTTP {status}.")


def open_api() -> Api:
    """The API that INFRASAGE_URL names, with the key in INFRASAGE_API_KEY; unset, the local stack with its operator key.

    Raises: Failure when a variable cannot be used.
    """
    folder = local_stack.data_dir()
    url = _url(folder)
    key = os.environ.get(KEY_VARIABLE, "").strip() or local_stack.key_for(url, folder)
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise Failure(f"{KEY_VARIABLE} must be one word of printable ASCII characters, such as {KEY_PREFIX}….")
    return Api(url, key)


def _url(folder: Path) -> str:
    given = os.environ.get(URL_VARIABLE, "").strip()
    if not given:
        stack = local_stack.running_stack(folder)
        return stack.url if stack else DEFAULT_URL
    try:
        return web_address(given)
    except ValueError:
        raise Failure(f"{URL_VARIABLE} must be {IN_WORDS}.") from None


def incident_path(incident_id: str, action: str = "") -> str:
    """The address of an incident; the slashes in the id of a run started by hand stay slashes. Raises: Failure."""
    if not incident_id.strip():
        raise Failure("An incident id is needed: `infrasage incidents` lists them.")
    return f"/api/v1/incidents/{quote(incident_id, safe='/:')}{f'/{action}' if action else ''}"


def attempt(work: Callable[[], _Answer]) -> _Answer | None:
    """What `work` gives, or None while the API says 503: no worker is there yet to show an incident."""
    try:
        return work()
    except ApiError as error:
        if error.status == 503:
            return None
        raise
