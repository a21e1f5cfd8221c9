"""What is recorded: every row once, byte for byte, on the embedded engine and on a server."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.clients.clickhouse import ClickHouse
from activities.clients.clickhouse_tables import AUDIT, audit_row
from activities.errors import Refused, Unreachable
from activities.records import RecordsActivities, remembered
from domain.audit import AuditAction, RecordBatch
from domain.base import Source
from domain.incident import RememberRequest, Resolution
from domain.memory import RememberedIncident
from tests.activities.records import ADA, NASTY, NOON, a_memory, a_run, an_anomaly, an_event, the_record_of
from tests.peers.clickhouse import count, sql


async def test_an_anomaly_is_recorded_with_its_verdict(clickhouse: ClickHouse) -> None:
    anomaly = an_anomaly("anom-7f3d")
    await clickhouse.append(the_record_of(anomaly, alert=False, reason="quiet hours 23:00–07:00 UTC"))
    rows = await sql(
        clickhouse,
        "SELECT anomaly_id, service_id, metric_name, metric_value, timestamp, anomaly_score, environment, root_cause,"
        " rca_confidence, blast_radius, suggested_actions, severity, alerted, suppressed_reason, recorded_at FROM anomalies",
    )
    assert rows == [
        (
            *("anom-7f3d", "payment-api", "cpu_usage_percent", 87.0, NOON, 0.93, "production", anomaly.root_cause, 0.92),
            *(list(anomaly.blast_radius), list(anomaly.suggested_actions), "critical", False, "quiet hours 23:00–07:00 UTC"),
            NOON + timedelta(seconds=1),
        )
    ]
    event = (await clickhouse.audit_rows("anom-7f3d", 10))[0]
    assert event.action is AuditAction.ANOMALY_RECORDED
    assert event.detail["reason"] == "quiet hours 23:00–07:00 UTC"


async def test_what_is_unknown_of_an_anomaly_is_null_or_empty(clickhouse: ClickHouse) -> None:
    anomaly = an_anomaly(
        "anom-1", environment=None, metric_value=None, root_cause=None, rca_confidence=None, blast_radius=(), suggested_actions=()
    )
    await clickhouse.append(the_record_of(anomaly))
    rows = await sql(
        clickhouse, "SELECT environment, metric_value, root_cause, rca_confidence, blast_radius, alerted FROM anomalies"
    )
    assert rows == [("", None, "", None, [], True)]


async def test_the_columns_of_the_audit_log_are_those_that_were_promised(clickhouse: ClickHouse) -> None:
    event = an_event(source=Source.CLI, step=None, runbook="")
    await clickhouse.append(RecordBatch(audit=(event,)))
    rows = await sql(
        clickhouse,
        "SELECT toString(event_id), at, incident_id, runbook, step, action, actor, actor_name, source, detail"
        " FROM infrasage_audit_log",
    )
    assert [row[:-1] for row in rows] == [
        (event.event_id, NOON, "anom-7f3d", "", None, "approval.approved", "U0ADA", "Ada", "cli"),
    ]
    assert json.loads(rows[0][-1]) == event.detail


async def test_foreign_texts_arrive_byte_for_byte(clickhouse: ClickHouse) -> None:
    events = tuple(
        an_event(incident_id=text, runbook=text, actor=text, actor_name=text, detail={"text": text, text: [text]}) for text in NASTY
    )
    runs = tuple(
        a_run(workflow_id=f"{text}/{text}", incident_id=text, runbook=text, service_id=text, started_by=text, steps=[{"s": text}])
        for text in NASTY
    )
    anomalies = [
        an_anomaly(text, service_id=text, metric_name=text, root_cause=text, suggested_actions=(text, text)) for text in NASTY
    ]
    for anomaly in anomalies:
        await clickhouse.append(the_record_of(anomaly, alert=False, reason=anomaly.anomaly_id))
    for _ in range(2):
        await clickhouse.append(RecordBatch(audit=events, executions=runs))
    for event, run in zip(events, runs, strict=True):
        written = await clickhouse.audit_rows(event.incident_id, 10)
        assert [row for row in written if row.action is AuditAction.APPROVAL_APPROVED] == [event]
        assert await clickhouse.executions(run.incident_id) == [run]
    kept = await sql(clickhouse, "SELECT anomaly_id, root_cause, suggested_actions, suppressed_reason FROM anomalies")
    assert sorted(kept) == sorted((text, text, [text, text], text) for text in NASTY)


async def test_foreign_texts_are_remembered_byte_for_byte(clickhouse: ClickHouse) -> None:
    for number, text in enumerate(NASTY):
        anomaly = an_anomaly(f"anom-{number}", service_id=f"service {text}", metric_name=f"metric {text}", root_cause=text)
        await clickhouse.remember(a_memory(anomaly, resolution=text, resolved_by=text, runbook_outcomes={text: text}))
        found = await clickhouse.find_similar(anomaly.model_copy(update={"anomaly_id": "anom-new"}))
        assert found is not None
        assert (found.anomaly_id, found.resolution) == (f"anom-{number}", text)
    kept = await sql(clickhouse, "SELECT resolution, resolved_by, runbook_outcomes FROM infrasage_incident_memory")
    assert sorted(kept, key=str) == sorted(((text, text, {text: text}) for text in NASTY), key=str)


async def test_a_thousand_rows_are_written_at_once_and_read_in_order(clickhouse: ClickHouse) -> None:
    events = tuple(an_event(detail={"number": number}) for number in range(1_000))
    for _ in range(2):
        await clickhouse.append(RecordBatch(audit=events))
    assert await clickhouse.audit_rows("anom-7f3d", 5_000) == list(events)
    assert await count(clickhouse, "infrasage_audit_log") == 1_000


async def test_a_retried_batch_changes_nothing_and_needs_no_final(clickhouse: ClickHouse) -> None:
    record = the_record_of(an_anomaly("anom-7f3d"))
    batch = RecordBatch(audit=(*record.audit, an_event()), anomalies=record.anomalies, executions=(a_run(),))
    for _ in range(3):
        await clickhouse.append(batch)
    assert await count(clickhouse, "infrasage_audit_log") == 2
    assert await count(clickhouse, "anomalies") == 1
    assert await count(clickhouse, "infrasage_runbook_executions") == 1


async def test_a_first_try_that_was_made_before_after_all_changes_nothing(clickhouse: ClickHouse) -> None:
    """A first try looks for nothing; its token is what stands between a lost answer and a second row."""
    record = the_record_of(an_anomaly("anom-7f3d"))
    batch = RecordBatch(audit=(*record.audit, an_event()), anomalies=record.anomalies, executions=(a_run(),))
    for first_try in (True, True, False, True):
        await clickhouse.append(batch, first_try=first_try)
        await clickhouse.remember(a_memory(an_anomaly("anom-7f3d")), first_try=first_try)
    assert await count(clickhouse, "infrasage_audit_log") == 2
    for table in ("anomalies", "infrasage_runbook_executions", "infrasage_incident_memory"):
        assert await count(clickhouse, table) == 1


async def test_a_batch_that_was_cut_differently_writes_only_what_is_missing(clickhouse: ClickHouse) -> None:
    first, second, third = an_event(detail={"n": 1}), an_event(detail={"n": 2}), an_event(detail={"n": 3})
    await clickhouse.append(RecordBatch(audit=(first, second)))
    await clickhouse.append(RecordBatch(audit=(second, third, second)))
    assert await count(clickhouse, "infrasage_audit_log") == 3
    assert await clickhouse.audit_rows("anom-7f3d", 10) == [first, second, third]


async def test_attempts_at_the_same_time_write_one_row_each(clickhouse: ClickHouse) -> None:
    record = the_record_of(an_anomaly("anom-7f3d"))
    batch = RecordBatch(audit=(*record.audit, an_event(), an_event()), anomalies=record.anomalies, executions=(a_run(),))
    await asyncio.gather(*(clickhouse.append(batch) for _ in range(4)), *(clickhouse.append(record) for _ in range(4)))
    assert await count(clickhouse, "infrasage_audit_log") == 3
    assert await count(clickhouse, "anomalies") == 1
    assert await count(clickhouse, "infrasage_runbook_executions") == 1


async def test_without_its_token_a_repeated_insert_would_be_there_twice(clickhouse: ClickHouse) -> None:
    """The control of the tests above: each defence holds alone, and without both the row doubles until the engine folds it."""
    row = audit_row(an_event(), 0)
    await clickhouse._engine.insert(AUDIT, [row], "one token")
    await clickhouse._engine.insert(AUDIT, [row], "one token")
    assert await count(clickhouse, "infrasage_audit_log") == 1
    await clickhouse._engine.insert(AUDIT, [row], "another token")
    assert await count(clickhouse, "infrasage_audit_log") == 2
    assert (await sql(clickhouse, "SELECT count() FROM infrasage_audit_log FINAL"))[0][0] == 1
    assert len(await clickhouse.audit_rows("anom-7f3d", 10)) == 1


async def test_the_latest_rows_are_shown_oldest_first(clickhouse: ClickHouse) -> None:
    events = [an_event(f"anom-{number % 2}", at=NOON + timedelta(minutes=number)) for number in range(6)]
    await clickhouse.append(RecordBatch(audit=tuple(reversed(events))))
    assert await clickhouse.audit_rows(None, 3) == events[3:]
    assert await clickhouse.audit_rows("anom-0", 2) == [events[2], events[4]]
    assert await clickhouse.audit_rows("anom-2", 2) == []


async def test_events_of_one_instant_keep_the_order_in_which_they_were_written(clickhouse: ClickHouse) -> None:
    events = [an_event(detail={"n": number}) for number in range(20)]
    for begin in range(0, 20, 5):
        await clickhouse.append(RecordBatch(audit=tuple(events[begin : begin + 5])))
    assert await clickhouse.audit_rows("anom-7f3d", 100) == events
    assert await clickhouse.audit_rows("anom-7f3d", 3) == events[-3:]


async def test_microseconds_and_other_zones_are_kept_as_the_same_instant(clickhouse: ClickHouse) -> None:
    instants = [
        datetime(2026, 4, 10, 14, 0, 5, 1, tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime.fromisoformat("2026-10-25T02:30:00.999999+02:00"),
    ]
    events = tuple(an_event(f"anom-{number}", at=at) for number, at in enumerate(instants))
    await clickhouse.append(RecordBatch(audit=events))
    for number, at in enumerate(instants):
        assert [row.at for row in await clickhouse.audit_rows(f"anom-{number}", 1)] == [at]


@pytest.mark.parametrize("year", [1, 1899, 2300, 9999])
async def test_a_timestamp_no_column_can_hold_is_clamped_and_loses_no_row(clickhouse: ClickHouse, year: int) -> None:
    anomaly = an_anomaly("anom-old", timestamp=datetime(year, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC))
    await clickhouse.append(the_record_of(anomaly))
    await clickhouse.remember(a_memory(anomaly))
    shown = (await sql(clickhouse, "SELECT timestamp FROM anomalies"))[0][0]
    assert shown.year == (1900 if year < 1900 else 2299)
    found = await clickhouse.find_similar(an_anomaly("anom-new"))
    assert found is not None
    assert found.occurred_at == shown


async def test_a_run_is_shown_as_it_stands_now_whatever_order_its_rows_arrive_in(clickhouse: ClickHouse) -> None:
    running, finished = a_run("running"), a_run("succeeded", finished_at=NOON)
    await clickhouse.append(RecordBatch(executions=(running, finished)))
    assert await clickhouse.executions("anom-7f3d") == [finished]
    await clickhouse.append(RecordBatch(executions=(running,)))
    assert await clickhouse.executions("anom-7f3d") == [finished]


async def test_a_run_may_come_back_to_a_state_it_had(clickhouse: ClickHouse) -> None:
    """A human settles an unknown step, and the run goes on as before: the same row again is no repetition."""
    for status in ("running", "unknown", "running", "unknown", "running"):
        for _ in range(2):
            await clickhouse.append(RecordBatch(executions=(a_run(status),)))
        assert [run.status for run in await clickhouse.executions("anom-7f3d")] == [status]


async def test_runs_of_all_incidents_are_listed_oldest_first(clickhouse: ClickHouse) -> None:
    runs = [
        a_run(workflow_id=f"anom-{number}/x", incident_id=f"anom-{number}", started_at=NOON + timedelta(minutes=number))
        for number in range(4)
    ]
    await clickhouse.append(RecordBatch(executions=tuple(runs)))
    assert await clickhouse.executions(limit=3) == runs[1:]


async def test_an_empty_batch_is_written_without_asking_anybody(clickhouse: ClickHouse) -> None:
    await clickhouse.append(RecordBatch())
    assert await count(clickhouse, "infrasage_audit_log") == 0


async def test_an_event_id_that_is_no_uuid_is_refused_in_a_sentence(clickhouse: ClickHouse) -> None:
    with pytest.raises(Refused, match="its event_id is not a UUID"):
        await clickhouse.append(RecordBatch(audit=(an_event(event_id="7"),)))


# --- the activities -----------------------------------------------------------------------------------------------


def a_resolution(minutes: float) -> Resolution:
    return Resolution(text="Scaled from 3 to 5 pods.", by=ADA, at=NOON + timedelta(minutes=minutes))


def test_a_resolution_is_remembered_with_its_resolver_its_minutes_and_its_runs() -> None:
    request = RememberRequest(
        anomaly=an_anomaly("anom-7f3d"), resolution=a_resolution(12.5), runbook_outcomes={"scale-out-payment-api": "succeeded"}
    )
    assert remembered(request) == RememberedIncident(
        anomaly=request.anomaly,
        resolution="Scaled from 3 to 5 pods.",
        resolved_by="Ada",
        resolved_at=NOON + timedelta(minutes=12.5),
        minutes_to_resolve=12.5,
        runbook_outcomes={"scale-out-payment-api": "succeeded"},
    )


def test_a_resolution_before_its_anomaly_took_no_time() -> None:
    request = RememberRequest(anomaly=an_anomaly("anom-7f3d"), resolution=a_resolution(-5))
    assert remembered(request).minutes_to_resolve == 0


async def test_the_activities_write_what_they_are_given_once(clickhouse: ClickHouse) -> None:
    activities = RecordsActivities(clickhouse)
    environment = ActivityEnvironment()
    request = RememberRequest(anomaly=an_anomaly("anom-7f3d"), resolution=a_resolution(12))
    for _ in range(2):
        await environment.run(activities.append, RecordBatch(audit=(an_event(),)))
        await environment.run(activities.remember, request)
    assert await count(clickhouse, "infrasage_incident_memory") == 1
    found = await clickhouse.find_similar(an_anomaly("anom-new"))
    assert found is not None
    assert found.minutes_to_resolve == 12


class Broken:
    """Records that fail with a given error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def append(self, batch: RecordBatch, *, first_try: bool = False) -> None:
        raise self._error

    async def remember(self, incident: RememberedIncident, *, first_try: bool = False) -> None:
        raise self._error


