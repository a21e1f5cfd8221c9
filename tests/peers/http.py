"""Loopback HTTP servers that record what reaches them, raw TCP servers, and canaries that nothing may reach."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Received:
    """One request as it arrived; header names in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


Reply = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class TcpPeer:
    """A listening server; `connections` counts what was accepted."""

    host: str
    port: int
    connections: int = 0

    def url(self, path: str = "/", *, host: str | None = None, scheme: str = "http") -> str:
        """Return a URL of this server, under another host name if one is given."""
        return f"{scheme}://{host or self.host}:{self.port}{path}"


@dataclass
class HttpPeer(TcpPeer):
    """A listening HTTP server; `requests` holds what arrived, in order."""

    requests: list[Received] = field(default_factory=list[Received])


def answer(status: int = 200, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Reply:
    """Reply with one complete answer and close."""
    lines = {"content-length": str(len(body)), "connection": "close", **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    whole = f"HTTP/1.1 {status} Answer\r\n{head}\r\n".encode() + body

    async def reply(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(whole)
        await writer.drain()

    return reply


@contextlib.asynccontextmanager
async def tcp_peer(
    handler: Handler, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[TcpPeer]:
    """Serve each connection with `handler`, then close it; with `tls`, connections count after the handshake."""
    peer = TcpPeer(host, port)
    async with _serving(peer, handler, tls):
        yield peer


@contextlib.asynccontextmanager
async def http_peer(
    reply: Reply | None = None, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[HttpPeer]:
    """Serve HTTP/1.1, one request per connection; the default reply is an empty 200."""
    peer = HttpPeer(host, port)
    respond = reply or answer()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        peer.requests.append(request)
        await respond(request, writer)

    async with _serving(peer, handle, tls):
        yield peer


async def read_request(reader: asyncio.StreamReader) -> Received:
    """Read one request with a Content-Length or without a body."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, target, headers, body)


@contextlib.asynccontextmanager
async def _serving(peer: TcpPeer, handler: Handler, tls: ssl.SSLContext | None) -> AsyncIterator[None]:
    running: set[asyncio.Task[None]] = set()
    open_connections: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer.connections += 1
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # the client went away, as several tests want it to
        finally:
            writer.close()
            open_connections.discard(writer)

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_connections.add(writer)
        task = asyncio.ensure_future(serve(reader, writer))
        running.add(task)
        task.add_done_callback(running.discard)

    server = await asyncio.start_server(accept, peer.host, peer.port, ssl=tls)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield
    finally:
        server.close()
        unfinished = tuple(running)
        for task in unfinished:
            task.cancel()
        outcomes = await asyncio.gather(*unfinished, return_exceptions=True)
        for writer in open_connections:  # of tasks that were cancelled before their first step
            writer.transport.abort()
        await server.wait_closed()
        failures = [e for e in outcomes if isinstance(e, BaseException) and not isinstance(e, asyncio.CancelledError)]
        if failures:
            raise failures[0]


class Canary:
    """Listens on one port of 127.0.0.1, 127.0.0.2 and, where the machine has it, ::1; whoever connects was not stopped."""

    def __init__(self, port: int, listeners: tuple[TcpPeer, ...]) -> None:
        self.port = port
        self._listeners = listeners

    async def hits(self) -> int:
        """Return how many connections came, after letting those still in the accept queues come through."""
        for listener in self._listeners:
            reader, writer = await asyncio.open_connection(listener.host, listener.port)
            writer.write(b"?")
            await reader.read()  # answered: everything that was in the queue before is counted
            writer.close()
            await writer.wait_closed()
            listener.connections -= 1
        return sum(listener.connections for listener in self._listeners)


@contextlib.asynccontextmanager
async def canary() -> AsyncIterator[Canary]:
    """Keep a canary that answers every connection with a small 200."""

    async def sing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 200 Canary\r\ncontent-length: 6\r\nconnection: close\r\n\r\ncanary")
        await writer.drain()

    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(tcp_peer(sing))
        hosts = ("127.0.0.2", "::1") if has_ipv6() else ("127.0.0.2",)
        others = [await stack.enter_async_context(tcp_peer(sing, host=host, port=first.port)) for host in hosts]
        yield Canary(first.port, (first, *others))


def has_ipv6() -> bool:
    """Whether this machine can listen on ::1."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def unused_port() -> int:
    """Return a loopback port on which nobody listened a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
