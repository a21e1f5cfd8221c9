"""The HTTP client of runbooks against real servers on loopback: what it sends, what it takes, how it fails."""

import asyncio
import contextlib
import gzip
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import httpx
import pytest

from activities.clients.web import HttpAnswer, HttpRequest, WebClient, check_header_names, system_trust
from activities.clients.web_exchange import ANSWER_LIMIT_BYTES
from activities.errors import InvalidStep, OutcomeUnknown, Refused, Unreachable
from tests.peers.http import HttpPeer, Received, answer, canary, http_peer, read_request, tcp_peer, unused_port
from tests.peers.http_certificates import Authority

HOST = "api.example.test"
ALLOW = (f"{HOST}:*@127.0.0.0/8", "127.0.0.1:*")
SECRET = "s3cret-of-the-runbook"
UNSAFE = ("POST", "PATCH")
SAFE_TO_REPEAT = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")


class FixedResolver:
    """Gives the same addresses for every name, and counts the questions."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.questions = 0

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.questions += 1
        return self.addresses


def client(*addresses: str, tls: ssl.SSLContext | None = None) -> WebClient:
    return WebClient(ALLOW, resolver=FixedResolver(*(addresses or ("127.0.0.1",))), tls=tls)


def get(url: str, *, seconds: float = 10, **headers: str) -> HttpRequest:
    return HttpRequest("GET", url, headers=headers, timeout=timedelta(seconds=seconds))


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def peer() -> AsyncIterator[HttpPeer]:
    async with http_peer(answer(200, b"done")) as listening:
        yield listening


# What is sent and what is taken


async def test_a_request_arrives_as_written_with_the_host_s_own_name(peer: HttpPeer) -> None:
    request = HttpRequest("POST", peer.url("/v1/ü?q=a%20b", host=HOST), {"X-Team": "payments"}, b'{"a":1}')
    got = await client().send(request)
    assert (got.status, got.body) == (200, b"done")
    assert timedelta(0) < got.elapsed < timedelta(seconds=10)
    [arrived] = peer.requests
    assert (arrived.method, arrived.target, arrived.body) == ("POST", "/v1/%C3%BC?q=a%20b", b'{"a":1}')
    assert arrived.headers["host"] == f"{HOST}:{peer.port}"
    assert arrived.headers["x-team"] == "payments"
    assert arrived.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("method", [*SAFE_TO_REPEAT, *UNSAFE])
async def test_every_allowed_method_arrives_and_a_missing_body_is_declared_empty(method: str) -> None:
    async with http_peer(answer(204, headers={"content-length": "0"})) as peer:
        assert (await client().send(HttpRequest(method, peer.url()))).status == 204
    [arrived] = peer.requests
    assert arrived.method == method
    assert arrived.headers.get("content-length") == ("0" if method in {"POST", "PUT", "PATCH"} else None)


@pytest.mark.parametrize("status", [200, 201, 404, 429, 500, 503])
async def test_any_status_is_an_answer(status: int) -> None:
    async with http_peer(answer(status, b"text", {"Retry-After": "7", "Content-Type": "text/plain"})) as peer:
        got = await client().send(get(peer.url()))
    assert (got.status, got.body, got.headers) == (status, b"text", {"retry-after": "7", "content-type": "text/plain"})


async def test_session_headers_of_an_answer_are_dropped_and_a_redirect_loses_its_query() -> None:
    headers = {"Set-Cookie": f"sid={SECRET}", "Location": f"https://login.example/next?token={SECRET}#{SECRET}"}
    async with http_peer(answer(302, headers=headers)) as peer:
        got = await client().send(get(peer.url()))
    assert got.headers == {"location": "https://login.example/next"}


async def test_no_cookie_is_kept_between_requests() -> None:
    async with http_peer(answer(200, headers={"Set-Cookie": "sid=1; Path=/"})) as peer:
        web = client()
        await web.send(get(peer.url()))
        await web.send(get(peer.url()))
        async with httpx.AsyncClient(trust_env=False) as keeping:  # the control: another client does send it back
            await keeping.get(peer.url())
            await keeping.get(peer.url())
    assert ["cookie" in request.headers for request in peer.requests] == [False, False, False, True]


async def test_a_closed_client_sends_nothing_more(peer: HttpPeer) -> None:
    web = client()
    await web.aclose()
    with pytest.raises(Unreachable, match="shut down; nothing was sent"):
        await web.send(get(peer.url()))
    assert peer.connections == 0


async def test_an_answer_of_exactly_one_mebibyte_is_taken() -> None:
    async with http_peer(answer(200, bytes(ANSWER_LIMIT_BYTES))) as peer:
        got = await client().send(get(peer.url()))
    assert len(got.body) == ANSWER_LIMIT_BYTES


@pytest.mark.parametrize(
    ("method", "error"), [("GET", Refused), ("POST", OutcomeUnknown), ("PUT", OutcomeUnknown), ("DELETE", OutcomeUnknown)]
)
async def test_one_byte_more_is_an_error_that_names_the_status(method: str, error: type[Exception]) -> None:
    async with http_peer(answer(200, bytes(ANSWER_LIMIT_BYTES + 1))) as peer:
        with pytest.raises(error, match=f"answered {method} with status 200 and a body of more than 1 MiB"):
            await client().send(HttpRequest(method, peer.url()))


async def test_an_endless_answer_is_cut_off_while_it_streams() -> None:
    sent = 0

    async def pour(_: Received, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + bytes(65_536) + b"\r\n")
            await writer.drain()
            sent += 65_536

    async with http_peer(pour) as peer:
        with pytest.raises(Refused, match="more than 1 MiB"):
            await client().send(get(peer.url()))
    assert sent < 64 * ANSWER_LIMIT_BYTES


async def test_a_compressed_bomb_stays_as_small_as_it_was_sent() -> None:
    bomb = gzip.compress(bytes(16 * ANSWER_LIMIT_BYTES))
    async with http_peer(answer(200, bomb, {"Content-Encoding": "gzip"})) as peer:
        got = await client().send(get(peer.url()))
        async with httpx.AsyncClient(trust_env=False) as decoding:  # the control: it does go off
            assert len((await decoding.get(peer.url())).content) == 16 * ANSWER_LIMIT_BYTES
    assert got.body == bomb
    assert got.headers["content-encoding"] == "gzip"


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


async def test_a_silent_tls_handshake_ends_in_time_and_nothing_was_sent() -> None:
    async with tcp_peer(_say_nothing) as peer:
        with pytest.raises(Unreachable, match="nothing was sent"):
            await client().send(HttpRequest("POST", peer.url(scheme="https"), timeout=timedelta(seconds=0.2)))


async def test_a_silent_resolver_ends_in_time_and_nothing_was_sent() -> None:
    async def silent(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    web = WebClient(ALLOW, resolver=silent)
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
    port = await unused_port()
    with pytest.raises(Unreachable, match=f"127.0.0.1:{port} could not be reached: connection refused; nothing was sent"):
        await client().send(HttpRequest(method, f"http://127.0.0.1:{port}/"))


async def test_a_name_without_an_address_means_that_nothing_was_sent() -> None:
    async def fails(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(Unreachable, match=f"^{HOST} could not be resolved: Name or service not known; nothing was sent"):
        await WebClient(ALLOW, resolver=fails).send(HttpRequest("POST", f"http://{HOST}/"))
    with pytest.raises(Unreachable, match=f"^{HOST} has no address"):
        await WebClient(ALLOW, resolver=FixedResolver()).check(f"http://{HOST}/")


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


# Malformed requests


@pytest.mark.parametrize(
    "value",
    [
        f"Token {SECRET}\r\nX-Injected: 1",
        f"Token {SECRET}\n",
        f"\r{SECRET}",
        f"{SECRET}\x00",
        f"{SECRET}\x7f",
        f"{SECRET}\u010d\u010a",
        f"{SECRET}\u2028",
        f" {SECRET}",
        f"{SECRET}\t",
    ],
)
async def test_a_header_value_that_could_end_the_header_is_refused_unseen(peer: HttpPeer, value: str) -> None:
    with pytest.raises(InvalidStep, match="The value of the header Authorization may hold") as refusal:
        await client().send(get(peer.url(), Authorization=value))
    assert SECRET not in str(refusal.value)
    assert peer.connections == 0


async def test_unchecked_such_a_value_would_inject_a_header(peer: HttpPeer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", peer.port)
    value = f"Token {SECRET}\r\nX-Injected: 1"
    writer.write(f"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: {value}\r\n\r\n".encode())
    await reader.read()
    writer.close()
    await writer.wait_closed()
    assert peer.requests[0].headers["x-injected"] == "1"


@pytest.mark.parametrize("name", ["", "X Y", "X:Y", "X\r\nY", "X\nY", "Ü", "x" * 101])
async def test_a_header_name_that_is_no_token_is_refused(peer: HttpPeer, name: str) -> None:
    with pytest.raises(InvalidStep, match="A header name of an http step"):
        await client().send(HttpRequest("GET", peer.url(), {name: "1"}))
    assert peer.connections == 0


@pytest.mark.parametrize("name", ["Host", "content-length", "Transfer-Encoding", "CONNECTION", "Upgrade", "Accept-Encoding"])
async def test_a_header_that_decides_where_a_request_goes_or_ends_is_refused(peer: HttpPeer, name: str) -> None:
    with pytest.raises(InvalidStep, match=f"may not set the header {name}"):
        await client().send(HttpRequest("GET", peer.url(), {name: "internal.example"}))
    assert peer.connections == 0


def test_a_header_that_is_given_twice_in_different_case_is_refused() -> None:
    with pytest.raises(InvalidStep, match="once only"):
        check_header_names({"X-Token": "$A", "x-token": "$B"})


@pytest.mark.parametrize("method", ["", "get", "CONNECT", "TRACE", "GET / HTTP/1.1\r\nX: y", "POſT", "GET "])
async def test_any_other_method_is_refused_and_the_allowed_ones_are_named(peer: HttpPeer, method: str) -> None:
    with pytest.raises(InvalidStep, match="must be one of DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"):
        await client().send(HttpRequest(method, peer.url()))
    assert peer.connections == 0


@pytest.mark.parametrize("seconds", [0, -1])
async def test_a_timeout_that_is_not_positive_is_refused(peer: HttpPeer, seconds: int) -> None:
    with pytest.raises(InvalidStep, match="more than 0 seconds"):
        await client().send(get(peer.url(), seconds=seconds))
    assert peer.connections == 0


# Secrets


async def _failures(authority: Authority) -> list[Exception]:
    """Fail in every way that there is, with a secret in path, query, header and body each time."""
    found: list[Exception] = []

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
    await fail(client(), f"http://127.0.0.1:{await unused_port()}")
    await fail(client(), "http://not-allowed.example")
    await fail(client("10.0.0.1"), f"http://{HOST}")
    await fail(client(), "http://127.0.0.1", headers={"Authorization": f"{SECRET}\n"})
    await fail(client(), f"http://{SECRET}@127.0.0.1")
    await fail(client(), "http://127.1")
    return found


async def test_no_failure_and_no_log_line_shows_a_secret(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        failures = await _failures(authority)
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
    with caplog.at_level(logging.INFO):
        async with httpx.AsyncClient(trust_env=False) as logging_client:
            await logging_client.get(peer.url(f"/?token={SECRET}"))
    assert SECRET in caplog.text


# TLS


async def test_tls_names_the_host_and_verifies_it_although_an_address_is_connected_to(authority: Authority) -> None:
    named: list[str | None] = []
    async with http_peer(answer(200, b"safe"), tls=authority.serve(HOST, on_server_name=named.append)) as peer:
        got = await client(tls=authority.trust()).send(get(peer.url(host=HOST, scheme="https")))
    assert (got.status, got.body, named) == (200, b"safe", [HOST])
    assert peer.requests[0].headers["host"] == f"{HOST}:{peer.port}"


async def test_an_address_in_the_url_is_verified_as_an_address(authority: Authority) -> None:
    async with http_peer(tls=authority.serve("127.0.0.1")) as peer:
        assert (await client(tls=authority.trust()).send(get(peer.url(scheme="https")))).status == 200
        with pytest.raises(Unreachable, match="certificate was not accepted"):
            await client(tls=authority.trust()).send(get(peer.url(host=HOST, scheme="https")))


async def test_a_certificate_for_another_host_or_of_another_authority_is_not_accepted(authority: Authority) -> None:
    async with http_peer(tls=authority.serve("other.example.test")) as peer:
        for tls in (authority.trust(), Authority().trust(), system_trust()):
            with pytest.raises(Unreachable, match=r"its TLS certificate was not accepted .*nothing was sent"):
                await client(tls=tls).send(HttpRequest("POST", peer.url(host=HOST, scheme="https")))
        assert peer.requests == []
        careless = ssl.create_default_context()  # the control: without verification the request arrives
        careless.check_hostname = False
        careless.verify_mode = ssl.CERT_NONE
        await client(tls=careless).send(get(peer.url(host=HOST, scheme="https")))
        assert len(peer.requests) == 1


async def test_a_server_without_tls_gets_no_request_meant_for_tls() -> None:
    heard = bytearray()

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.read(65_536))
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()

    async with tcp_peer(plain) as peer:
        with pytest.raises(Unreachable, match="TLS failed .*; nothing was sent"):
            await client().send(HttpRequest("POST", peer.url(f"/{SECRET}", scheme="https"), body=SECRET.encode()))
    assert heard[:1] == b"\x16"  # a TLS handshake record
    assert SECRET.encode() not in heard


def test_the_default_trust_verifies_certificates_and_host_names() -> None:
    context = system_trust()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


# The environment


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
async def test_no_proxy_variable_is_followed(peer: HttpPeer, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    async with canary() as proxy:
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")
        got: HttpAnswer = await client().send(get(peer.url(host=HOST)))
        assert (got.body, await proxy.hits()) == (b"done", 0)
        async with httpx.AsyncClient() as obedient:  # the control: the variable does work
            assert (await obedient.get(peer.url(host=HOST))).text == "canary"
        assert await proxy.hits() == 1


async def test_no_netrc_file_is_read(peer: HttpPeer, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text(f"default login somebody password {SECRET}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    await client().send(get(peer.url()))
    assert "authorization" not in peer.requests[0].headers
