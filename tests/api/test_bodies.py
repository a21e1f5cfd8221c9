"""The limits of a body: size, time, depth, type; and errors that are problems, never tracebacks."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api import bodies
from api.alertmanager import GROUP_LIMIT_BYTES
from api.bodies import BODY_LIMIT_BYTES, DEPTH_LIMIT, depth
from tests.api.edge import Edge, a_report

ANOMALIES = "/api/v1/anomalies"
JSON = {"Content-Type": "application/json"}


def padded(size: int) -> bytes:
    """A valid report of exactly that many bytes."""
    body = json.dumps(a_report()).encode()
    return body[:-1] + b" " * (size - len(body)) + b"}"


async def in_pieces(body: bytes, size: int = 4_096) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def test_64_kib_are_taken_and_one_byte_more_is_413(lone_edge: Edge) -> None:
    assert (await lone_edge.post(ANOMALIES, content=padded(BODY_LIMIT_BYTES), headers=JSON)).status_code == 202
    answer = await lone_edge.post(ANOMALIES, content=padded(BODY_LIMIT_BYTES + 1), headers=JSON)
    assert answer.status_code == 413 and "64 KiB" in answer.json()["detail"]


async def test_a_body_without_a_length_is_cut_off_at_the_limit(lone_edge: Edge) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 8_192
            yield b" " * 8_192

    answer = await lone_edge.post(ANOMALIES, content=endless(), headers=JSON)
    assert answer.status_code == 413
    assert sent <= BODY_LIMIT_BYTES + 3 * 8_192


@pytest.mark.parametrize("length", ["10", "0", "-1", "ten", ""])
async def test_a_length_that_lies_does_not_get_a_longer_body_in(lone_edge: Edge, length: str) -> None:
    headers = {**JSON, "Content-Length": length}
    answer = await lone_edge.post(ANOMALIES, content=in_pieces(padded(BODY_LIMIT_BYTES * 2)), headers=headers)
    assert answer.status_code == 413


@pytest.mark.parametrize("length", ["65537", "99999999999999999999999999"])
async def test_an_announced_length_is_refused_before_anything_is_read(lone_edge: Edge, length: str) -> None:
    async def unread() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    answer = await lone_edge.post(ANOMALIES, content=unread(), headers={**JSON, "Content-Length": length})
    assert answer.status_code == 413


async def test_a_body_that_trickles_is_408(lone_edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_TIMEOUT_SECONDS", 0.2)

    async def trickle() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    began = time.monotonic()
    answer = await lone_edge.post(ANOMALIES, content=trickle(), headers=JSON)
    assert answer.status_code == 408
    assert time.monotonic() - began < 5


async def test_a_group_of_alerts_may_have_1_mib_and_no_more(lone_edge: Edge) -> None:
    def group(size: int) -> bytes:
        body = json.dumps({"version": "4", "alerts": []}).encode()
        return body[:-1] + b" " * (size - len(body)) + b"}"

    path = "/api/v1/alertmanager"
    assert (await lone_edge.post(path, content=group(GROUP_LIMIT_BYTES), headers=JSON)).status_code == 200
    assert (await lone_edge.post(path, content=group(GROUP_LIMIT_BYTES + 1), headers=JSON)).status_code == 413


@pytest.mark.parametrize(
    "kind",
    ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "application/json; charset=latin-1"],
)
async def test_what_is_not_announced_as_json_is_415(lone_edge: Edge, kind: str) -> None:
    answer = await lone_edge.post(ANOMALIES, content=json.dumps(a_report()), headers={"Content-Type": kind})
    assert answer.status_code == 415


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"']
)
async def test_json_is_json_however_it_is_spelt(lone_edge: Edge, kind: str) -> None:
    answer = await lone_edge.post(ANOMALIES, content=json.dumps(a_report()), headers={"Content-Type": kind})
    assert answer.status_code == 202


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nul",
        b"[]",
        b'"text"',
        b"{",
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        b'{"anomaly_id": "\xc3\x28"}',
        b'{"a": "\\ud800"}',
        b"[" * 60_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b'{"a": ' + b"9" * 60_000 + b"}",
        b'{"a": 1}{"b": 2}',
        b'{"a": 1,}',
    ],
)
async def test_what_is_no_json_object_is_422_and_a_problem(lone_edge: Edge, body: bytes) -> None:
    answer = await lone_edge.post(ANOMALIES, content=body, headers=JSON)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"] and "Traceback" not in answer.text


async def test_nesting_is_refused_one_level_beyond_the_limit(lone_edge: Edge) -> None:
    def nested(levels: int) -> bytes:
        return b'{"a":' * (levels - 1) + b"{}" + b"}" * (levels - 1)

    within = await lone_edge.post(ANOMALIES, content=nested(DEPTH_LIMIT), headers=JSON)
    beyond = await lone_edge.post(ANOMALIES, content=nested(DEPTH_LIMIT + 1), headers=JSON)
    assert "deep" not in within.json()["detail"] and "deep" in beyond.json()["detail"]


def nested_depth(value: Any) -> int:
    if isinstance(value, list):
        return 1 + max((nested_depth(item) for item in value), default=0)
    if isinstance(value, dict):
        return 1 + max((nested_depth(item) for item in value.values()), default=0)
    return 0


VALUES = st.recursive(
    st.text(alphabet='[]{}"\\ a') | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(VALUES)
@settings(max_examples=100, deadline=None)
def test_depth_counts_brackets_and_never_those_in_texts(value: Any) -> None:
    assert depth(json.dumps(value).encode()) == nested_depth(value)


@given(st.binary(max_size=2_000) | st.text(alphabet='"\\[{a').map(str.encode))
@settings(max_examples=100, deadline=None)
def test_depth_takes_any_bytes(body: bytes) -> None:
    assert depth(body) >= 0


def test_depth_stays_linear_on_strings_that_never_end() -> None:
    began = time.monotonic()
    depth(b'"' + b'\\"' * (GROUP_LIMIT_BYTES // 2))
    depth(b'"' * GROUP_LIMIT_BYTES)
    assert time.monotonic() - began < 2


async def test_an_unknown_address_and_an_unknown_method_are_problems(lone_edge: Edge) -> None:
    for method, path, status in (
        ("GET", "/nowhere", 404),
        ("DELETE", "/healthz", 405),
        ("GET", "/openapi.json", 404),
        ("GET", "/docs", 404),
    ):
        answer = await lone_edge.http.request(method, path)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == status and answer.json()["detail"]


async def test_a_crash_is_a_problem_without_its_reason_and_the_log_has_it(
    lone_edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    lone_edge.shelf.failure = RuntimeError("internal: password=hunter2")
    answer = await lone_edge.get("/api/v1/audit")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "hunter2" not in answer.text and "Traceback" not in answer.text
    assert "GET /api/v1/audit failed" in caplog.text


async def test_a_wrong_query_is_422_and_names_the_parameter(lone_edge: Edge) -> None:
    for query, path in (
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=x", "limit"),
        ("status=gone", "status"),
        ("service_id=", "service_id"),
    ):
        answer = await lone_edge.get(f"/api/v1/incidents?{query}")
        assert answer.status_code == 422, query
        assert [fault["path"] for fault in answer.json()["errors"]] == [path]
