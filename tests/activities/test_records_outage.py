"""ClickHouse that is down, hangs, drops answers or says no: a sentence within a bound, no password in it, and no row twice."""

import asyncio
import gc
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from activities.clients.clickhouse import CALL_TIMEOUT, ClickHouse, open_clickhouse
from activities.clients.clickhouse_server import ServerAddress, ServerEngine
from activities.errors import NotConfigured, OrchestratorError, Refused, Unreachable
from domain.audit import RecordBatch
from domain.settings import Settings
from tests.activities.records import a_memory, a_run, an_anomaly, an_event, the_record_of
from tests.peers.clickhouse import (
    PASSWORD,
    USER,
    ClickHouseServer,
    clickhouse_server,
    count,
    embedded_clickhouse,
    served_clickhouse,
)

IMPATIENT = timedelta(seconds=0.5)


def impatient(server: ClickHouseServer, settings: Settings) -> ClickHouse:
    """A client of the server whose calls may take half a second."""
    address = ServerAddress("127.0.0.1", server.port, USER, SecretStr(PASSWORD), settings.clickhouse_database)
    return ClickHouse(ServerEngine(address, call_timeout=IMPATIENT))


async def problem_of(call: Awaitable[object]) -> OrchestratorError:
    """What the call fails with, which must not hold the password anywhere, its causes included."""
    with pytest.raises(OrchestratorError) as caught:
        await call
    link: BaseException | None = caught.value
    while link is not None:
        assert PASSWORD not in repr(link)
        link = link.__cause__ or link.__context__
    return caught.value


async def test_a_server_that_hangs_is_given_up_within_the_bound_and_found_again(server: ClickHouseServer) -> None:
    settings = server.settings()
    async with served_clickhouse(settings) as healthy:
        clickhouse = impatient(server, settings)
        try:
            await clickhouse.append(RecordBatch(audit=(an_event(),)))
            await server.hang()
            began = time.monotonic()
            calls: list[Callable[[], Awaitable[object]]] = [
                lambda: clickhouse.append(RecordBatch(audit=(an_event(),))),
                lambda: clickhouse.append(RecordBatch(executions=(a_run(),))),
                lambda: clickhouse.remember(a_memory(an_anomaly("anom-1"))),
                lambda: clickhouse.find_similar(an_anomaly("anom-2")),
                lambda: clickhouse.audit_rows(None, 10),
                clickhouse.ping,
                clickhouse.migrate,
            ]
            problems = await asyncio.gather(*(problem_of(call()) for call in calls))
            # All at once: a call that hangs must not hold up the others.
            assert time.monotonic() - began < IMPATIENT.total_seconds() + 2
            assert {type(problem) for problem in problems} == {Unreachable}
            assert str(problems[0]) == f"ClickHouse at 127.0.0.1:{server.port} did not answer within 0.5 s"
            await server.serve()
            assert len(await clickhouse.audit_rows(None, 10)) == 1
        finally:
            await clickhouse.aclose()
        assert await count(healthy, "infrasage_audit_log") == 1


async def test_a_server_that_hangs_from_the_start_is_given_up_too(server: ClickHouseServer) -> None:
    await server.hang()
    clickhouse = impatient(server, server.settings())
    try:
        began = time.monotonic()
        assert isinstance(await problem_of(clickhouse.migrate()), Unreachable)
        assert time.monotonic() - began < IMPATIENT.total_seconds() + 2
        await server.serve()
        await clickhouse.migrate()
    finally:
        await clickhouse.aclose()


async def test_first_calls_at_the_same_time_share_one_connection_pool(server: ClickHouseServer) -> None:
    """A second pool would be forgotten open, which the garbage collector tells as a ResourceWarning, and those are errors here."""
    clickhouse = impatient(server, server.settings())
    versions = await asyncio.gather(*(clickhouse.ping() for _ in range(5)))
    await clickhouse.aclose()
    gc.collect()
    assert len(set(versions)) == 1


def test_the_bound_of_a_call_is_a_few_seconds() -> None:
    assert timedelta(seconds=1) <= CALL_TIMEOUT <= timedelta(seconds=10)


async def test_a_server_that_does_not_listen_is_unreachable_until_it_is_back(served: ClickHouse, server: ClickHouseServer) -> None:
    event = an_event()
    await server.refuse()
    problem = await problem_of(served.append(RecordBatch(audit=(event,))))
    assert isinstance(problem, Unreachable)
    assert str(problem) == f"{where(served)} cannot be reached, or broke off the call"
    await server.serve()
    await served.append(RecordBatch(audit=(event,)))
    assert await served.audit_rows(None, 10) == [event]


