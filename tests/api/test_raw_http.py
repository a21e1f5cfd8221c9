"""The same limits behind the real server, where requests are bytes on a socket and not what a client library lets through."""

import asyncio
from urllib.parse import urlsplit

import pytest

from api.bodies import BODY_LIMIT_BYTES
from tests.api.edge import COMMANDS, Edge, listening

ANOMALIES = "/api/v1/anomalies"


async def answered(url: str, *pieces: bytes) -> bytes:
    """The status line that the server answers to these bytes; empty when it only hangs up."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        return await asyncio.wait_for(reader.readline(), 10)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def head(path: str, *headers: bytes) -> bytes:
    return b"\r\n".join([b"POST " + path.encode() + b" HTTP/1.1", b"Host: edge", *headers, b"", b""])


async def test_an_announced_body_of_100_mb_is_413_before_it_is_sent(edge: Edge) -> None:
    key = b"X-API-Key: " + edge.keys["ingestion"].encode()
    async with listening(edge) as url:
        line = await answered(url, head(ANOMALIES, key, b"Content-Type: application/json", b"Content-Length: 104857600"))
    assert b" 413 " in line


async def test_chunks_without_end_are_413(edge: Edge) -> None:
    key = b"X-API-Key: " + edge.keys["ingestion"].encode()
    chunk = b"2000\r\n" + b" " * 0x2000 + b"\r\n"
    async with listening(edge) as url:
        start = head(ANOMALIES, key, b"Content-Type: application/json", b"Transfer-Encoding: chunked")
        line = await answered(url, start, *[chunk] * (BODY_LIMIT_BYTES // 0x2000 + 1))
    assert b" 413 " in line


@pytest.mark.parametrize(
    "headers",
    [
        [b"X-Slack-Signature: v0=\xff\xfe", b"X-Slack-Request-Timestamp: 1"],
        [b"X-Slack-Signature: v0=" + "é".encode() * 32, b"X-Slack-Request-Timestamp: " + "١٢".encode()],
        [b"X-Slack-Signature:", b"X-Slack-Request-Timestamp:"],
        [b"X-Slack-Signature: a", b"x-slack-signature: b", b"X-Slack-Request-Timestamp: 1"],
        [b"X-Slack-Request-Timestamp: " + b"9" * 10_000, b"X-Slack-Signature: v0=" + b"0" * 64],
        [b"Authorization: Bearer \xff", b"X-API-Key: \xff\xfe"],
    ],
)
async def test_headers_that_are_no_text_are_401(edge: Edge, headers: list[bytes]) -> None:
    async with listening(edge) as url:
        assert b" 401 " in await answered(url, head(COMMANDS, *headers, b"Content-Length: 2"), b"{}")
        assert b" 401 " in await answered(url, head(ANOMALIES, *headers, b"Content-Length: 2"), b"{}")


async def test_a_sender_that_goes_away_in_the_middle_breaks_nothing(edge: Edge) -> None:
    key = b"X-API-Key: " + edge.keys["ingestion"].encode()
    async with listening(edge) as url:
        address = urlsplit(url)
        for _ in range(5):
            _, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(head(ANOMALIES, key, b"Content-Type: application/json", b"Content-Length: 500") + b'{"anomaly_id"')
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        assert b" 200 " in await answered(url, b"GET /healthz HTTP/1.1\r\nHost: edge\r\n\r\n")
    assert edge.metric("infrasage_http_requests_total", method="POST", route=ANOMALIES, status="500") == 0
