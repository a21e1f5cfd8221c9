"""Probes, metrics and the audit log over HTTP."""

from datetime import UTC, datetime
from uuid import uuid4

from prometheus_client.parser import text_string_to_metric_families

from activities.errors import Unreachable
from domain.audit import AuditAction, AuditEvent
from tests.api.edge import Edge, a_report


def row(incident_id: str) -> AuditEvent:
    return AuditEvent(
        event_id=str(uuid4()), at=datetime.now(UTC), incident_id=incident_id, action=AuditAction.ALERT_SENT, detail={"text": "sent"}
    )


async def test_the_process_is_alive_and_ready_when_temporal_answers(lone_edge: Edge) -> None:
    assert (await lone_edge.http.get("/healthz")).json() == {"status": "ok"}
    assert (await lone_edge.http.get("/readyz")).json() == {"status": "ready"}


async def test_audit_rows_are_those_of_the_incident_or_all(lone_edge: Edge) -> None:
    lone_edge.shelf.rows = [row("anom-1"), row("anom-2"), row("manual/x/1")]
    path = "/api/v1/audit"
    assert len((await lone_edge.get(path)).json()["rows"]) == 3
    assert [item["incident_id"] for item in (await lone_edge.get(f"{path}?incident=manual/x/1")).json()["rows"]] == ["manual/x/1"]
    assert len((await lone_edge.get(f"{path}?limit=1")).json()["rows"]) == 1
    shown = (await lone_edge.get(f"{path}?incident=anom-1")).json()["rows"][0]
    assert set(shown) == {
        "event_id", "at", "incident_id", "runbook", "step", "action", "actor", "actor_name", "source", "detail",
    }  # fmt: skip


async def test_without_clickhouse_the_audit_log_is_503_with_a_sentence(lone_edge: Edge) -> None:
    lone_edge.shelf.failure = Unreachable("ClickHouse (db.internal) does not answer.")
    answer = await lone_edge.get("/api/v1/audit")
    assert answer.status_code == 503 and "ClickHouse" in answer.json()["detail"]


async def test_metrics_count_answers_by_route_and_never_by_id(lone_edge: Edge) -> None:
    report = a_report()
    await lone_edge.post("/api/v1/anomalies", report)
    await lone_edge.post(f"/api/v1/incidents/{report['anomaly_id']}/acknowledge")
    await lone_edge.http.get("/wp-login.php")
    await lone_edge.http.request("BREW", "/wp-login.php")
    answer = await lone_edge.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert all(name.startswith("infrasage_") for name in families)
    counted = {
        (sample.labels["method"], sample.labels["route"], sample.labels["status"]): sample.value
        for sample in families["infrasage_http_requests"].samples
        if sample.name.endswith("_total")
    }
    assert counted[("POST", "/api/v1/anomalies", "202")] == 1
    assert counted[("POST", "/api/v1/incidents/{id:path}/acknowledge", "202")] == 1
    assert counted[("other", "unmatched", "404")] == 2
    assert report["anomaly_id"] not in answer.text and "wp-login" not in answer.text
    assert "infrasage_http_request_seconds" in families
