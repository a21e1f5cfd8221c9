"""The tables: made once, by whoever comes first, and beside what is there already."""

import asyncio
from pathlib import Path

from activities.clients.clickhouse import ClickHouse, open_clickhouse
from activities.clients.clickhouse_schema import MIGRATIONS
from activities.clients.clickhouse_tables import ANOMALIES, AUDIT, EXECUTIONS, MEMORY
from domain.settings import Settings
from tests.activities.records import NOON, a_memory, a_run, an_anomaly, an_event, the_record_of
from tests.peers.clickhouse import ClickHouseServer, count, served_clickhouse, sql

NAMES = [migration.name for migration in MIGRATIONS]


async def test_a_second_migration_finds_nothing_to_do(clickhouse: ClickHouse) -> None:
    await clickhouse.append(the_record_of(an_anomaly("anom-7f3d")))
    assert await clickhouse.migrate() == ()
    assert await count(clickhouse, "anomalies") == 1
    assert await sql(clickhouse, "SELECT version, name FROM infrasage_schema_migrations") == [
        (migration.version, migration.name) for migration in MIGRATIONS
    ]


async def test_every_statement_may_be_run_again(clickhouse: ClickHouse) -> None:
    """What two processes at once, or one that died half-way, amount to."""
    await clickhouse.append(the_record_of(an_anomaly("anom-7f3d")))
    for migration in MIGRATIONS:
        for statement in migration.statements:
            await clickhouse._engine.run(statement)
    assert await count(clickhouse, "anomalies") == 1
    assert await count(clickhouse, "infrasage_audit_log") == 1


def test_migrations_are_numbered_from_one_without_a_gap() -> None:
    assert [migration.version for migration in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))


async def test_processes_that_start_together_migrate_once(server: ClickHouseServer) -> None:
    settings = server.settings()
    clients = [open_clickhouse(settings, Path("unused")) for _ in range(4)]
    try:
        applied = await asyncio.gather(*(client.migrate() for client in clients))
        assert {name for names in applied for name in names} == set(NAMES)
        assert await count(clients[0], "infrasage_schema_migrations") == len(MIGRATIONS)
    finally:
        for client in clients:
            await client.aclose()


async def test_two_clients_in_one_process_share_an_embedded_database(tmp_path: Path) -> None:
    settings = Settings(clickhouse_host=None, clickhouse_database="tenant_7")
    first, second = open_clickhouse(settings, tmp_path), open_clickhouse(settings, tmp_path)
    try:
        await asyncio.gather(first.migrate(), second.migrate())
        assert await count(first, "infrasage_schema_migrations") == len(MIGRATIONS)
        await first.append(the_record_of(an_anomaly("anom-7f3d")))
        assert len(await second.audit_rows(None, 10)) == 1
    finally:
        await first.aclose()
        await second.aclose()


async def test_the_database_is_created_and_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    settings = Settings(clickhouse_host=None, clickhouse_database="tenant_7")
    event = an_event()
    for migrated in (tuple(NAMES), ()):
        clickhouse = open_clickhouse(settings, tmp_path / "new" / "folder")
        try:
            assert await clickhouse.migrate() == migrated
            await clickhouse.append(the_record_of(an_anomaly("anom-7f3d")).model_copy(update={"audit": (event,)}))
            assert await clickhouse.audit_rows(None, 10) == [event]
            assert await count(clickhouse, "tenant_7.anomalies") == 1
        finally:
            await clickhouse.aclose()


async def test_each_tenant_of_a_server_sees_its_own_rows(server: ClickHouseServer) -> None:
    async with served_clickhouse(server.settings()) as one, served_clickhouse(server.settings()) as other:
        await one.append(the_record_of(an_anomaly("anom-7f3d")))
        assert await other.audit_rows(None, 10) == []


async def test_the_version_is_told_before_the_database_exists(server: ClickHouseServer, tmp_path: Path) -> None:
    for settings in (server.settings(), Settings(clickhouse_host=None, clickhouse_database="not_yet")):
        clickhouse = open_clickhouse(settings, tmp_path)
        try:
            assert (await clickhouse.ping())[0].isdigit()
        finally:
            await clickhouse.aclose()


OF_INFRASAGE = """
CREATE TABLE anomalies
(
    anomaly_id String,
    service_id String,
    metric_name LowCardinality(String),
    timestamp DateTime,
    anomaly_score Float32,
    environment Enum8('' = 0, 'production' = 1, 'staging' = 2),
    blast_radius String,
    detector String DEFAULT 'zscore',
    window_seconds UInt32
)
ENGINE = MergeTree ORDER BY (service_id, timestamp)
"""


async def test_a_table_of_anomalies_that_was_there_before_gets_our_columns_and_keeps_its_rows(server: ClickHouseServer) -> None:
    clickhouse = open_clickhouse(server.settings(), Path("unused"))
    try:
        await clickhouse._engine.create_database()
        await clickhouse._engine.run(OF_INFRASAGE)
        await clickhouse._engine.run(
            "INSERT INTO anomalies (anomaly_id, service_id, metric_name, timestamp, anomaly_score, window_seconds)"
            " VALUES ('anom-theirs', 'payment-api', 'cpu_usage_percent', now(), 0.9, 60)"
        )
        await clickhouse.migrate()
        for record in [the_record_of(an_anomaly("anom-ours")), the_record_of(an_anomaly("anom-theirs"))] * 2:
            await clickhouse.append(record)
        rows = await sql(
            clickhouse,
            "SELECT anomaly_id, timestamp, round(toFloat64(anomaly_score), 2), environment, blast_radius, detector,"
            " window_seconds, severity, alerted FROM anomalies ORDER BY anomaly_id",
        )
        ours, theirs = rows
        assert ours[1] == NOON.replace(microsecond=0)
        assert ours[2:] == (0.93, "production", "['user-service','checkout-service']", "zscore", 0, "critical", True)
        assert theirs[3:] == ("", "", "zscore", 60, "", None)
        assert await count(clickhouse, "infrasage_audit_log") == 2
    finally:
        await clickhouse.aclose()


async def test_what_is_written_are_columns_of_the_tables_and_no_column_of_theirs_is_missed(clickhouse: ClickHouse) -> None:
    filled_by_the_server = {"recorded_at"}
    for table in (ANOMALIES, AUDIT, EXECUTIONS, MEMORY):
        there = await sql(
            clickhouse, "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = {t:String}", t=table.name
        )
        assert {row[0] for row in there} - filled_by_the_server == set(table.columns) - filled_by_the_server


async def test_nothing_in_the_tables_expires_by_itself(clickhouse: ClickHouse) -> None:
    """The audit log is promised for 90 days at least; without a TTL it is there until somebody drops a month of it."""
    await clickhouse.append(the_record_of(an_anomaly("anom-7f3d")).model_copy(update={"executions": (a_run(),)}))
    await clickhouse.remember(a_memory(an_anomaly("anom-7f3d")))
    tables = await sql(clickhouse, "SELECT name, engine_full, partition_key FROM system.tables WHERE database = currentDatabase()")
    assert len(tables) == 5
    assert [name for name, engine, _ in tables if "TTL" in engine] == []
    assert {name: key for name, _, key in tables if key} == {"infrasage_audit_log": "toYYYYMM(at)"}
