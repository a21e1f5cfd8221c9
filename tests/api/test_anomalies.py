"""Taking in anomalies: strictly, once each, and only after Temporal has them."""

import asyncio
import json
from collections import Counter
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus

from tests.api.edge import Edge, a_report, an_id

ANOMALIES = "/api/v1/anomalies"


async def test_a_new_anomaly_is_202_and_its_incident_is_in_temporal(lone_edge: Edge, temporal: Any) -> None:
    report = a_report()
    answer = await lone_edge.post(ANOMALIES, report, key="ingestion")
    assert answer.status_code == 202
    assert answer.json() == {"anomaly_id": report["anomaly_id"], "workflow_id": report["anomaly_id"], "created": True}
    found = await temporal.get_workflow_handle(report["anomaly_id"]).describe()
    assert found.workflow_type == "IncidentWorkflow" and found.status is WorkflowExecutionStatus.RUNNING


async def test_the_same_anomaly_again_is_200_and_starts_nothing(lone_edge: Edge) -> None:
    report = a_report()
    await lone_edge.post(ANOMALIES, report)
    again = await lone_edge.post(ANOMALIES, {**report, "timestamp": "2026-04-10T14:00:05+02:00"})
    assert (again.status_code, again.json()["created"]) == (200, False)


async def test_another_anomaly_under_a_known_id_is_409(lone_edge: Edge) -> None:
    report = a_report()
    await lone_edge.post(ANOMALIES, report)
    other = await lone_edge.post(ANOMALIES, {**report, "anomaly_score": 0.4})
    assert other.status_code == 409
    assert report["anomaly_id"] in other.json()["detail"]


async def test_an_ended_incident_keeps_its_id(lone_edge: Edge, temporal: Any) -> None:
    report = a_report()
    await lone_edge.post(ANOMALIES, report)
    await temporal.get_workflow_handle(report["anomaly_id"]).terminate()
    assert (await lone_edge.post(ANOMALIES, report)).status_code == 200
    assert (await lone_edge.post(ANOMALIES, {**report, "service_id": "other"})).status_code == 409


async def test_an_id_that_belongs_to_something_else_is_409(lone_edge: Edge, temporal: Any) -> None:
    taken = an_id()
    await temporal.start_workflow("SomethingElse", id=taken, task_queue="nobody-listens")
    assert (await lone_edge.post(ANOMALIES, a_report(taken))).status_code == 409


async def test_of_100_posts_of_one_id_at_once_one_creates_it(lone_edge: Edge) -> None:
    report = a_report()
    answers = await asyncio.gather(*(lone_edge.post(ANOMALIES, report) for _ in range(100)))
    assert Counter(answer.status_code for answer in answers) == {202: 1, 200: 99}
    assert Counter(answer.json()["created"] for answer in answers) == {True: 1, False: 99}


async def test_of_many_different_posts_of_one_id_at_once_one_wins_and_the_others_are_409(lone_edge: Edge) -> None:
    anomaly_id = an_id()
    reports = [a_report(anomaly_id, anomaly_score=number / 100) for number in range(20)]
    answers = await asyncio.gather(*(lone_edge.post(ANOMALIES, report) for report in reports))
    assert Counter(answer.status_code for answer in answers) == {202: 1, 409: 19}


async def test_the_longest_names_that_are_allowed_are_taken(lone_edge: Edge, temporal: Any) -> None:
    report = a_report("a" * 128, service_id="ü" * 200, metric_name="\U0001f525" * 200, environment="\U0001f525" * 200)
    assert (await lone_edge.post(ANOMALIES, report)).status_code == 202
    summary = await (await temporal.get_workflow_handle("a" * 128).describe()).static_summary()
    assert len(summary.encode()) <= 400  # Temporal's documented limit; this server takes more, others may not


async def test_a_service_name_that_temporal_could_not_store_is_422_and_not_an_endless_503(lone_edge: Edge) -> None:
    answer = await lone_edge.post(ANOMALIES, a_report(service_id="\U0001f4a5" * 200))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"] == "service_id"


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"anomaly_score": 1.01}, "anomaly_score"),
        ({"anomaly_score": -0.01}, "anomaly_score"),
        ({"anomaly_score": True}, "anomaly_score"),
        ({"anomaly_score": "0.9"}, "anomaly_score"),
        ({"anomaly_score": None}, "anomaly_score"),
        ({"timestamp": "2026-04-10T12:00:05"}, "timestamp"),
        ({"timestamp": 1744286405}, "timestamp"),
        ({"anomaly_id": "manual"}, "anomaly_id"),
        ({"anomaly_id": "a/b"}, "anomaly_id"),
        ({"anomaly_id": ""}, "anomaly_id"),
        ({"anomaly_id": "a" * 129}, "anomaly_id"),
        ({"service_id": "  "}, "service_id"),
        ({"service_id": "a\nb"}, "service_id"),
        ({"blast_radius": "user-service"}, "blast_radius"),
        ({"blast_radius": ["a", 5]}, "blast_radius[1]"),
        ({"root_cause": {"summary": "x", "unknown": 1}}, "root_cause.unknown"),
        ({"severity": "critical"}, "severity"),
    ],
)
async def test_an_invalid_anomaly_is_422_and_names_the_place(lone_edge: Edge, change: dict[str, Any], path: str) -> None:
    answer = await lone_edge.post(ANOMALIES, {**a_report(), **change})
    assert answer.status_code == 422, answer.text
    assert path in [fault["path"] for fault in answer.json()["errors"]], answer.text


async def test_every_fault_of_a_body_is_named_at_once(lone_edge: Edge) -> None:
    report = a_report(anomaly_score=7, timestamp="yesterday")
    del report["service_id"]
    answer = await lone_edge.post(ANOMALIES, report)
    assert {fault["path"] for fault in answer.json()["errors"]} == {"anomaly_score", "timestamp", "service_id"}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "0x1", "01"])
async def test_a_score_that_is_no_number_of_json_is_422(lone_edge: Edge, number: str) -> None:
    body = json.dumps(a_report()).replace("0.93", number)
    answer = await lone_edge.post(ANOMALIES, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text


async def test_a_key_given_twice_is_422(lone_edge: Edge) -> None:
    body = json.dumps(a_report()).replace('"service_id"', '"anomaly_score": 0.1, "service_id"')
    answer = await lone_edge.post(ANOMALIES, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"path": "anomaly_score", "reason": "is given twice"}]


async def test_the_counts_of_anomalies_are_scraped(lone_edge: Edge) -> None:
    report = a_report()
    await lone_edge.post(ANOMALIES, report)
    await lone_edge.post(ANOMALIES, report)
    assert lone_edge.metric("infrasage_anomalies_total", sender="api", result="created") == 1
    assert lone_edge.metric("infrasage_anomalies_total", sender="api", result="repeated") == 1
