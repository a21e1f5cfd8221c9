"""ClickHouse: what is recorded of anomalies, runbooks and people, and what is remembered of incidents.

One class over two engines, embedded and server, with the same SQL. Values travel as bound parameters and as native rows; no
statement is built from text of the world. Every method may be called twice with the same argument.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, TypeVar

from activities.clients import clickhouse_schema
from activities.clients.clickhouse_embedded import EmbeddedEngine
from activities.clients.clickhouse_memory import RANK_OTHER_SERVICES, RANK_SAME_SERVICE, RECALL, THRESHOLD, rank_parameters
from activities.clients.clickhouse_server import ServerAddress, ServerEngine
from activities.clients.clickhouse_tables import (
    ANOMALIES,
    AUDIT,
    AUDIT_READ,
    EXECUTIONS,
    EXECUTIONS_READ,
    MEMORY,
    Row,
    Table,
    anomaly_row,
    audit_event,
    audit_row,
    event_id,
    execution_of,
    execution_row,
    execution_version,
    fingerprint,
    memory_row,
)
from activities.clients.clickhouse_together import GroupCommit
from activities.clients.readings import single_number
from activities.errors import NotConfigured
from domain.anomaly import Anomaly
from domain.audit import AuditAction, AuditEvent, RecordBatch, RecordedAnomaly, RunbookExecution
from domain.base import sha256_of
from domain.memory import RememberedIncident, SimilarIncident
from domain.settings import Settings

CALL_TIMEOUT = timedelta(seconds=5)
"""Bound of one call, connecting included. Nothing here takes longer than 0.1 s on a healthy engine."""

DEFAULT_PORT, DEFAULT_TLS_PORT = 8123, 8443

_Item = TypeVar("_Item")


class Engine(Protocol):
    """Where statements run. Raises errors of the tree only."""

    async def version(self) -> str: ...

    async def create_database(self) -> None: ...

    async def run(self, statement: str) -> None: ...

    async def select(self, query: str, parameters: dict[str, Any] | None = None) -> list[Row]: ...

    async def read(self, query: str, parameters: dict[str, Any]) -> list[Row]:
        """Run a query of somebody else's: it can change nothing, and is bounded in time, memory and rows."""
        ...

    async def insert(self, table: Table, rows: list[Row], token: str) -> None:
        """Insert in one go; a `token` that was seen lately inserts nothing."""
        ...

    async def aclose(self) -> None: ...


def open_clickhouse(settings: Settings, data_dir: Path) -> "ClickHouse":
    """The server that `CLICKHOUSE_*` name, or chDB in `data_dir`/clickhouse. Nothing is opened before the first call.

    Raises: NotConfigured, one sentence, when a setting cannot be used.
    """
    if settings.clickhouse_host is None:
        return ClickHouse(EmbeddedEngine(data_dir / "clickhouse", settings.clickhouse_database, call_timeout=CALL_TIMEOUT))
    return ClickHouse(ServerEngine(_address(settings, settings.clickhouse_host), call_timeout=CALL_TIMEOUT))


def _address(settings: Settings, host: str) -> ServerAddress:
    tls, ca_cert = settings.clickhouse_tls_enabled, settings.clickhouse_tls_ca_cert
    if ca_cert is not None and not tls:
        raise NotConfigured("CLICKHOUSE_TLS_CA_CERT has no effect without CLICKHOUSE_TLS_ENABLED=true: set both, or neither")
    if ca_cert is not None and not ca_cert.is_file():
        raise NotConfigured(f"CLICKHOUSE_TLS_CA_CERT names {ca_cert}, which is not a file")
    return ServerAddress(
        host=host,
        port=settings.clickhouse_port or (DEFAULT_TLS_PORT if tls else DEFAULT_PORT),
        user=settings.clickhouse_user,
        password=settings.clickhouse_password,
        database=settings.clickhouse_database,
        tls=tls,
        ca_cert=str(ca_cert) if ca_cert else None,
    )


