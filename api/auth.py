"""API keys at the door: who asks, and whether key, scope and role allow it.

| scope | may |
|---|---|
| `ingestion` | post anomalies and alerts, nothing else |
| `readonly` | GET, whatever its role |
| `full` | what its role allows: a viewer reads; an operator also acts, and may post anomalies |
"""

from typing import Annotated, Protocol

from fastapi import Depends, Request

from api.problems import Problem
from domain.access import ApiKey, Role, Scope, find_key
from domain.base import Actor, Source

KEY_HEADER = b"x-api-key"
SOURCE_HEADER = "x-infrasage-source"


class KeyRing(Protocol):
    """Where the keys are looked up, on every request: a revoked key ends at once."""

    def keys(self) -> tuple[ApiKey, ...]: ...


class FixedKeys:
    """The keys of the settings."""

    def __init__(self, keys: tuple[ApiKey, ...]) -> None:
        self._keys = keys

    def keys(self) -> tuple[ApiKey, ...]:
        return self._keys


def presented_key(request: Request) -> str:
    """The key of the request. Raises Problem 401: none, several, or an Authorization header that is not Bearer."""
    given = [value for name, value in request.headers.raw if name == KEY_HEADER]
    bearers = [value for name, value in request.headers.raw if name == b"authorization"]
    if not given and len(bearers) == 1:
        scheme, _, token = bearers[0].partition(b" ")
        if scheme.lower() == b"bearer":
            given = [token.strip()]
    if len(given) != 1 or not given[0]:
        raise _unauthorized("Send exactly one API key, in the header X-API-Key or as Authorization: Bearer.")
    return given[0].decode("latin-1")


async def identify(request: Request) -> ApiKey:
    """The key behind a request, whatever it may do. Raises Problem 401."""
    ring: KeyRing = request.app.state.keys
    key = find_key(presented_key(request), ring.keys())
    if key is None:
        raise _unauthorized("This API key is not known here.")
    return key


Identified = Annotated[ApiKey, Depends(identify)]


async def may_ingest(key: Identified) -> ApiKey:
    """Scope `ingestion`, or a full key of an operator. Raises Problem 401, 403."""
    if key.scope is Scope.INGESTION or (key.scope is Scope.FULL and key.role.includes(Role.OPERATOR)):
        return key
    raise _forbidden(key, "post anomalies", "scope ingestion, or scope full with role operator")


async def may_read(key: Identified) -> ApiKey:
    """Any key but one of scope `ingestion`. Raises Problem 401, 403."""
    if key.scope is Scope.INGESTION:
        raise _forbidden(key, "read", "scope readonly or full")
    return key


async def may_operate(key: Identified) -> ApiKey:
    """Scope `full` and at least role operator: whatever changes something. Raises Problem 401, 403."""
    if key.scope is Scope.FULL and key.role.includes(Role.OPERATOR):
        return key
    raise _forbidden(key, "act on incidents", "scope full and role operator or admin")


async def operator(request: Request, key: Annotated[ApiKey, Depends(may_operate)]) -> Actor:
    """Who acts: the key, on the surface that the header `X-InfraSage-Source` names; anything but `cli` counts as `api`."""
    source = Source.CLI if request.headers.get(SOURCE_HEADER) == Source.CLI else Source.API
    return Actor(id=f"key:{key.name}", name=key.name, source=source)


Operator = Annotated[Actor, Depends(operator)]


def _unauthorized(detail: str) -> Problem:
    return Problem(401, detail, headers={"WWW-Authenticate": "Bearer"})


def _forbidden(key: ApiKey, what: str, needed: str) -> Problem:
    return Problem(403, f"The key {key.name} (scope {key.scope}, role {key.role}) may not {what}: that needs {needed}.")
