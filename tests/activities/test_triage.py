"""Triage: the verdict is always given; history, runbooks and the record may each fail without holding up the alert."""

import asyncio
import logging
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from temporalio.testing import ActivityEnvironment

from activities.clients.clickhouse import ClickHouse
from activities.clients.runbook_files import RunbookFiles
from activities.errors import Refused, Unreachable
from activities.triage import FAULT_CHARACTERS, FAULTS_LIMIT, RunbookSource, TriageActivities, TriageRecords, select_runbooks
from domain.anomaly import Anomaly, Severity
from domain.audit import AuditAction, RecordBatch
from domain.incident import SlackMode, Triage, TriageRequest, Verdict, anomaly_records
from domain.memory import SimilarIncident
from domain.runbook import Runbook, load_runbook
from domain.settings import Settings
from tests.activities.records import NOON, a_memory, an_anomaly
from tests.peers.clickhouse import ClickHouseServer, count, sql

SIMILAR = SimilarIncident(anomaly_id="anom-old", occurred_at=NOON, minutes_to_resolve=12, resolution="Scaled.", similarity=0.9)


def a_runbook(name: str, **trigger: Any) -> Runbook:
    definition: dict[str, Any] = {"name": name, "steps": [{"type": "slack", "message": "hello"}]}
    return load_runbook({**definition, "trigger": trigger} if trigger else definition)


class Shelf:
    """Runbooks as given."""

    def __init__(self, *runbooks: Runbook, faults: tuple[str, ...] = (), error: Exception | None = None) -> None:
        self._loaded = runbooks, faults
        self._error = error

    def load(self) -> tuple[tuple[Runbook, ...], tuple[str, ...]]:
        if self._error:
            raise self._error
        return self._loaded


class Records:
    """Records that answer or fail as a test says."""

    def __init__(self, *, similar: SimilarIncident | Exception | None = None, append: Exception | None = None) -> None:
        self.batches: list[RecordBatch] = []
        self._similar = similar
        self._append = append

    async def find_similar(self, anomaly: Anomaly) -> SimilarIncident | None:
        if isinstance(self._similar, Exception):
            raise self._similar
        return self._similar

    async def append(self, batch: RecordBatch, *, first_try: bool = False) -> None:
        if self._append:
            raise self._append
        self.batches.append(batch)


def a_request(anomaly: Anomaly | None = None) -> TriageRequest:
    return TriageRequest(anomaly=anomaly or an_anomaly("anom-7f3d"), event_id=str(uuid4()), at=NOON + timedelta(seconds=1))


async def triage(
    request: TriageRequest, records: TriageRecords, runbooks: RunbookSource | None = None, settings: Settings | None = None
) -> Triage:
    activities = TriageActivities(settings or Settings(), records, runbooks or Shelf())
    return await ActivityEnvironment().run(activities.triage, request)


async def test_everything_found_is_in_the_answer() -> None:
    records, request = Records(similar=SIMILAR), a_request()
    runbook = a_runbook("scale-out", service_id="payment-*")
    settings = Settings(incident_max_open_days=7, incident_recovered_close_hours=1, slack_webhook_url="https://hooks.invalid/x")
    found = await triage(request, records, Shelf(runbook, a_runbook("by-hand"), faults=("a.yaml: is not YAML",)), settings)
    assert found == Triage(
        severity=Severity.CRITICAL,
        verdict=Verdict(alert=True),
        similar=SIMILAR,
        runbooks=(runbook,),
        faults=("a.yaml: is not YAML",),
        recorded=True,
        slack=SlackMode.WEBHOOK,
        max_open=timedelta(days=7),
        recovered_close=timedelta(hours=1),
    )
    assert records.batches == [anomaly_records(request, Severity.CRITICAL, Verdict(alert=True))]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"slack_min_anomaly_score": 0.95}, "score 0.93 is below the minimum of 0.95"),
        ({"slack_service_filter": "checkout-*"}, "service payment-api is not in the service filter"),
        ({"slack_quiet_hours_start": "11:00", "slack_quiet_hours_end": "13:00"}, "quiet hours 11:00–13:00 UTC"),
    ],
)
async def test_what_is_suppressed_is_recorded_with_its_reason_and_its_runbooks_still_run(
    settings: dict[str, Any], reason: str
) -> None:
    records = Records()
    found = await triage(a_request(), records, Shelf(a_runbook("scale-out", service_id="*")), Settings(**settings))
    assert found.verdict == Verdict(alert=False, reason=reason)
    assert [runbook.name for runbook in found.runbooks] == ["scale-out"]
    (recorded,) = records.batches[0].anomalies
    assert (recorded.alerted, recorded.suppressed_reason) == (False, reason)
    assert records.batches[0].audit[0].detail["reason"] == reason


