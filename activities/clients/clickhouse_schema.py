"""The tables and how they came to be: numbered migrations, each statement safe to run twice and by two processes at once.

A migration that was released is never edited; a change is a new one. The version that a database has is in
`infrasage_schema_migrations`.

Why the tables are as they are:
- A repeated insert is dropped by its token (`non_replicated_deduplication_window`, the last 1,000 inserts of a table; a replicated
  table has `replicated_deduplication_window` by default), and `ReplacingMergeTree` folds what got past that.
- The audit log has no TTL: it is kept until somebody deletes it, which is at least the 90 days that are promised. It is
  partitioned by month, so that `ALTER TABLE infrasage_audit_log DROP PARTITION 202604` drops a month at once.
- `cause_key` is not compressed: a look-up reads all of it, and unpacking was a fifth of its CPU time; it has 300 characters.
- `anomalies` may be there before us, written by InfraSage's detector: it is then left as it is, and gets our columns. Where a
  row is not ours, `alerted` is NULL and `recorded_at` is 1970: nothing was decided about it here.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from activities.clients.clickhouse_tables import Row, Table


@dataclass(frozen=True)
class Migration:
    version: int
    name: str
    statements: tuple[str, ...]


_SCHEMA_MIGRATIONS = """
CREATE TABLE IF NOT EXISTS infrasage_schema_migrations
(
    version UInt32,
    name String,
    applied_at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = ReplacingMergeTree
ORDER BY version
SETTINGS non_replicated_deduplication_window = 1000
"""

_ANOMALIES = """
CREATE TABLE IF NOT EXISTS anomalies
(
    anomaly_id String,
    service_id LowCardinality(String),
    metric_name LowCardinality(String),
    metric_value Nullable(Float64),
    timestamp DateTime64(6, 'UTC'),
    anomaly_score Float64,
    environment LowCardinality(String),
    root_cause String,
    rca_confidence Nullable(Float64),
    blast_radius Array(String),
    suggested_actions Array(String),
    severity LowCardinality(String),
    alerted Nullable(Bool),
    suppressed_reason String,
    recorded_at DateTime64(6, 'UTC')
)
ENGINE = ReplacingMergeTree(recorded_at)
ORDER BY (service_id, metric_name, timestamp, anomaly_id)
SETTINGS non_replicated_deduplication_window = 1000
"""

_ANOMALIES_COLUMNS = """
ALTER TABLE anomalies
    ADD COLUMN IF NOT EXISTS metric_value Nullable(Float64),
    ADD COLUMN IF NOT EXISTS environment LowCardinality(String),
    ADD COLUMN IF NOT EXISTS root_cause String,
    ADD COLUMN IF NOT EXISTS rca_confidence Nullable(Float64),
    ADD COLUMN IF NOT EXISTS blast_radius Array(String),
    ADD COLUMN IF NOT EXISTS suggested_actions Array(String),
    ADD COLUMN IF NOT EXISTS severity LowCardinality(String),
    ADD COLUMN IF NOT EXISTS alerted Nullable(Bool),
    ADD COLUMN IF NOT EXISTS suppressed_reason String,
    ADD COLUMN IF NOT EXISTS recorded_at DateTime64(6, 'UTC')
"""

_AUDIT = """
CREATE TABLE IF NOT EXISTS infrasage_audit_log
(
    event_id UUID,
    at DateTime64(6, 'UTC'),
    incident_id String,
    runbook LowCardinality(String),
    step Nullable(UInt32),
    action LowCardinality(String),
    actor String,
    actor_name String,
    source LowCardinality(String),
    detail String,
    recorded_at DateTime64(6, 'UTC') DEFAULT now64(6),
    position UInt32
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (incident_id, at, event_id)
SETTINGS non_replicated_deduplication_window = 1000
"""

_EXECUTIONS = """
CREATE TABLE IF NOT EXISTS infrasage_runbook_executions
(
    workflow_id String,
    incident_id String,
    runbook LowCardinality(String),
    service_id LowCardinality(String),
    environment LowCardinality(String),
    status LowCardinality(String),
    started_at DateTime64(6, 'UTC'),
    finished_at Nullable(DateTime64(6, 'UTC')),
    started_by String,
    steps String,
    version UInt64,
    fingerprint String,
    recorded_at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (incident_id, workflow_id)
SETTINGS non_replicated_deduplication_window = 1000
"""

_MEMORY = """
CREATE TABLE IF NOT EXISTS infrasage_incident_memory
(
    anomaly_id String,
    service_id LowCardinality(String),
    metric_name LowCardinality(String),
    environment LowCardinality(String),
    occurred_at DateTime64(6, 'UTC'),
    root_cause String,
    cause_key String CODEC(NONE),
    anomaly String,
    resolution String,
    resolved_by String,
    resolved_at DateTime64(6, 'UTC'),
    minutes_to_resolve Float64,
    runbook_outcomes Map(String, String),
    fingerprint String,
    recorded_at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = ReplacingMergeTree(recorded_at)
ORDER BY (service_id, metric_name, anomaly_id)
SETTINGS non_replicated_deduplication_window = 1000
"""

MIGRATIONS: tuple[Migration, ...] = (
    Migration(1, "the four tables", (_ANOMALIES, _ANOMALIES_COLUMNS, _AUDIT, _EXECUTIONS, _MEMORY)),
)

_VERSIONS = Table("infrasage_schema_migrations", MappingProxyType({"version": "UInt32", "name": "String"}))


class Migrated(Protocol):
    """What a migration needs of an engine."""

    async def create_database(self) -> None: ...

    async def run(self, statement: str) -> None: ...

    async def select(self, query: str, parameters: dict[str, Any] | None = None) -> list[Row]: ...

    async def insert(self, table: Table, rows: list[Row], token: str) -> None: ...


async def migrate(engine: Migrated) -> tuple[str, ...]:
    """Bring the database to the newest version, creating it if it is missing. Returns: the names of what was applied now.

    A database that is newer than this code is left alone: migrations only add.
    """
    await engine.create_database()
    await engine.run(_SCHEMA_MIGRATIONS)
    applied = {row[0] for row in await engine.select("SELECT version FROM infrasage_schema_migrations")}
    missing = [migration for migration in MIGRATIONS if migration.version not in applied]
    for migration in missing:
        for statement in migration.statements:
            await engine.run(statement)
        await engine.insert(_VERSIONS, [(migration.version, migration.name)], f"schema-{migration.version}")
    return tuple(migration.name for migration in missing)
