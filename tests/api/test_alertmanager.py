"""Alertmanager's webhook: the translation as pure functions, the answers, and the real program of Debian."""

import math
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.alertmanager_format import SCORES, Unusable, incident_id, read_alert, recovered_at, score, to_anomaly
from cli.embedded import TemporalServer, free_port
from domain.anomaly import AnomalyReport
from tests.api.edge import Edge, an_id, listening
from tests.peers.alertmanager import Alertmanager
from tests.peers.temporal import server_options
from tests.workflows.world import Stage, eventually
from workflows.connection import connect

PATH = "/api/v1/alertmanager"


def raw(**changes: Any) -> dict[str, Any]:
    """One alert of a group, as Alertmanager sends it."""
    alert: dict[str, Any] = {
        "status": "firing",
        "labels": {"alertname": "HighCpu", "service": "payment-api", "namespace": "production", "severity": "critical"},
        "annotations": {"description": "CPU saturation", "summary": "short", "runbook": "1. Scale out\n- Restart\n\n* Look"},
        "startsAt": "2026-04-10T12:00:05.123456789Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus.internal/graph",
        "fingerprint": "9f3c1a2b4d5e6f70",
    }
    return {**alert, **changes}


def labelled(**labels: str) -> Any:
    return read_alert(raw(labels=labels, annotations={}))


# --- the translation ----------------------------------------------------------------------------------------------


def test_an_alert_becomes_an_anomaly() -> None:
    anomaly = to_anomaly(read_alert(raw()))
    assert anomaly.anomaly_id.startswith("am-9f3c1a2b4d5e6f70-")
    assert (anomaly.service_id, anomaly.metric_name, anomaly.environment) == ("payment-api", "HighCpu", "production")
    assert anomaly.anomaly_score == 0.95
    assert anomaly.timestamp == datetime(2026, 4, 10, 12, 0, 5, 123456, tzinfo=UTC)
    assert anomaly.root_cause == "CPU saturation"
    assert anomaly.suggested_actions == ("Scale out", "Restart", "Look")


@pytest.mark.parametrize(
    ("labels", "service", "metric", "environment"),
    [
        ({"service_id": "a", "service": "b", "alertname": "X"}, "a", "X", None),
        ({"app": "c", "job": "d", "metric": "m", "alertname": "X", "env": "e"}, "c", "m", "e"),
        ({"job": "d", "metric_name": "n", "metric": "m", "environment": "p", "namespace": "q"}, "d", "n", "p"),
        ({"service": "  ", "job": "d", "alertname": "X"}, "d", "X", None),
    ],
)
def test_the_first_label_that_says_something_counts(
    labels: dict[str, str], service: str, metric: str, environment: str | None
) -> None:
    anomaly = to_anomaly(labelled(**labels))
    assert (anomaly.service_id, anomaly.metric_name, anomaly.environment) == (service, metric, environment)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"anomaly_score": "0.42", "severity": "critical"}, 0.42),
        ({"anomaly_score": "1.7", "severity": "high"}, SCORES["high"]),
        ({"anomaly_score": "NaN", "severity": "info"}, SCORES["info"]),
        ({"anomaly_score": "a lot"}, 0.65),
        ({"severity": "CRITICAL"}, 0.95),
        ({"severity": "sev-7"}, 0.65),
        ({}, 0.65),
    ],
)
def test_the_score_is_given_or_follows_from_the_severity(labels: dict[str, str], expected: float) -> None:
    assert score(labelled(alertname="X", **labels)) == expected


def test_the_incident_of_an_outbreak_is_one_and_of_the_next_another() -> None:
    first = incident_id(read_alert(raw()))
    assert incident_id(read_alert(raw(annotations={"description": "now 99%"}, status="resolved"))) == first
    assert incident_id(read_alert(raw(startsAt="2026-04-10T12:10:05Z"))) != first
    assert incident_id(read_alert(raw(fingerprint="0f3c1a2b4d5e6f70"))) != first
    assert incident_id(read_alert(raw(startsAt="2026-04-10T14:00:05+02:00"))) == first


def test_without_a_fingerprint_the_labels_make_one() -> None:
    one, same, other = (read_alert(raw(fingerprint=value, labels=labels)) for value, labels in (
        ("", {"a": "1", "b": "2"}), ("../../etc", {"b": "2", "a": "1"}), ("", {"a": "1", "b": "3"}),
    ))  # fmt: skip
    assert incident_id(one) == incident_id(same) != incident_id(other)