async def test_the_bands_of_the_settings_decide_the_severity() -> None:
    found = await triage(a_request(), Records(), settings=Settings(severity_bands={"medium": 0.5, "high": 0.9, "critical": 0.95}))
    assert found.severity is Severity.HIGH


# --- history ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [Unreachable("no answer from payment-api"), Refused("no"), ValueError("payment-api"), KeyError("x")]
)
async def test_an_error_of_the_memory_is_no_history_and_a_warning_without_foreign_text(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    records = Records(similar=error)
    with caplog.at_level(logging.WARNING):
        found = await triage(a_request(), records)
    assert found.similar is None
    assert found.verdict.alert
    assert found.recorded
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.startswith(f"incident memory was not consulted: {type(error).__name__}")
    assert "payment-api" not in warning


async def test_a_memory_that_takes_more_than_a_second_is_not_waited_for() -> None:
    class Slow(Records):
        async def find_similar(self, anomaly: Anomaly) -> SimilarIncident | None:
            await asyncio.sleep(30)
            return SIMILAR

    began = time.monotonic()
    found = await triage(a_request(), Slow())
    assert found.similar is None
    assert found.recorded
    assert 1 <= time.monotonic() - began < 5


async def test_history_runbooks_and_the_record_are_seen_to_at_the_same_time() -> None:
    everybody = threading.Barrier(3)  # one after the other, the first would wait for the others in vain

    class Meeting(Records):
        async def find_similar(self, anomaly: Anomaly) -> SimilarIncident | None:
            await asyncio.to_thread(everybody.wait, 0.8)
            return SIMILAR

        async def append(self, batch: RecordBatch, *, first_try: bool = False) -> None:
            await asyncio.to_thread(everybody.wait, 0.8)

    class Waiting(Shelf):
        def load(self) -> tuple[tuple[Runbook, ...], tuple[str, ...]]:
            everybody.wait(0.8)
            return super().load()

    found = await triage(a_request(), Meeting(), Waiting(a_runbook("scale-out", service_id="*")))
    assert (found.similar, found.recorded, len(found.runbooks)) == (SIMILAR, True, 1)


# --- runbooks -----------------------------------------------------------------------------------------------------


def test_a_runbook_is_selected_by_service_metric_and_condition() -> None:
    matching = a_runbook("yes", service_id="payment-*", metric_name="cpu_*", condition="anomaly_score > 0.7")
    others = [
        a_runbook("other-service", service_id="checkout-api"),
        a_runbook("other-metric", service_id="payment-api", metric_name="error_rate"),
        a_runbook("low-score", service_id="payment-api", condition="anomaly_score > 0.95"),
        a_runbook("by-hand"),
    ]
    assert select_runbooks([*others, matching], an_anomaly("anom-1"), Severity.CRITICAL) == ((matching,), ())


def test_a_trigger_without_an_answer_selects_nothing_and_is_told() -> None:
    good = a_runbook("good", service_id="*")
    unsure = a_runbook("unsure", service_id="*", condition="metric_value > 5")
    selected, faults = select_runbooks([unsure, good], an_anomaly("anom-1", metric_value=None), Severity.HIGH)
    assert selected == (good,)
    (sentence,) = faults
    assert sentence.startswith("Runbook unsure was not considered, its trigger has no answer for this anomaly: ")
    assert select_runbooks([unsure], an_anomaly("anom-1", metric_value=6.0), Severity.HIGH) == ((unsure,), ())


async def test_runbooks_that_cannot_be_read_start_nothing_and_hold_up_nothing(caplog: pytest.LogCaptureFixture) -> None:
    found = await triage(a_request(), Records(similar=SIMILAR), Shelf(error=OSError("disk /secret")))
    assert found.runbooks == ()
    assert found.faults == ("The runbooks could not be read (OSError): none was considered.",)
    assert found.similar == SIMILAR
    assert "/secret" not in caplog.text


async def test_the_faults_that_travel_are_bounded_in_number_and_length() -> None:
    faults = tuple(f"{number}: {'x' * 2_000}" for number in range(50))
    found = await triage(a_request(), Records(), Shelf(faults=faults))
    assert len(found.faults) == FAULTS_LIMIT
    assert max(map(len, found.faults)) == FAULT_CHARACTERS
    assert found.faults[-1] == "31 more faults are not shown: `infrasage runbooks validate` lists them."


async def test_files_of_the_directory_are_selected_and_its_faults_are_told(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("name: good\ntrigger: {service_id: '*'}\nsteps: [{type: slack, message: hi}]")
    (tmp_path / "bad.yaml").write_text("name: good\nname: bad")
    found = await triage(a_request(), Records(), RunbookFiles(tmp_path))
    assert [runbook.name for runbook in found.runbooks] == ["good"]
    (fault,) = found.faults
    assert "bad.yaml" in fault


# --- the record ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [Unreachable("no answer"), Refused("no right")])
async def test_without_clickhouse_the_anomaly_is_judged_and_recorded_later(error: Exception) -> None:
    found = await triage(a_request(), Records(similar=SIMILAR, append=error))
    assert not found.recorded
    assert found.verdict.alert
    assert found.similar == SIMILAR


async def test_a_second_attempt_records_the_same_rows(clickhouse: ClickHouse) -> None:
    request = a_request()
    first, second = await triage(request, clickhouse), await triage(request, clickhouse)
    assert first == second
    assert first.recorded
    assert await count(clickhouse, "infrasage_audit_log") == 1
    assert await count(clickhouse, "anomalies") == 1
    (event,) = await clickhouse.audit_rows("anom-7f3d", 10)
    assert (event.event_id, event.action, event.at) == (request.event_id, AuditAction.ANOMALY_RECORDED, request.at)


async def test_the_next_anomaly_arrives_with_its_history(clickhouse: ClickHouse) -> None:
    assert (await triage(a_request(), clickhouse)).similar is None
    await clickhouse.remember(a_memory(an_anomaly("anom-7f3d")))
    found = await triage(a_request(an_anomaly("anom-8a1b")), clickhouse)
    assert found.similar is not None
    assert found.similar.anomaly_id == "anom-7f3d"


async def test_a_clickhouse_that_hangs_costs_two_seconds_and_the_rows_are_there_once_in_the_end(
    served: ClickHouse, server: ClickHouseServer
) -> None:
    request = a_request()
    await server.hang()
    began = time.monotonic()
    found = await triage(request, served, Shelf(a_runbook("scale-out", service_id="*")))
    assert time.monotonic() - began < 5
    assert (found.recorded, found.similar, found.verdict) == (False, None, Verdict(alert=True))
    assert [runbook.name for runbook in found.runbooks] == ["scale-out"]
    await server.serve()
    await served.append(anomaly_records(request, found.severity, found.verdict))  # as the scribe does
    assert await count(served, "infrasage_audit_log") == 1
    assert await sql(served, "SELECT anomaly_id, alerted FROM anomalies") == [("anom-7f3d", True)]


async def test_a_clickhouse_that_is_away_costs_nothing(served: ClickHouse, server: ClickHouseServer) -> None:
    await server.refuse()
    found = await triage(a_request(), served)
    assert (found.recorded, found.similar, found.verdict) == (False, None, Verdict(alert=True))