@pytest.mark.parametrize(("error", "is_final"), [(Unreachable("no answer"), False), (Refused("no right"), True)])
async def test_an_error_leaves_the_activity_with_its_name_and_without_a_cause(error: Exception, is_final: bool) -> None:
    activities = RecordsActivities(Broken(error))
    request = RememberRequest(anomaly=an_anomaly("anom-7f3d"), resolution=a_resolution(1))
    environment = ActivityEnvironment()
    for run in (environment.run(activities.append, RecordBatch()), environment.run(activities.remember, request)):
        with pytest.raises(ApplicationError) as caught:
            await run
        assert (caught.value.type, caught.value.message) == (type(error).__name__, str(error))
        assert caught.value.non_retryable is is_final
        assert caught.value.__cause__ is None


async def test_another_resolution_of_an_anomaly_replaces_the_one_before(clickhouse: ClickHouse) -> None:
    memory = a_memory(an_anomaly("anom-7f3d"))
    for text in ("Scaled.", "Restarted.", "Scaled."):
        for _ in range(2):
            await clickhouse.remember(memory.model_copy(update={"resolution": text}))
        found = await clickhouse.find_similar(an_anomaly(f"anom-{uuid4().hex}"))
        assert found is not None
        assert found.resolution == text
    assert (await sql(clickhouse, "SELECT count() FROM infrasage_incident_memory FINAL"))[0][0] == 1
