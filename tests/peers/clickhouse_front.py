"""A ClickHouse server for tests: chDB, the real engine, behind the part of ClickHouse's HTTP interface that clients use.

Run as a process of its own (`python -m tests.peers.clickhouse_front PATH USER PASSWORD [CA_FILE]`), because chDB has one directory
in a process. With CA_FILE it speaks TLS, and writes the certificate of its authority there. It prints its port, and takes one
command a line on stdin, each answered by `ok` and the number of inserts that were run so far:

    serve    answer, as a healthy server
    hang     take requests and never answer
    drop     close every connection without an answer
    lose N   run the next N inserts, and close the connection instead of answering: the client cannot know that they ran
    fail N   answer the next N requests with 503, as a proxy does whose server is away
    refuse   stop listening
"""

import asyncio
import base64
import contextlib
import json
import re
import ssl
import sys
import tempfile
from pathlib import Path

import chdb
from aiohttp import web

from tests.peers.http_certificates import Authority

RESERVED = frozenset(
    {
        "query",
        "database",
        "session_id",
        "query_id",
        "wait_end_of_query",
        "client_protocol_version",
        "send_progress_in_http_headers",
        "http_headers_progress_interval_ms",
        "enable_http_compression",
    }
)
"""Parameters of the HTTP interface; every other one is a setting."""

INSERT = re.compile(rb"(INSERT INTO .*?) FORMAT (Native)\n", re.DOTALL)
STATUS_OF_CODE = {"516": 403, "497": 403, "60": 404, "81": 404}


class Front:
    """One engine, one port."""

    def __init__(self, path: str, user: str, password: str, ca_file: str | None = None) -> None:
        Path(path).mkdir(parents=True, exist_ok=True)
        self._path = path
        self._credentials = (user, password)
        self._mode = "serve"
        self._remaining = 0
        self.inserts = 0
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._tls: ssl.SSLContext | None = None
        if ca_file is not None:
            authority = Authority()
            Path(ca_file).write_text(authority.certificate, encoding="ascii")
            self._tls = authority.serve("127.0.0.1")
        self.port = 0
        self._engine = chdb.connect(path)  # keeps the engine alive between requests

    async def listen(self) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{tail:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True, ssl_context=self._tls)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]

    async def command(self, line: str) -> None:
        mode, _, count = line.partition(" ")
        self._remaining = int(count or 0)
        self._mode = mode
        self._changed.set()
        self._changed = asyncio.Event()
        if mode == "refuse" and self._runner:
            await self._runner.cleanup()
            self._runner = None
        elif self._runner is None:
            await self.listen()

    async def close(self) -> None:
        if self._runner:
            await self._runner.cleanup()
        self._engine.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self._mode == "hang":
            await self._changed.wait()
        if self._mode == "drop":
            return self._broken_off(request)
        if self._mode == "fail" and self._remaining:
            self._remaining -= 1
            return web.Response(status=503, text="no server is available")
        inserts = self.inserts
        response = await self._run(request)
        if self._mode == "lose" and self._remaining and self.inserts > inserts:
            self._remaining -= 1
            return self._broken_off(request)
        return response

    @staticmethod
    def _broken_off(request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def _run(self, request: web.Request) -> web.Response:
        if not self._is_let_in(request):
            return _refused("Code: 516. DB::Exception: Authentication failed: password is incorrect. (AUTHENTICATION_FAILED)")
        values = dict(request.query)
        body = b""
        if request.content_type == "multipart/form-data":
            values |= {key: str(value) for key, value in (await request.post()).items()}
        else:
            body = await request.read()
        sql = values.get("query", "").encode() + (b"\n" if values.get("query") and body else b"") + body
        parameters = {key.removeprefix("param_"): value for key, value in values.items() if key.startswith("param_")}
        settings = {key: value for key, value in values.items() if key not in RESERVED and not key.startswith("param_")}
        try:
            answer = await asyncio.to_thread(self._execute, sql, values.get("database"), parameters, settings)
        except RuntimeError as error:
            return _refused(str(error))
        headers = {"X-ClickHouse-Summary": json.dumps({"written_rows": "0"}), "X-ClickHouse-Timezone": "UTC"}
        return web.Response(body=answer, headers=headers, content_type="application/octet-stream")

    def _is_let_in(self, request: web.Request) -> bool:
        kind, _, encoded = request.headers.get("Authorization", "").partition(" ")
        if kind != "Basic":
            return False
        user, _, password = base64.b64decode(encoded).decode().partition(":")
        return (user, password) == self._credentials

    def _execute(self, sql: bytes, database: str | None, parameters: dict[str, str], settings: dict[str, str]) -> bytes:
        """On a connection of its own, as a request without a session has: settings and database end with it."""
        connection = chdb.connect(self._path)
        try:
            if database:
                connection.query(f"USE `{database}`", "TabSeparated")
            for name, value in settings.items():
                literal = value.replace("\\", "\\\\").replace("'", "\\'")
                connection.query(f"SET {name} = '{literal}'", "TabSeparated")
            insert = INSERT.match(sql)
            if insert is None:
                return connection.query(sql.decode(), "TabSeparated", params=parameters).bytes() or b""
            with tempfile.NamedTemporaryFile(suffix=".native") as rows:
                rows.write(sql[insert.end() :])
                rows.flush()
                statement = f"{insert.group(1).decode()} FROM INFILE '{rows.name}' FORMAT Native"
                answer = connection.query(statement, "TabSeparated").bytes() or b""
                self.inserts += 1
                return answer
        finally:
            connection.close()


def _refused(message: str) -> web.Response:
    found = re.search(r"Code: (\d+)", message)
    code = found.group(1) if found else "1002"
    said = message[found.start() :] if found else message
    return web.Response(
        status=STATUS_OF_CODE.get(code, 500),
        text=f"{said.strip()} (version 26.9.2.1)\n",
        headers={"X-ClickHouse-Exception-Code": code},
    )


async def main(*arguments: str) -> None:
    front = Front(*arguments)
    await front.listen()
    print(front.port, flush=True)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode().strip():
        await front.command(line)
        print("ok", front.inserts, flush=True)
    await front.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