@given(
    labels=st.dictionaries(
        st.sampled_from(["service", "job", "alertname", "severity", "env", "anomaly_score"]), st.text(), max_size=6
    ),
    annotations=st.dictionaries(st.sampled_from(["description", "summary", "runbook"]), st.text(), max_size=3),
    fingerprint=st.text(max_size=20),
    starts=st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC)),
)
@settings(max_examples=200, deadline=None)
def test_whatever_an_alert_holds_it_is_an_anomaly_that_the_api_would_take_or_a_sentence(
    labels: dict[str, str], annotations: dict[str, str], fingerprint: str, starts: datetime
) -> None:
    try:
        alert = read_alert(raw(labels=labels, annotations=annotations, fingerprint=fingerprint, startsAt=starts.isoformat()))
        anomaly = to_anomaly(alert)
    except Unusable as error:
        assert str(error)
        return
    AnomalyReport.model_validate_json(anomaly.model_dump_json())
    assert re.fullmatch(r"am-[0-9a-f]{8,64}-[0-9a-hjkmnp-tv-z]+", anomaly.anomaly_id)


def test_recovery_is_when_the_source_says_and_never_in_the_future() -> None:
    now = datetime(2026, 4, 10, 12, 30, tzinfo=UTC)
    said = datetime(2026, 4, 10, 12, 20, tzinfo=UTC)
    for given_, expected in (
        (said, said),
        (now + timedelta(hours=1), now),
        (None, now),
        (datetime(1, 1, 1, tzinfo=UTC), now),
        (datetime(2026, 4, 10, 11, 0, tzinfo=UTC), now),
    ):
        alert = read_alert(raw(status="resolved", endsAt=given_.isoformat() if given_ else None))
        assert recovered_at(alert, now) == expected


def test_every_score_of_a_severity_is_a_score() -> None:
    assert all(math.isfinite(value) and 0 <= value <= 1 for value in SCORES.values())


# --- the answers --------------------------------------------------------------------------------------------------


async def results(edge: Edge, *alerts: dict[str, Any], **group: Any) -> list[dict[str, Any]]:
    body = {"version": "4", "groupKey": "{}:{}", "status": "firing", "receiver": "infrasage", "alerts": list(alerts), **group}
    answer = await edge.post(PATH, body, key="ingestion")
    assert answer.status_code == 200, answer.text
    return answer.json()["alerts"]


def unique(**changes: Any) -> dict[str, Any]:
    return raw(fingerprint=an_id().removeprefix("anom-") + "abcdef", **changes)


async def test_a_repeated_notification_is_one_incident_even_when_its_texts_changed(lone_edge: Edge) -> None:
    alert = unique()
    assert [item["result"] for item in await results(lone_edge, alert)] == ["created"]
    reminder = {**alert, "annotations": {"description": "CPU now at 99%"}}
    assert [item["result"] for item in await results(lone_edge, reminder)] == ["repeated"]


