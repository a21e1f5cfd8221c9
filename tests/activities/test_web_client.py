"""The HTTP client of runbooks against real servers on loopback: what it sends, what it takes, what it ignores."""

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest

from activities.clients.web import HttpAnswer, HttpRequest, check_header_names, system_trust
from activities.clients.web_exchange import ANSWER_LIMIT_BYTES
from activities.errors import InvalidStep, OutcomeUnknown, Refused, Unreachable
from tests.activities.web_clients import HOST, SAFE_TO_REPEAT, SECRET, UNSAFE, client, get
from tests.peers.http import HttpPeer, Received, answer, canary, http_peer, tcp_peer
from tests.peers.http_certificates import Authority


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def peer() -> AsyncIterator[HttpPeer]:
    async with http_peer(answer(200, b"done")) as listening:
        yield listening


async def test_a_request_arrives_as_written_with_the_host_s_own_name(peer: HttpPeer) -> None:
    request = HttpRequest("POST", peer.url("/v1/ü?q=a%20b", host=HOST), {"X-Team": "payments"}, b'{"a":1}')
    got = await client().send(request)
    assert (got.status, got.body) == (200, b"done")
    assert timedelta(0) < got.elapsed < timedelta(seconds=10)
    [arrived] = peer.requests
    assert (arrived.method, arrived.target, arrived.body) == ("POST", "/v1/%C3%BC?q=a%20b", b'{"a":1}')
    assert arrived.headers["host"] == f"{HOST}:{peer.port}"
    assert arrived.headers["x-team"] == "payments"
    assert (arrived.headers["accept-encoding"], arrived.headers["connection"]) == ("identity", "close")


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
        with pytest.raises(Unreachable, match=r"TLS failed .*; nothing was sent"):
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