def where(clickhouse: ClickHouse) -> str:
    return clickhouse._engine._where


async def test_a_server_that_drops_every_connection_is_unreachable(served: ClickHouse, server: ClickHouseServer) -> None:
    await server.drop()
    assert isinstance(await problem_of(served.append(RecordBatch(audit=(an_event(),)))), Unreachable)
    assert isinstance(await problem_of(served.ping()), Unreachable)


async def test_a_proxy_without_its_server_is_unreachable(served: ClickHouse, server: ClickHouseServer) -> None:
    await server.fail(1)
    problem = await problem_of(served.append(RecordBatch(audit=(an_event(),))))
    assert isinstance(problem, Unreachable)
    assert str(problem).endswith("answered with HTTP status 503")


@pytest.mark.parametrize("lost", [1, 2, 3])
async def test_rows_whose_answer_was_lost_are_there_once(served: ClickHouse, server: ClickHouseServer, lost: int) -> None:
    """The client repeats an insert whose connection broke, and Temporal repeats the activity: the server must drop the copies."""
    record = the_record_of(an_anomaly("anom-7f3d"))
    batch = RecordBatch(audit=(*record.audit, an_event(), an_event()), anomalies=record.anomalies, executions=(a_run(),))
    before = await server.serve()
    await server.lose(lost)
    for _ in range(5):
        try:
            await served.append(batch)
        except Unreachable:
            continue
        break
    inserts = await server.serve() - before
    assert inserts > 4  # otherwise nothing was repeated, and the test shows nothing
    assert await count(served, "infrasage_audit_log") == 3
    assert await count(served, "anomalies") == 1
    assert await count(served, "infrasage_runbook_executions") == 1


async def test_a_memory_whose_answer_was_lost_is_there_once(served: ClickHouse, server: ClickHouseServer) -> None:
    before = await server.serve()
    await server.lose(1)
    await served.remember(a_memory(an_anomaly("anom-7f3d")))
    assert await server.serve() - before == 2
    assert await count(served, "infrasage_incident_memory") == 1


async def test_a_wrong_password_is_refused_without_telling_it(server: ClickHouseServer) -> None:
    clickhouse = open_clickhouse(server.settings(clickhouse_password="wr0ng-passw0rd"), Path("unused"))
    try:
        problem = await problem_of(clickhouse.migrate())
    finally:
        await clickhouse.aclose()
    assert isinstance(problem, Refused)
    assert str(problem).endswith("does not let this user in: check CLICKHOUSE_USER and CLICKHOUSE_PASSWORD")
    assert "wr0ng" not in repr(problem)


async def test_tables_that_are_missing_are_named_with_the_remedy(server: ClickHouseServer) -> None:
    settings = server.settings()
    clickhouse = open_clickhouse(settings, Path("unused"))
    try:
        problem = await problem_of(clickhouse.audit_rows(None, 10))
        assert isinstance(problem, Refused)
        assert settings.clickhouse_database in str(problem)
        await clickhouse._engine.create_database()
        problem = await problem_of(clickhouse.audit_rows(None, 10))
        assert isinstance(problem, Refused)
        assert "`infrasage doctor`" in str(problem)
        assert "infrasage_audit_log" in str(problem)
    finally:
        await clickhouse.aclose()


async def test_an_address_where_something_else_answers_is_refused(unused_tcp_port_factory: Callable[[], int]) -> None:
    port = unused_tcp_port_factory()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", port):
        clickhouse = open_clickhouse(Settings(clickhouse_host="127.0.0.1", clickhouse_port=port), Path("unused"))
        try:
            problem = await problem_of(clickhouse.ping())
        finally:
            await clickhouse.aclose()
    assert isinstance(problem, Refused)
    assert "not as a ClickHouse server" in str(problem)


async def test_a_client_that_is_closed_says_so(tmp_path: Path, server: ClickHouseServer) -> None:
    for settings in (Settings(clickhouse_host=None), server.settings()):
        clickhouse = open_clickhouse(settings, tmp_path)
        await clickhouse.migrate()
        for _ in range(2):
            await clickhouse.aclose()
        problem = await problem_of(clickhouse.ping())
        assert isinstance(problem, Unreachable)
        assert "is closed" in str(problem)


# --- TLS ----------------------------------------------------------------------------------------------------------