async def test_one_alert_without_a_service_costs_the_others_nothing(lone_edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    odd = [unique(labels={"alertname": "X"}), {"status": "firing"}, unique(startsAt="yesterday"), unique(labels={"service": 5})]
    found = await results(lone_edge, odd[0], unique(), *odd[1:], unique())
    assert [item["result"] for item in found] == ["refused", "created", "refused", "refused", "refused", "created"]
    assert "service" in found[0]["detail"] and "startsAt" in found[3]["detail"]
    assert "was refused" in caplog.text
    assert lone_edge.metric("infrasage_anomalies_total", sender="alertmanager", result="refused") == 4


async def test_firing_and_resolved_alerts_of_one_group_go_their_own_ways(edge: Edge, stage: Stage) -> None:
    over, still = unique(), unique()
    created = await results(edge, over, still)
    resolved = {**over, "status": "resolved", "endsAt": "2026-04-10T12:20:00Z"}
    fresh = unique()
    found = await results(edge, resolved, still, fresh, status="firing")
    assert [item["result"] for item in found] == ["recovered", "repeated", "created"]

    async def recovered() -> bool:
        incident = (await edge.get(f"/api/v1/incidents/{created[0]['incident_id']}")).json()
        return incident["recovered_at"] == "2026-04-10T12:20:00Z"

    await eventually(recovered)
    assert (await edge.get(f"/api/v1/incidents/{created[1]['incident_id']}")).json()["recovered_at"] is None


async def test_a_resolved_alert_that_nobody_knows_is_ignored_so_that_it_does_not_come_for_ever(lone_edge: Edge) -> None:
    assert [item["result"] for item in await results(lone_edge, unique(status="resolved"))] == ["ignored"]


async def test_keys_that_the_format_may_gain_are_ignored(lone_edge: Edge) -> None:
    found = await results(
        lone_edge, unique(novelty={"a": 1}), truncatedAlerts=3, externalURL="http://x", commonLabels={}, novelty=[]
    )
    assert [item["result"] for item in found] == ["created"]


@pytest.mark.parametrize(
    "body", [{}, {"version": "3", "alerts": []}, {"version": "4"}, {"version": "4", "alerts": {}}, {"version": 4, "alerts": []}]
)
async def test_what_is_not_version_4_is_422(lone_edge: Edge, body: dict[str, Any]) -> None:
    assert (await lone_edge.post(PATH, body)).status_code == 422


async def test_a_service_that_temporal_could_not_store_is_refused_alone(lone_edge: Edge) -> None:
    found = await results(lone_edge, unique(labels={"alertname": "X", "service": "\U0001f4a5" * 200}), unique())
    assert [item["result"] for item in found] == ["refused", "created"]


async def test_hundreds_of_alerts_of_one_outage_are_all_taken(lone_edge: Edge) -> None:
    found = await results(lone_edge, *(unique() for _ in range(200)))
    assert {item["result"] for item in found} == {"created"}
    assert len({item["incident_id"] for item in found}) == 200


# --- the real program ---------------------------------------------------------------------------------------------


async def incidents_of(edge: Edge, service: str) -> list[dict[str, Any]]:
    return (await edge.get("/api/v1/incidents", params={"service_id": service})).json()["incidents"]


async def test_the_real_alertmanager_opens_incidents_and_tells_that_they_recovered(edge: Edge) -> None:
    service = an_id()
    async with listening(edge) as url, Alertmanager(url + PATH, edge.keys["ingestion"], repeat=timedelta(seconds=1)) as source:
        cpu = source.alert(alertname="HighCpu", service=service, severity="critical", annotations={"summary": "CPU at 99%"})
        disk = source.alert(alertname="DiskFull", service=service, severity="warning")
        nameless = source.alert(alertname="Watchdog", severity="none")
        await source.post(cpu, disk, nameless)

        async def both() -> bool:
            found = {item["metric_name"]: item["anomaly_score"] for item in await incidents_of(edge, service)}
            return found == {"HighCpu": 0.95, "DiskFull": 0.65}

        await eventually(both)
        memory = source.alert(alertname="HighMemory", service=service)
        await source.resolve(cpu)
        await source.post(memory)

        async def recovered() -> dict[str, Any] | None:
            found = {item["metric_name"]: item["incident_id"] for item in await incidents_of(edge, service)}
            if len(found) != 3:
                return None
            views = {name: (await edge.get(f"/api/v1/incidents/{id_}")).json() for name, id_ in found.items()}
            return views if views["HighCpu"]["recovered_at"] else None

        views = await eventually(recovered)
        assert views["HighCpu"]["anomaly"]["root_cause"] == "CPU at 99%"
        assert views["DiskFull"]["recovered_at"] is None and views["HighMemory"]["recovered_at"] is None

        def repeated() -> bool:
            return edge.metric("infrasage_anomalies_total", sender="alertmanager", result="repeated") >= 2

        await eventually(repeated)
    assert edge.metric("infrasage_anomalies_total", sender="alertmanager", result="created") == 3
    assert edge.metric("infrasage_anomalies_total", sender="alertmanager", result="refused") >= 1
    assert edge.metric("infrasage_http_requests_total", method="POST", route=PATH, status="503") == 0


async def test_the_real_alertmanager_comes_again_when_temporal_was_not_there(tmp_path: Path) -> None:
    port, service = free_port(), an_id()
    client = await connect(target_host=f"127.0.0.1:{port}", lazy=True)
    async with (
        Edge(client, "nobody-listens") as edge,
        listening(edge) as url,
        Alertmanager(url + PATH, edge.keys["ingestion"]) as source,
    ):
        await source.post(source.alert(alertname="HighCpu", service=service))

        def refused() -> bool:
            return edge.metric("infrasage_http_requests_total", method="POST", route=PATH, status="503") > 0

        async def arrived() -> bool:
            return len(await incidents_of(edge, service)) == 1

        await eventually(refused)
        async with TemporalServer(server_options(tmp_path, port=port)):
            await eventually(arrived)


async def test_the_real_alertmanager_is_kept_out_without_a_valid_key(edge: Edge) -> None:
    service = an_id()
    async with listening(edge) as url, Alertmanager(url + PATH, "isage_wrong") as source:
        await source.post(source.alert(alertname="HighCpu", service=service))

        def refused() -> bool:
            return edge.metric("infrasage_http_requests_total", method="POST", route=PATH, status="401") > 0

        await eventually(refused)
    assert await incidents_of(edge, service) == []
