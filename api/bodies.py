"""Reading a request body under hard limits: size, time, depth, duplicate keys, then the model.

A `Content-Length` is believed only to refuse early; what is counted are the bytes that arrive.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from api.problems import Fault, Problem, invalid, invalid_model

BODY_LIMIT_BYTES = 64 * 1024
"""Of every body but an Alertmanager group's and Slack's."""

BODY_TIMEOUT_SECONDS = 10
"""A sender that trickles is cut off: it would hold a connection for as long as it likes."""

DEPTH_LIMIT = 32
"""Arrays and objects within one another; no body of this API needs more than four."""

# Possessive, and ending at the end of the body too, so that no input makes it start over: it stays linear.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")

Model = TypeVar("Model", bound=BaseModel)


async def read_capped(request: Request, limit_bytes: int, timeout_seconds: float | None = None) -> bytes:
    """The body, of at most `limit_bytes`. Raises Problem 413 as soon as it is longer, 408 when it does not arrive in time.

    timeout_seconds: default `BODY_TIMEOUT_SECONDS`.
    """
    timeout_seconds = timeout_seconds or BODY_TIMEOUT_SECONDS
    too_long = Problem(413, f"The body may have {limit_bytes // 1024} KiB.", headers={"Connection": "close"})
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and (len(declared) > 15 or int(declared) > limit_bytes):
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit_bytes:
                    raise too_long
    except TimeoutError:
        raise Problem(408, f"The body did not arrive within {timeout_seconds:g} s.", headers={"Connection": "close"}) from None
    except ClientDisconnect:
        raise Problem(400, "The sender went away before the body was complete.") from None
    return bytes(body)


def json_body(
    model: type[Model], *, limit_bytes: int = BODY_LIMIT_BYTES, optional: bool = False
) -> Callable[[Request], Awaitable[Model]]:
    """A dependency that reads the body as `model`.

    `optional`: no body at all stands for `{}`. Raises Problem 408, 413, 415, 422 (every fault with its path and reason).
    """

    async def read(request: Request) -> Model:
        body = await read_capped(request, limit_bytes)
        if optional and not body:
            body = b"{}"
        else:
            require_json(request)
        check_json(body)
        try:
            return model.model_validate_json(body)
        except ValidationError as error:
            raise invalid_model(error) from None

    return read


def require_json(request: Request) -> None:
    """Raises Problem 415 unless the content type is `application/json` in UTF-8."""
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if kind.strip().lower() != "application/json" or charset not in ("", "utf-8"):
        raise Problem(415, "The content type must be application/json, in UTF-8.")


def check_json(body: bytes) -> None:
    """Raises Problem 422 for what the model would not notice: depth, duplicate keys, NaN; and for what is not JSON at all."""
    if depth(body) > DEPTH_LIMIT:
        raise invalid([Fault(path="", reason=f"arrays and objects may be nested {DEPTH_LIMIT} deep")])
    try:
        json.loads(body.decode("utf-8"), object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise invalid([Fault(path="", reason="the body is not UTF-8")]) from None
    except _Unacceptable as error:
        raise invalid([Fault(path=error.path, reason=error.reason)]) from None
    except ValueError as error:
        place = f" at line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise invalid([Fault(path="", reason=f"the body is not valid JSON{place}")]) from None


def depth(body: bytes) -> int:
    """How deep brackets are nested, outside of strings; of invalid JSON at least as deep as a parser would go."""
    deepest = level = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", body)):
        if bracket.group() in b"[{":
            level += 1
            deepest = max(deepest, level)
        else:
            level -= 1
    return deepest


class _Unacceptable(ValueError):
    def __init__(self, path: str, reason: str) -> None:
        super().__init__(reason)
        self.path = path
        self.reason = reason


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys: dict[str, Any] = dict(pairs)
    if len(keys) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Unacceptable(key[:100], "is given twice")
            seen.add(key)
    return keys


def _refuse_constant(text: str) -> Any:
    raise _Unacceptable("", f"{text} is not a number that JSON knows")