async def test_a_server_is_reached_over_tls_by_its_own_authority_and_by_no_other(tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    async with clickhouse_server(tmp_path / "data", ca_file) as server:
        settings = server.settings(clickhouse_tls_enabled=True, clickhouse_tls_ca_cert=ca_file)
        async with served_clickhouse(settings) as clickhouse:
            await clickhouse.append(RecordBatch(audit=(an_event(),)))
            assert await count(clickhouse, "infrasage_audit_log") == 1
        stranger = open_clickhouse(server.settings(clickhouse_tls_enabled=True), Path("unused"))
        try:
            problem = await problem_of(stranger.ping())
        finally:
            await stranger.aclose()
    assert isinstance(problem, Refused)
    assert "CLICKHOUSE_TLS_CA_CERT" in str(problem)


@pytest.mark.parametrize("tls", [True, False])
def test_a_certificate_file_that_cannot_be_used_stops_the_start(tmp_path: Path, tls: bool) -> None:
    settings = Settings(clickhouse_host="127.0.0.1", clickhouse_tls_enabled=tls, clickhouse_tls_ca_cert=tmp_path / "not-there.pem")
    with pytest.raises(NotConfigured, match="CLICKHOUSE_TLS_CA_CERT"):
        open_clickhouse(settings, tmp_path)


# --- the embedded engine ------------------------------------------------------------------------------------------


async def test_a_directory_that_another_process_has_open_is_told_in_one_sentence(tmp_path: Path) -> None:
    clickhouse = open_clickhouse(Settings(clickhouse_host=None), tmp_path)
    try:
        async with clickhouse_server(tmp_path / "clickhouse") as other:
            problem = await problem_of(clickhouse.migrate())
            assert isinstance(problem, Unreachable)
            assert str(problem) == (
                f"the data directory {tmp_path / 'clickhouse'} is in use by another process (process {other.process.pid}), and an"
                " embedded ClickHouse serves one: stop that process, choose another --data-dir, or set CLICKHOUSE_HOST"
            )
        await clickhouse.migrate()
    finally:
        await clickhouse.aclose()


async def test_a_directory_that_cannot_be_made_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for data_dir, reason in ((tmp_path / "file", "choose another --data-dir"), (tmp_path / "a?b", "'?'")):
        clickhouse = open_clickhouse(Settings(clickhouse_host=None), data_dir)
        try:
            problem = await problem_of(clickhouse.ping())
        finally:
            await clickhouse.aclose()
        assert isinstance(problem, NotConfigured)
        assert reason in str(problem)


async def test_a_second_directory_in_one_process_is_told_in_one_sentence(tmp_path: Path) -> None:
    async with embedded_clickhouse(tmp_path / "one"):
        other = open_clickhouse(Settings(clickhouse_host=None), tmp_path / "two")
        try:
            problem = await problem_of(other.ping())
        finally:
            await other.aclose()
    assert isinstance(problem, Unreachable)
    assert str(tmp_path / "two") in str(problem)


async def test_the_event_loop_goes_on_while_the_embedded_engine_works(tmp_path: Path) -> None:
    async with embedded_clickhouse(tmp_path) as clickhouse:
        working = asyncio.create_task(clickhouse._engine.select("SELECT sleep(0.5)"))
        ticks = 0
        while not working.done():
            await asyncio.sleep(0.005)
            ticks += 1
        await working
    assert ticks > 20


WRITER = """
import asyncio, sys
from pathlib import Path
from domain.audit import RecordBatch
from tests.activities.records import an_event
from tests.peers.clickhouse import embedded_clickhouse

async def main() -> None:
    async with embedded_clickhouse(Path(sys.argv[1])) as clickhouse:
        for number in range(5):
            event = an_event(detail={"number": number})
            await clickhouse.append(RecordBatch(audit=(event,)))
            print(event.event_id, flush=True)
        await asyncio.sleep(3_600)

asyncio.run(main())
"""


async def test_what_was_written_survives_kill_9(tmp_path: Path) -> None:
    writer = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WRITER, str(tmp_path)), stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert writer.stdout is not None
    written = [(await asyncio.wait_for(writer.stdout.readline(), 60)).decode().strip() for _ in range(5)]
    writer.send_signal(signal.SIGKILL)
    await writer.wait()
    async with embedded_clickhouse(tmp_path) as clickhouse:
        assert [event.event_id for event in await clickhouse.audit_rows(None, 10)] == written
