"""Check steps against a real Prometheus, a real ClickHouse and HTTP servers on loopback: what holds, and what does not in time."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from activities.clients.clickhouse import ClickHouse
from activities.clients.prometheus import Prometheus
from activities.clients.web import WebClient
from activities.secrets import Secrets
from activities.steps import StepActivities
from activities.steps.check import CheckSteps, NumberPort, PrometheusPort
from activities.steps.registry import register
from domain.audit import RecordBatch
from domain.incident import StepRequest
from domain.plan import StepResult
from domain.runbook import Step
from tests.activities.records import NASTY, an_event
from tests.activities.steps import (
    LOOPBACK_WEB,
    NAMES,
    QUICK,
    TRUST,
    Attempt,
    a_request,
    a_step,
    attempt,
    failure_of,
    with_plan,
)
from tests.peers.clickhouse import ClickHouseServer, count
from tests.peers.http import HttpPeer, Received, answer, http_peer, tcp_peer, unused_port
from tests.peers.prometheus import PrometheusServer, prometheus_server

SECRETS = Secrets({"TOKEN": "plover-token/7f3d"})


def activities_with(
    *, prometheus: PrometheusPort | None = None, clickhouse: NumberPort | None = None, web: WebClient = LOOPBACK_WEB
) -> StepActivities:
    steps = CheckSteps(web, SECRETS, prometheus=prometheus, clickhouse=clickhouse)
    return StepActivities(register([steps]), SECRETS, heartbeat_interval=QUICK)


def a_check(**keys: Any) -> Step:
    return a_step(**{"type": "check", "interval_seconds": 0.1, "timeout_seconds": 0.3, **keys})


async def execute(activities: StepActivities, step: Step, **keys: Any) -> StepResult:
    return await attempt(activities.execute, a_request(step, **keys))


async def sentence_of(activities: StepActivities, step: Step, *, type_: str = "Refused", **keys: Any) -> str:
    error = await failure_of(execute(activities, step, **keys))
    assert (error.type, error.non_retryable) == (type_, True)
    return error.message


class Readings:
    """A source that gives one number after the other, the last one for ever."""

    where = "Prometheus (somewhere)"

    def __init__(self, *numbers: float) -> None:
        self.left = list(numbers)
        self.asked = 0

    async def number(self, query: str, within: object) -> float:
        self.asked += 1
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]


# How often and how long it is asked


async def test_it_is_asked_until_it_holds() -> None:
    readings = Readings(0.93, 0.7, 0.31)
    step = a_check(prometheus="load", condition="value < 0.5", timeout_seconds=20)
    run = Attempt()
    result = await run.run(activities_with(prometheus=readings).execute, a_request(step))
    assert result.summary.startswith("The check holds: value was 0.31, wanted value < 0.5, after 0.")
    assert result.outputs == {"value": 0.31, "looks": 3}
    assert ("value was 0.7, wanted value < 0.5",) in run.heartbeats
    assert readings.asked == 3


async def test_a_check_that_does_not_hold_in_time_has_failed_and_says_what_it_saw() -> None:
    clock = asyncio.get_running_loop()
    started = clock.time()
    sentence = await sentence_of(
        activities_with(prometheus=Readings(0.93)), a_check(prometheus="load", condition="value < 0.5", timeout_seconds=0.5)
    )
    assert sentence == "check did not hold within 0.5 s: value was 0.93, wanted value < 0.5"
    assert clock.time() - started >= 0.5


async def test_it_is_asked_a_last_time_at_the_very_end_and_never_later() -> None:
    readings = Readings(1, 0)
    step = a_check(prometheus="load", condition="value == 0", interval_seconds=3_600, timeout_seconds=0.2)
    result = await execute(activities_with(prometheus=readings), step)
    assert result.outputs == {"value": 0, "looks": 2}


async def test_a_condition_that_cannot_be_judged_is_an_error_and_no_answer() -> None:
    step = a_check(prometheus="load", condition="value == 'x'")
    error = await failure_of(execute(activities_with(prometheus=Readings(1)), step))
    assert error.type == "InvalidStep"


async def test_a_plan_says_what_is_asked_where_and_how_long_and_nothing_is_asked_yet() -> None:
    readings = Readings(1)
    step = a_check(prometheus='rate(errors{service="{{ service_id }}"}[5m])', condition="value < 0.5", timeout_seconds=60)
    plan = await attempt(activities_with(prometheus=readings).plan, a_request(step))
    assert plan.change == "nothing is changed: Prometheus (somewhere) is asked every 0.1 s until it holds, for 60 s at most"
    assert [(fact.label, fact.value) for fact in plan.facts] == [
        ("Prometheus query", 'rate(errors{service="payment-api"}[5m])'),
        ("Holds when", "value < 0.5"),
    ]
    assert readings.asked == 0


@pytest.mark.parametrize(
    ("keys", "name"),
    [({"prometheus": "up"}, "PROMETHEUS_URL"), ({"clickhouse": "SELECT 1"}, "ClickHouse")],
    ids=["prometheus", "clickhouse"],
)
@pytest.mark.parametrize("method", ["plan", "execute"])
async def test_a_source_that_is_not_configured_is_named(keys: dict[str, Any], name: str, method: str) -> None:
    request = a_request(a_check(**keys, condition="value == 1"))
    error = await failure_of(attempt(getattr(activities_with(), method), request))
    assert error.type == "NotConfigured"
    assert name in error.message


async def test_a_check_leaves_nothing_to_take_back() -> None:
    result = await execute(activities_with(prometheus=Readings(1)), a_check(prometheus="up", condition="value == 1"))
    assert result.undo is None


# HTTP


@pytest.fixture
async def peer() -> AsyncIterator[HttpPeer]:
    async with http_peer(answer(200, b'{"status": "ok"}')) as listening:
        yield listening


def a_probe(url: str, **keys: Any) -> dict[str, Any]:
    return {"url": url, **keys}


async def test_a_probe_sends_a_get_with_its_secret_and_judges_status_and_body(peer: HttpPeer) -> None:
    probe = a_probe(
        peer.url("/{{ service_id }}?k=$TOKEN"),
        headers={"Authorization": "Token $TOKEN"},
        expect={"status": 200, "body_contains": "ok"},
    )
    result = await execute(activities_with(), a_check(http=probe))
    assert result.summary.startswith(f"The check holds: {peer.url('/payment-api')} answered 200, after")
    assert result.outputs == {"status": 200, "looks": 1}
    (request,) = peer.requests
    assert (request.method, request.target) == ("GET", "/payment-api?k=plover-token/7f3d")
    assert request.headers["authorization"] == "Token plover-token/7f3d"


async def test_a_value_may_be_the_whole_address_and_nothing_in_it_is_read_again(peer: HttpPeer) -> None:
    names = {**NAMES, "root_cause": peer.url("/a$TOKEN")}
    await execute(activities_with(), a_check(http=a_probe("{{ root_cause }}/{{ service_id }}")), names=names)
    assert [request.target for request in peer.requests] == ["/a$TOKEN/payment-api"]


@pytest.mark.parametrize(
    "value",
    ["file:///etc/passwd", "$TOKEN", "http://127.0.0.1/{{ service_id }}", "127.0.0.1", "http://a\nb", "https://" + "x" * 3_000],
)
async def test_a_value_that_is_no_address_is_not_asked(value: str) -> None:
    request = a_request(a_check(http=a_probe("{{ root_cause }}")), names={**NAMES, "root_cause": value})
    error = await failure_of(attempt(activities_with().plan, request))
    assert error.type == "InvalidStep"
    assert "http://" in error.message


@pytest.mark.parametrize(
    ("expect", "seen"),
    [
        ({"status": 204}, "answered 200, wanted 204"),
        ({"body_contains": "degraded"}, "answered 200 without “degraded” in the body"),
    ],
)
async def test_an_answer_that_is_not_expected_does_not_hold(peer: HttpPeer, expect: dict[str, Any], seen: str) -> None:
    step = a_check(http=a_probe(peer.url("/x?k=$TOKEN"), expect=expect))
    sentence = await sentence_of(activities_with(), step)
    assert sentence == f"check did not hold within 0.3 s: {peer.url('/x')} {seen}"
    assert len(peer.requests) > 1


async def test_a_service_that_comes_back_is_noticed() -> None:
    answers = [answer(503), answer(302, headers={"location": "/login"}), answer(200)]

    async def reply(request: Received, writer: asyncio.StreamWriter) -> None:
        await (answers.pop(0) if len(answers) > 1 else answers[0])(request, writer)

    async with http_peer(reply) as peer:
        result = await execute(activities_with(), a_check(http=a_probe(peer.url()), timeout_seconds=20))
    assert result.outputs == {"status": 200, "looks": 3}


async def test_a_service_that_cannot_be_reached_does_not_hold_and_the_reason_is_named() -> None:
    url = f"http://127.0.0.1:{unused_port()}/"
    sentence = await sentence_of(activities_with(), a_check(http=a_probe(url)))
    assert "check did not hold within 0.3 s: http://127.0.0.1" in sentence
    assert "could not be reached" in sentence


async def test_a_service_that_never_answers_holds_up_nothing_beyond_the_timeout() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    clock = asyncio.get_running_loop()
    async with tcp_peer(silent) as peer:
        started = clock.time()
        sentence = await sentence_of(activities_with(), a_check(http=a_probe(peer.url()), timeout_seconds=0.2))
    assert "no complete answer" in sentence or "no answer" in sentence
    assert clock.time() - started < 5


async def test_a_host_that_is_not_allowed_ends_the_check_at_once(peer: HttpPeer) -> None:
    web = WebClient([], tls=TRUST)
    for method in ("plan", "execute"):
        step = a_check(http=a_probe(peer.url()), timeout_seconds=60)
        error = await failure_of(attempt(getattr(activities_with(web=web), method), a_request(step)))
        assert error.type == "NotConfigured"
        assert "RUNBOOK_HTTP_ALLOW" in error.message
    assert peer.requests == []


async def test_no_secret_leaves_a_probe(peer: HttpPeer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    step = a_check(http=a_probe(peer.url("/$TOKEN?k=$TOKEN"), expect={"status": 204}))
    plan = await attempt(activities_with().plan, a_request(step))
    sentence = await sentence_of(activities_with(), step)
    for told in (plan.model_dump_json(), sentence, caplog.text):
        assert "plover" not in told
    assert "plover" in peer.requests[0].target


# Prometheus


@pytest.fixture(scope="session")
async def metrics(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PrometheusServer]:
    async with prometheus_server(tmp_path_factory.mktemp("prometheus")) as server:
        yield server


@pytest.fixture
async def prometheus(metrics: PrometheusServer) -> AsyncIterator[Prometheus]:
    client = Prometheus(metrics.url)
    yield client
    await client.aclose()


@pytest.mark.parametrize(
    ("query", "condition", "value"),
    [
        ('up{service="{{ service_id }}"}', "value == 1", 1),
        ('up{job="absent"}', "value == 0", 0),
        ("count(up) + 0.5", "value > 2 and value < 3", 2.5),
        ("scalar(sum(up)) * {{ anomaly_score }}", "value == anomaly", 0.93),
        ("vector(-1)", "value < 0", -1),
    ],
)
async def test_a_query_of_prometheus_gives_one_number(prometheus: Prometheus, query: str, condition: str, value: float) -> None:
    step = a_check(prometheus=query, condition=condition.replace("anomaly", "0.93"))
    result = await execute(activities_with(prometheus=prometheus), step)
    assert result.outputs == {"value": value, "looks": 1}


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("absent_metric_of_nobody", "the query gives no series"),
        ("up", "the query gives more than one of its series, and exactly one is needed"),
        ("vector(0) / 0", "the query gives nan, which is no finite number"),
        ("vector(1) / 0", "the query gives inf, which is no finite number"),
        ("up[5m]", "the query gives a matrix, and one sample or a scalar is needed"),
        ('"text"', "the query gives a string, and one sample or a scalar is needed"),
        ("up + on() up", "cannot evaluate the query"),
    ],
)
async def test_what_is_not_one_number_does_not_hold_and_is_asked_again(prometheus: Prometheus, query: str, reason: str) -> None:
    step = a_check(prometheus=query, condition="value >= 0 or value < 0")
    run = Attempt()
    error = await failure_of(run.run(activities_with(prometheus=prometheus).execute, a_request(step)))
    assert error.type == "Refused"
    assert error.message.startswith("check did not hold within 0.3 s: ")
    assert reason in error.message
    assert len([details for details in run.heartbeats if details and reason in details[0]]) > 0


async def test_a_query_that_does_not_parse_ends_the_check_at_once(prometheus: Prometheus) -> None:
    step = a_check(prometheus="up{", condition="value == 1", timeout_seconds=600)
    sentence = await sentence_of(activities_with(prometheus=prometheus), step, type_="InvalidStep")
    assert "does not understand the query" in sentence
    assert "parse error" in sentence


async def test_a_foreign_value_cannot_change_what_prometheus_is_asked(prometheus: Prometheus) -> None:
    step = a_check(prometheus='up{service="{{ root_cause }}"}', condition="value == 1")
    injected = 'x"} or up{service="payment-api'
    sentence = await sentence_of(activities_with(prometheus=prometheus), step, names={**NAMES, "root_cause": injected})
    assert "the query gives no series" in sentence
    # The control: written in by hand, the same value makes it hold.
    by_hand = a_check(prometheus=f'up{{service="{injected}"}}', condition="value == 1")
    await execute(activities_with(prometheus=prometheus), by_hand)
    pattern = a_check(prometheus='up{service=~"{{ root_cause }}",job="prometheus"}', condition="value == 1")
    assert "no series" in await sentence_of(activities_with(prometheus=prometheus), pattern, names={**NAMES, "root_cause": ".*"})


@pytest.mark.parametrize(
    ("status", "body", "type_", "reason"),
    [
        (503, b'{"status":"error","errorType":"timeout","error":"query timed out"}', "Refused", "HTTP 503): query timed out"),
        (429, b"", "Refused", "asked to slow down"),
        (200, b"<html>log in</html>", "Refused", "not as Prometheus does: check PROMETHEUS_URL"),
        (302, b"", "Refused", "answered HTTP 302, and not as Prometheus does"),
        (401, b"", "Refused", "PROMETHEUS_URL takes none"),
        (200, b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{}}]}}', "Refused", "holds no number"),
        (200, b'{"status":"success","data":{"resultType":"vector","result":7}}', "Refused", "holds no number"),
        (200, b"[" * 100_000, "Refused", "not as Prometheus does"),
        (200, b" " * (1024 * 1024 + 1), "Refused", "more than 1 MiB"),
    ],
)
async def test_a_strange_answer_is_named(status: int, body: bytes, type_: str, reason: str) -> None:
    async with http_peer(answer(status, body)) as peer:
        client = Prometheus(peer.url("").rstrip("/"))
        step = a_check(prometheus="up", condition="value == 1", timeout_seconds=0.2)
        sentence = await sentence_of(activities_with(prometheus=client), step, type_=type_)
        await client.aclose()
    assert reason in sentence


async def test_a_prometheus_that_is_down_does_not_hold() -> None:
    client = Prometheus(f"http://127.0.0.1:{unused_port()}")
    sentence = await sentence_of(activities_with(prometheus=client), a_check(prometheus="up", condition="value == 1"))
    await client.aclose()
    assert sentence.endswith("Prometheus (127.0.0.1) cannot be reached (no connection); nothing was sent, wanted value == 1")


# ClickHouse


def a_count(where: str = "incident_id = {{ anomaly_id }}", **keys: Any) -> Step:
    query = f"SELECT count() FROM infrasage_audit_log WHERE {where}"  # noqa: S608 constants of this file only
    return a_check(**{"clickhouse": query, "condition": "value == 1", "timeout_seconds": 5, **keys})


async def written(clickhouse: ClickHouse, *incidents: str) -> None:
    await clickhouse.append(RecordBatch(audit=tuple(an_event(incident) for incident in incidents)))


async def test_a_query_of_clickhouse_gives_one_number(clickhouse: ClickHouse) -> None:
    await written(clickhouse, "anom-7f3d", "anom-other")
    result = await execute(activities_with(clickhouse=clickhouse), a_count())
    assert result.outputs == {"value": 1, "looks": 1}


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("SELECT 1 WHERE 0", "the query gives no rows"),
        ("SELECT number FROM numbers(2)", "the query gives more than one of its rows"),
        ("SELECT 1, 2", "the query gives more than one of its columns"),
        ("SELECT NULL", "the query gives NULL"),
        ("SELECT 'x'", "a value of type str"),
        ("SELECT 0 / 0", "the query gives nan"),
    ],
)
async def test_what_is_not_one_number_of_clickhouse_does_not_hold(clickhouse: ClickHouse, query: str, reason: str) -> None:
    step = a_check(clickhouse=query, condition="value >= 0", timeout_seconds=0.3)
    assert reason in await sentence_of(activities_with(clickhouse=clickhouse), step)


WRITES = [
    "WITH 1 AS x INSERT INTO infrasage_audit_log (incident_id) SELECT toString(x)",
    "SELECT 1; DROP TABLE infrasage_audit_log",
    "SELECT 1 SETTINGS readonly = 0",
    "SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'a String')",
    "SELECT count() FROM file('/etc/passwd', 'LineAsString', 'a String')",
]


@pytest.mark.parametrize("query", WRITES)
async def test_a_query_can_change_nothing_and_read_nothing_but_tables(clickhouse: ClickHouse, query: str) -> None:
    step = a_check(clickhouse=query, condition="value >= 0")
    await sentence_of(activities_with(clickhouse=clickhouse), step)
    assert await count(clickhouse, "infrasage_audit_log") == 0
    await written(clickhouse, "anom-7f3d")  # and the records go on being written
    assert await count(clickhouse, "infrasage_audit_log") == 1


async def test_a_query_that_takes_too_long_is_stopped_and_holds_up_no_record(clickhouse: ClickHouse) -> None:
    step = a_check(clickhouse="SELECT count() FROM numbers(1000000000000)", condition="value >= 0", timeout_seconds=1)
    asking = asyncio.ensure_future(sentence_of(activities_with(clickhouse=clickhouse), step))
    await written(clickhouse, "anom-7f3d")
    assert not asking.done()
    assert await asking


async def test_a_foreign_value_cannot_change_what_clickhouse_is_asked(clickhouse: ClickHouse) -> None:
    await written(clickhouse, "anom-7f3d")
    activities = activities_with(clickhouse=clickhouse)
    injections: Sequence[str] = ("x' OR 1 = 1 --", "x\\' OR 1 = 1 --", "' UNION ALL SELECT 1 --", *(text for text in NASTY if text))
    for injected in injections:
        step = a_count("incident_id = {{ root_cause }}", condition="value == 0")
        result = await execute(activities, step, names={**NAMES, "root_cause": injected})
        assert result.outputs["value"] == 0, injected
        told = a_check(clickhouse="SELECT {{ root_cause }} = unhex('" + injected.encode().hex() + "')", condition="value == 1")
        await execute(activities, told, names={**NAMES, "root_cause": injected})
    # The control: written in by hand, the same value finds the row.
    by_hand = a_count("incident_id = 'x' OR 1 = 1 --'")
    assert (await execute(activities, by_hand)).outputs["value"] == 1


async def test_a_clickhouse_that_is_down_does_not_hold_until_it_is_back(served: ClickHouse, server: ClickHouseServer) -> None:
    await server.refuse()
    activities = activities_with(clickhouse=served)
    assert "cannot be reached" in await sentence_of(activities, a_count(timeout_seconds=0.3))
    asking = asyncio.ensure_future(execute(activities, a_count(condition="value == 0", timeout_seconds=30)))
    await server.serve()
    assert (await asking).outputs["value"] == 0


async def test_what_was_planned_is_what_is_asked() -> None:
    readings = Readings(1)
    activities = activities_with(prometheus=readings)
    plan = await attempt(activities.plan, a_request(a_check(prometheus="up", condition="value == 1")))
    other: StepRequest = with_plan(a_request(a_check(prometheus="down", condition="value == 1")), plan)
    assert (await failure_of(attempt(activities.execute, other))).type == "PlanChanged"
    assert readings.asked == 0
