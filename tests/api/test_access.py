"""Keys, scopes and roles: every route is walked, so a route that is added without a lock fails here."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from fastapi.routing import iter_route_contexts

from api.auth import may_ingest, may_operate, may_read
from domain.access import generate_key
from tests.api.edge import COMMANDS, INTERACTIONS, KINDS, Edge

OPEN = {("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/metrics")}
"""For probes and scrapers: no key."""
BY_SIGNATURE = {("POST", INTERACTIONS), ("POST", COMMANDS)}
INTAKE = {("POST", "/api/v1/anomalies"), ("POST", "/api/v1/alertmanager")}


def routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Every method and path template of the app, those of included routers too."""
    for route in iter_route_contexts(app.routes):
        assert route.path is not None and route.methods, route
        for method in route.methods:
            yield method, route.path


def allowed(kind: str, method: str, path: str) -> bool:
    """What the contract says of a key of this kind."""
    if (method, path) in INTAKE:
        return kind in ("ingestion", "operator", "admin")
    if method == "GET":
        return kind != "ingestion"
    return kind in ("operator", "admin")


async def call(edge: Edge, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
    address = path.replace("{id:path}", "anom-nowhere").replace("{name}", "nothing")
    content = b"{}" if method == "POST" else None
    return await edge.http.request(method, address, content=content, headers={**headers, "Content-Type": "application/json"})


async def test_every_route_answers_401_without_a_key(edge: Edge) -> None:
    walked = set(routes(edge.app))
    assert walked >= OPEN | BY_SIGNATURE | INTAKE and len(walked) >= 15
    for method, path in walked - OPEN:
        answer = await call(edge, method, path, {})
        assert answer.status_code == 401, (method, path)
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("kind", KINDS)
async def test_every_route_lets_in_exactly_the_keys_that_the_contract_names(edge: Edge, kind: str) -> None:
    for method, path in set(routes(edge.app)) - OPEN - BY_SIGNATURE:
        answer = await call(edge, method, path, {"X-API-Key": edge.keys[kind]})
        assert answer.status_code != 401, (method, path)
        assert (answer.status_code != 403) is allowed(kind, method, path), (kind, method, path, answer.text)


async def test_the_walk_finds_a_route_without_a_lock(edge: Edge) -> None:
    @edge.app.get("/api/v1/forgotten")
    async def forgotten() -> dict[str, Any]:
        return {}

    walked = set(routes(edge.app))
    assert ("GET", "/api/v1/forgotten") in walked
    assert (await call(edge, "GET", "/api/v1/forgotten", {})).status_code == 200


@pytest.mark.parametrize("lock", [may_read, may_operate, may_ingest])
async def test_a_key_that_was_never_made_opens_nothing(edge: Edge, lock: Any) -> None:
    edge.app.get("/locked", dependencies=[Depends(lock)])(lambda: {})
    for key in (generate_key(), "", " ", "isage_", edge.settings.infrasage_api_keys[0].key_sha256, "ключ"):
        answer = await edge.http.get("/locked", headers=[(b"X-API-Key", key.encode())])
        assert answer.status_code == 401, key


async def test_a_bearer_token_is_a_key_too(edge: Edge) -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        answer = await edge.http.get("/api/v1/incidents", headers={"Authorization": f"{scheme} {edge.keys['readonly']}"})
        assert answer.status_code == 200
    for value in (f"Basic {edge.keys['readonly']}", "Bearer", "Bearer ", edge.keys["readonly"]):
        assert (await edge.http.get("/api/v1/incidents", headers={"Authorization": value})).status_code == 401


async def test_a_key_given_twice_is_refused_even_if_one_of_them_is_right(edge: Edge) -> None:
    right = edge.keys["operator"].encode()
    answer = await edge.http.get("/api/v1/incidents", headers=[(b"X-API-Key", right), (b"X-API-Key", b"wrong")])
    assert answer.status_code == 401


async def test_the_body_of_a_request_without_a_key_is_not_even_read(edge: Edge) -> None:
    read = 0

    async def endless() -> Any:
        nonlocal read
        while True:
            read += 1
            yield b" " * 65_536

    answer = await edge.http.post("/api/v1/anomalies", content=endless(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 401 and read <= 2


async def test_a_key_that_is_revoked_ends_at_once(edge: Edge) -> None:
    kept = edge.settings.infrasage_api_keys

    class Ring:
        def __init__(self) -> None:
            self.now = kept

        def keys(self) -> Any:
            return self.now

    ring = Ring()
    edge.app.state.keys = ring
    assert (await edge.get("/api/v1/incidents")).status_code == 200
    ring.now = tuple(key for key in kept if key.name != "operator")
    assert (await edge.get("/api/v1/incidents")).status_code == 401


async def test_neither_an_answer_nor_the_log_repeats_a_key(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    for kind, key in edge.keys.items():
        answer = await edge.post("/api/v1/incidents/anom-nowhere/resolve", {"text": "x"}, key=kind)
        assert key not in answer.text
    assert not any(key in caplog.text for key in edge.keys.values())