class ClickHouse:
    """The records of one database. Raises errors of the tree: Unreachable when it does not answer, Refused when it says no."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._together = GroupCommit(self._insert_now)

    async def migrate(self) -> tuple[str, ...]:
        """Create what is missing, database included; safe to run twice and by several processes at once.

        Returns: the names of the migrations applied now.
        """
        return await clickhouse_schema.migrate(self._engine)

    async def append(self, batch: RecordBatch, *, first_try: bool = False) -> None:
        """Write the rows of `batch` that are not there yet.

        A row that is there is left out, and what two attempts at once both miss is dropped by the token of the insert: counts are
        right without FINAL. On a `first_try` nothing is looked for: a look-up costs the embedded engine as much as the insert.
        The row `anomaly.recorded` is inserted alone, because triage and the scribe may both write it.
        """
        await self._append_anomalies(batch.anomalies)
        await self._append_audit(batch.audit, first_try)
        await self._append_executions(batch.executions, first_try)

    async def remember(self, incident: RememberedIncident, *, first_try: bool = False) -> None:
        """Keep `incident` for the look-up; another resolution of the same anomaly replaces the one before."""
        anomaly, digest = incident.anomaly, fingerprint(incident)
        known = await self._look_up(
            first_try,
            "SELECT fingerprint, toString(recorded_at) FROM infrasage_incident_memory FINAL"
            " WHERE service_id = {service:String} AND metric_name = {metric:String} AND anomaly_id = {anomaly:String}",
            {"service": anomaly.service_id, "metric": anomaly.metric_name, "anomaly": anomaly.anomaly_id},
        )
        current, since = known[0] if known else ("", "")
        if digest != current:
            await self._insert(MEMORY, [memory_row(incident)], [_successor(digest, since)], first_try)

    async def find_similar(self, anomaly: Anomaly) -> SimilarIncident | None:
        """The most similar remembered incident, never `anomaly` itself; None when none reaches the threshold."""
        for ranking in (RANK_SAME_SERVICE, RANK_OTHER_SERVICES):
            best = await self._engine.select(ranking, rank_parameters(anomaly))
            if best and best[0][-1] >= THRESHOLD:
                return await self._recall(*best[0])
        return None

    async def audit_rows(self, incident_id: str | None, limit: int) -> list[AuditEvent]:
        """The latest `limit` rows, of one incident or of all, oldest first."""
        scope = "WHERE incident_id = {incident:String}" if incident_id is not None else ""
        rows = await self._engine.select(
            f"SELECT {AUDIT_READ} FROM infrasage_audit_log WHERE (incident_id, at, event_id) IN"  # noqa: S608 constants only
            f" (SELECT incident_id, at, event_id FROM infrasage_audit_log {scope}"
            " ORDER BY at DESC, recorded_at DESC, position DESC LIMIT {limit:UInt32})"
            " ORDER BY at, recorded_at, position, event_id LIMIT 1 BY event_id",
            {"incident": incident_id or "", "limit": limit},
        )
        return [audit_event(row) for row in rows]

    async def executions(self, incident_id: str | None = None, limit: int = 100) -> list[RunbookExecution]:
        """The latest `limit` runs of runbooks, of one incident or of all, oldest first; each as it stands now."""
        scope = "WHERE incident_id = {incident:String}" if incident_id is not None else ""
        rows = await self._engine.select(
            f"SELECT {EXECUTIONS_READ} FROM infrasage_runbook_executions FINAL {scope}"  # noqa: S608 constants only
            " ORDER BY started_at DESC, workflow_id DESC LIMIT {limit:UInt32}",
            {"incident": incident_id or "", "limit": limit},
        )
        return [execution_of(row) for row in reversed(rows)]

    async def number(self, query: str, parameters: dict[str, Any]) -> float:
        """The number that a query of a runbook's check reads; it can change nothing.

        Values of the world come as `parameters` (`{p1:String}` in the query).
        Raises: NoSingleValue unless it is one row of one number.
        """
        rows = await self._engine.read(query, parameters)
        return single_number(rows[0], "columns") if len(rows) == 1 else single_number(rows, "rows")

    async def ping(self) -> str:
        """The version of the engine that answers; the database need not be there yet."""
        return await self._engine.version()

    async def aclose(self) -> None:
        """Let go of the directory, or of the connections."""
        await self._engine.aclose()

    async def _recall(self, service: str, metric: str, anomaly_id: str, similarity: float) -> SimilarIncident:
        found = await self._engine.select(RECALL, {"service": service, "metric": metric, "anomaly": anomaly_id})
        occurred_at, minutes, resolution = found[0]
        return SimilarIncident(
            anomaly_id=anomaly_id,
            occurred_at=occurred_at,
            minutes_to_resolve=minutes,
            resolution=resolution,
            similarity=round(min(similarity, 1.0), 4),  # the weights add up to 1 but for the last bit of a float
        )

    async def _append_anomalies(self, recorded: Iterable[RecordedAnomaly]) -> None:
        by_id = {item.anomaly.anomaly_id: item for item in recorded}
        if not by_id:
            return
        known = await self._engine.select(  # always: InfraSage's own detector may have written it
            "SELECT anomaly_id FROM anomalies WHERE service_id IN {services:Array(String)} AND anomaly_id IN {ids:Array(String)}",
            {"services": sorted({item.anomaly.service_id for item in by_id.values()}), "ids": sorted(by_id)},
        )
        missing = _without(by_id, (row[0] for row in known))
        await self._insert(ANOMALIES, [anomaly_row(item) for item in missing.values()], missing)

    async def _append_audit(self, events: Iterable[AuditEvent], first_try: bool) -> None:
        by_id = {str(event_id(event)): (event, position) for position, event in enumerate(events)}
        if not by_id:
            return
        known = await self._look_up(
            first_try,
            "SELECT toString(event_id) FROM infrasage_audit_log"
            " WHERE incident_id IN {incidents:Array(String)} AND event_id IN {ids:Array(UUID)}",
            {"incidents": sorted({event.incident_id for event, _ in by_id.values()}), "ids": sorted(by_id)},
        )
        missing = _without(by_id, (row[0] for row in known))
        alone = [identity for identity, (event, _) in missing.items() if event.action is AuditAction.ANOMALY_RECORDED]
        together = [identity for identity in missing if identity not in alone]
        for group in chain(([identity] for identity in alone), [together]):
            await self._insert(AUDIT, [audit_row(*missing[identity]) for identity in group], group, first_try)

    async def _append_executions(self, executions: Iterable[RunbookExecution], first_try: bool) -> None:
        latest: dict[str, RunbookExecution] = {}
        for execution in executions:
            other = latest.get(execution.workflow_id)
            if other is None or execution_version(execution) >= execution_version(other):
                latest[execution.workflow_id] = execution
        if not latest:
            return
        known = await self._look_up(
            first_try,
            "SELECT workflow_id, fingerprint, toString(recorded_at) FROM infrasage_runbook_executions FINAL"
            " WHERE incident_id IN {incidents:Array(String)} AND workflow_id IN {ids:Array(String)}",
            {"incidents": sorted({execution.incident_id for execution in latest.values()}), "ids": sorted(latest)},
        )
        current: dict[str, tuple[str, str]] = {workflow_id: (digest, since) for workflow_id, digest, since in known}
        rows: list[Row] = []
        identities: list[str] = []
        for workflow_id, execution in latest.items():
            digest, since = current.get(workflow_id, ("", ""))
            if fingerprint(execution) != digest:
                rows.append(execution_row(execution))
                identities.append(_successor(fingerprint(execution), since))
        await self._insert(EXECUTIONS, rows, identities, first_try)

    async def _look_up(self, first_try: bool, query: str, parameters: dict[str, Any]) -> list[Row]:
        return [] if first_try else await self._engine.select(query, parameters)

    async def _insert(self, table: Table, rows: list[Row], identities: Iterable[str], first_try: bool = False) -> None:
        """Insert under a token that is made of what identifies the rows. First tries share an insert; a repetition has its own,
        because only the same rows together are recognised by their token."""
        if not rows:
            return
        if first_try:
            await self._together.insert(table, rows, list(identities))
        else:
            await self._insert_now(table, rows, list(identities))

    async def _insert_now(self, table: Table, rows: list[Row], identities: Sequence[str]) -> None:
        await self._engine.insert(table, rows, sha256_of(sorted(identities)))


def _successor(digest: str, since: str) -> str:
    """Identify a row that replaces the one recorded at `since`: the same row may come back later, and is then not a repetition."""
    return f"{digest} after {since}"


def _without(items: dict[str, _Item], known: Iterable[str]) -> dict[str, _Item]:
    there = set(known)
    return {identity: item for identity, item in items.items() if identity not in there}
