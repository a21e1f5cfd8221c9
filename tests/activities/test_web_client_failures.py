"""The HTTP client against servers that stall, break off or lie: in time, with the right outcome, and with no secret shown."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import httpx
import pytest

from activities.clients.web import HttpRequest, WebClient
from activities.clients.web_exchange import ANSWER_LIMIT_BYTES
from activities.errors import OutcomeUnknown, Unreachable
from tests.activities.web_clients import ALLOW, HOST, SAFE_TO_REPEAT, SECRET, TRUST, UNSAFE, FixedResolver, client, get
from tests.peers.http import HttpPeer, answer, http_peer, read_request, tcp_peer, unused_port
from tests.peers.http_certificates import Authority


@pytest.fixture
async def peer() -> AsyncIterator[HttpPeer]:
    async with http_peer(answer(200, b"done")) as listening:
        yield listening


# Time


async def _dribble_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    await _repeat(writer, b"x")


async def _dribble_headers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\n")
    await _repeat(writer, b"x: y\r\n")


async def _dribble_interim_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    await _repeat(writer, b"HTTP/1.1 102 Processing\r\n\r\n")


async def _say_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def _repeat(writer: asyncio.StreamWriter, piece: bytes) -> None:
    while True:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("handler", [_dribble_body, _dribble_headers, _dribble_interim_answers, _say_nothing])
@pytest.mark.parametrize(("method", "error"), [("GET", Unreachable), ("POST", OutcomeUnknown)])
async def test_the_timeout_bounds_the_whole_exchange(handler, method: str, error: type[Exception]) -> None:
    async with tcp_peer(handler) as peer, asyncio.timeout(5):
        with pytest.raises(error, match=r"no complete answer within 0\.2 s"):
            await client().send(HttpRequest(method, peer.url(), timeout=timedelta(seconds=0.2)))


async def test_a_timeout_for_each_read_would_not_stop_a_dribbling_server() -> None:
    async with tcp_peer(_dribble_body) as peer, httpx.AsyncClient(trust_env=False, timeout=0.2) as per_read:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.6):
                await per_read.get(peer.url())


async def test_a_silent_tls_handshake_ends_in_time_nothing_was_sent_and_the_connection_is_closed() -> None:
    closed = asyncio.Event()

    async def wait_for_the_end(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()
        closed.set()

    async with tcp_peer(wait_for_the_end) as peer, asyncio.timeout(5):
        with pytest.raises(Unreachable, match="nothing was sent"):
            await client().send(HttpRequest("POST", peer.url(scheme="https"), timeout=timedelta(seconds=0.2)))
        await closed.wait()


async def test_a_silent_resolver_ends_in_time_and_nothing_was_sent() -> None:
    async def silent(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    web = WebClient(ALLOW, resolver=silent, tls=TRUST)
    with pytest.raises(Unreachable, match="nothing was sent"):
        await web.send(HttpRequest("POST", f"http://{HOST}/", timeout=timedelta(seconds=0.1)))


async def test_a_cancelled_request_stays_cancelled() -> None:
    async with tcp_peer(_say_nothing) as peer:
        sending = asyncio.ensure_future(client().send(get(peer.url())))
        async with asyncio.timeout(5):
            while peer.connections == 0:  # noqa: ASYNC110 - the peer has no event to wait for
                await asyncio.sleep(0.005)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending


# Failures


async def _close_at_once(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def _close_after_reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.transport.abort()


async def _close_within_the_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
    await writer.drain()


async def _speak_another_protocol(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    request = await read_request(reader)
    writer.write(b"SSH-2.0-" + request.headers.get("authorization", "").encode() + b"\r\n\r\n")
    await writer.drain()


BREAKING = [_close_at_once, _close_after_reading, _close_within_the_body, _speak_another_protocol]


@pytest.mark.parametrize("handler", BREAKING)
@pytest.mark.parametrize("method", UNSAFE)
async def test_a_post_or_patch_that_broke_off_has_an_unknown_outcome(handler, method: str) -> None:
    async with tcp_peer(handler) as peer:
        with pytest.raises(OutcomeUnknown, match=f"may or may not have carried out the {method}"):
            await client().send(HttpRequest(method, peer.url(), body=b"{}"))


@pytest.mark.parametrize("handler", [_close_at_once, _close_after_reading, _speak_another_protocol])
@pytest.mark.parametrize("method", SAFE_TO_REPEAT)
async def test_a_method_that_may_be_repeated_is_unreachable_when_it_broke_off(handler, method: str) -> None:
    async with tcp_peer(handler) as peer:
        with pytest.raises(Unreachable, match=f"gave no complete answer to {method}"):
            await client().send(HttpRequest(method, peer.url()))


@pytest.mark.parametrize("method", [*UNSAFE, *SAFE_TO_REPEAT])
async def test_a_refused_connection_means_that_nothing_was_sent(method: str) -> None:
    port = unused_port()
    with pytest.raises(Unreachable, match=f"127.0.0.1:{port} could not be reached: connection refused; nothing was sent"):
        await client().send(HttpRequest(method, f"http://127.0.0.1:{port}/"))


async def test_a_name_without_an_address_means_that_nothing_was_sent() -> None:
    async def fails(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(Unreachable, match=f"^{HOST} could not be resolved: Name or service not known; nothing was sent"):
        await WebClient(ALLOW, resolver=fails, tls=TRUST).send(HttpRequest("POST", f"http://{HOST}/"))
    with pytest.raises(Unreachable, match=f"^{HOST} has no address"):
        await WebClient(ALLOW, resolver=FixedResolver(), tls=TRUST).check(f"http://{HOST}/")


async def test_the_next_judged_address_is_tried_when_one_refuses(peer: HttpPeer) -> None:
    got = await client("127.0.0.3", "127.0.0.1").send(get(peer.url(host=HOST)))
    assert got.status == 200


async def test_an_address_that_swallows_connections_leaves_time_for_the_next(peer: HttpPeer) -> None:
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.3", peer.port))
        full.listen(0)
        for _ in range(4):  # fill the queue of a listener that never accepts
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        got = await client("127.0.0.3", "127.0.0.1").send(get(peer.url(host=HOST), seconds=1))
    assert got.status == 200


@pytest.mark.parametrize("status", [101, 99, 1000])
async def test_a_status_that_nobody_asked_for_is_no_answer(status: int) -> None:
    async with http_peer(answer(status)) as peer:
        with pytest.raises(Unreachable, match="broke off or did not speak HTTP"):
            await client().send(get(peer.url()))


# Secrets


async def _failures() -> list[Exception]:
    """Fail in every way that there is, with a secret in path, query, header and body each time."""
    found: list[Exception] = []
    authority = Authority()

    async def fail(web: WebClient, base: str, **changes: object) -> None:
        request = HttpRequest(
            **{
                "method": "POST",
                "url": f"{base}/{SECRET}?token={SECRET}",
                "headers": {"Authorization": f"Token {SECRET}"},
                "body": SECRET.encode(),
                "timeout": timedelta(seconds=0.2),
                **changes,
            }
        )
        assert SECRET not in repr(request)
        with pytest.raises(Exception) as caught:
            await web.send(request)
        found.append(caught.value)

    for handler in (*BREAKING, _say_nothing, _dribble_body):
        async with tcp_peer(handler) as peer:
            await fail(client(), peer.url(""))
    async with http_peer(answer(200, bytes(ANSWER_LIMIT_BYTES + 1))) as peer:
        await fail(client(), peer.url(""), timeout=timedelta(seconds=10))
    async with http_peer(tls=authority.serve("other.example.test")) as peer:
        await fail(client(tls=authority.trust()), peer.url("", host=HOST, scheme="https"), timeout=timedelta(seconds=10))
    await fail(client(), f"http://127.0.0.1:{unused_port()}")
    await fail(client(), "http://not-allowed.example")
    await fail(client("10.0.0.1"), f"http://{HOST}")
    await fail(client(), "http://127.0.0.1", headers={"Authorization": f"{SECRET}\n"})
    await fail(client(), f"http://{SECRET}@127.0.0.1")
    await fail(client(), "http://127.1")
    return found


async def test_no_failure_and_no_log_line_shows_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        failures = await _failures()
    assert len(failures) == 14
    for failure in failures:
        assert SECRET not in f"{failure} {failure!r}"
        assert failure.__cause__ is None
        assert failure.__context__ is None or failure.__suppress_context__
    assert SECRET not in caplog.text


async def test_httpcore_at_debug_would_log_what_a_server_echoes(caplog: pytest.LogCaptureFixture) -> None:
    async with tcp_peer(_speak_another_protocol) as peer:
        with caplog.at_level(logging.DEBUG, logger="httpcore"), pytest.raises(Unreachable):
            await client().send(get(peer.url(), Authorization=SECRET))
    assert SECRET in caplog.text


async def test_another_client_does_log_the_query(peer: HttpPeer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="httpx"):
        async with httpx.AsyncClient(trust_env=False) as logging_client:
            await logging_client.get(peer.url(f"/?token={SECRET}"))
    assert SECRET in caplog.text
