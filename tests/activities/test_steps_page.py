"""Page steps against an endpoint on loopback that checks what PagerDuty checks."""

import json
import traceback
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from activities.clients.pagerduty import PagerDuty
from activities.secrets import Secrets
from activities.steps import StepActivities
from activities.steps.page import PageSteps, PagingActivities
from activities.steps.registry import register
from domain.incident import StepRequest
from domain.paging import PageResolve, Routes, RoutingRule
from tests.activities.records import an_anomaly
from tests.activities.steps import NAMES, QUICK, a_request, a_step, attempt, failure_of, run_step, with_plan
from tests.peers.http import answer, http_peer, unused_port
from tests.peers.pagerduty import ROUTING_KEY, PagerDutyPeer, pagerduty

CONSOLE = "https://infrasage.example.com"
EVERYBODY = Routes(default_key=SecretStr(ROUTING_KEY))
ALERT = (ROUTING_KEY, "infrasage-anom-7f3d")
OVER = PageResolve(incident_id="anom-7f3d", service_id="payment-api")


@pytest.fixture
async def peer() -> AsyncIterator[PagerDutyPeer]:
    async with pagerduty() as listening:
        yield listening


def activities_with(url: str, routes: Routes = EVERYBODY) -> StepActivities:
    # A client has nothing open between its calls.
    return StepActivities(register([PageSteps(PagerDuty(url), routes, CONSOLE)]), Secrets({}), heartbeat_interval=QUICK)


def a_page(*, anomaly: bool = True, names: dict[str, Any] | None = None, **keys: Any) -> StepRequest:
    request = a_request(a_step(type="page", **keys), names={**NAMES, "severity": "critical", **(names or {})})
    return request.model_copy(update={"anomaly": an_anomaly("anom-7f3d")}) if anomaly else request


async def test_whoever_is_on_call_is_paged_with_everything_that_is_known(peer: PagerDutyPeer) -> None:
    result = await run_step(activities_with(peer.url), a_page())
    assert result.summary == "On-call for payment-api was paged through PagerDuty"
    assert result.outputs == {"dedup_key": "infrasage-anom-7f3d"}
    (event,) = peer.events
    assert event["routing_key"] == ROUTING_KEY
    assert event["payload"]["summary"] == "CPU anomaly on payment-api: 87% CPU (score: 0.93)"
    assert event["payload"]["custom_details"]["blast_radius"] == ["user-service", "checkout-service"]
    assert peer.alerts == {ALERT: "triggered"}


async def test_without_the_anomaly_the_names_of_the_run_are_told(peer: PagerDutyPeer) -> None:
    await run_step(activities_with(peer.url), a_page(anomaly=False, summary="{{ service_id }} is at {{ anomaly_score }}"))
    payload = peer.events[0]["payload"]
    assert (payload["summary"], payload["component"], payload["group"]) == ("payment-api is at 0.93", "payment-api", "production")
    assert payload["severity"] == "critical"


async def test_the_approver_sees_what_is_paged_and_nothing_is_sent_yet(peer: PagerDutyPeer) -> None:
    plan = await attempt(activities_with(peer.url).plan, a_page())
    assert plan.change == "whoever is on call for payment-api is paged through PagerDuty"
    assert [(fact.label, fact.value) for fact in plan.facts] == [
        ("Summary", "CPU anomaly on payment-api: 87% CPU (score: 0.93)"),
        ("Severity", "critical"),
    ]
    assert peer.http.requests == []


async def test_one_incident_is_one_page_however_often_it_is_paged(peer: PagerDutyPeer) -> None:
    activities = activities_with(peer.url)
    for number in (1, 2, 3):
        await attempt(activities.execute, a_page(), number=number)
    await attempt(activities.execute, a_page(summary="Still down").model_copy(update={"number": 5}))
    assert len(peer.events) == 4
    assert peer.alerts == {ALERT: "triggered"}


async def test_a_page_whose_answer_was_lost_is_sent_again_and_is_one_page(peer: PagerDutyPeer) -> None:
    activities = activities_with(peer.url)
    for mishap in ("lost", "broken"):
        setattr(peer, mishap, 1)
        error = await failure_of(attempt(activities.execute, a_page()))
        assert (error.type, error.non_retryable) == ("Unreachable", False)
        assert "PagerDuty (127.0.0.1)" in error.message
    await attempt(activities.execute, a_page(), number=3)
    assert len(peer.events) == 3
    assert peer.alerts == {ALERT: "triggered"}


async def test_pagerdutys_wish_to_wait_is_heard(peer: PagerDutyPeer) -> None:
    peer.throttled = 2
    error = await failure_of(attempt(activities_with(peer.url).execute, a_page()))
    assert (error.type, error.non_retryable, error.next_retry_delay) == ("RateLimited", False, timedelta(seconds=7))
    error = await failure_of(attempt(PagingActivities(PagerDuty(peer.url), EVERYBODY).resolve, OVER))
    assert (error.type, error.next_retry_delay) == ("RateLimited", timedelta(seconds=7))
    assert peer.alerts == {}


async def test_nobody_listening_can_be_tried_again() -> None:
    error = await failure_of(attempt(activities_with(f"http://127.0.0.1:{unused_port()}/v2/enqueue").execute, a_page()))
    assert (error.type, error.non_retryable) == ("Unreachable", False)


@pytest.mark.parametrize(
    ("status", "type_"), [(200, "Refused"), (302, "Refused"), (404, "Refused"), (408, "Unreachable"), (503, "Unreachable")]
)
async def test_only_202_is_a_page(status: int, type_: str) -> None:
    async with http_peer(answer(status, b"<html>" + b"x" * 2_000)) as http:
        error = await failure_of(attempt(activities_with(http.url()).execute, a_page()))
    assert error.type == type_
    assert len(error.message) < 400


async def test_a_redirect_carries_the_key_to_nobody(peer: PagerDutyPeer) -> None:
    async with http_peer(answer(307, headers={"location": peer.url})) as http:
        error = await failure_of(attempt(activities_with(http.url()).execute, a_page()))
    assert error.type == "Refused"
    assert "answered HTTP 307" in error.message
    assert peer.http.requests == []


async def test_the_service_decides_who_is_paged(peer: PagerDutyPeer) -> None:
    peer.keys = {"payments-key", "rest-key"}
    rules = (RoutingRule(service_pattern="payment-*", service_key=SecretStr("payments-key")),)
    routes = Routes(rules=rules, default_key=SecretStr("rest-key"))
    activities = activities_with(peer.url, routes)
    await attempt(activities.execute, a_page())
    await attempt(activities.execute, a_page(anomaly=False, names={"service_id": "checkout"}))
    assert [event["routing_key"] for event in peer.events] == ["payments-key", "rest-key"]
    await attempt(PagingActivities(PagerDuty(peer.url), routes).resolve, OVER)
    assert peer.alerts["payments-key", "infrasage-anom-7f3d"] == "resolved"
    assert peer.alerts["rest-key", "infrasage-anom-7f3d"] == "triggered"


@pytest.mark.parametrize("method", ["plan", "execute"])
async def test_a_service_that_nobody_is_paged_for_is_a_setting_that_is_missing(peer: PagerDutyPeer, method: str) -> None:
    routes = Routes(rules=(RoutingRule(service_pattern="other-*", service_key=SecretStr(ROUTING_KEY)),))
    error = await failure_of(attempt(getattr(activities_with(peer.url, routes), method), a_page()))
    assert error.type == "NotConfigured"
    assert error.message == (
        "nobody can be paged for payment-api: PAGERDUTY_SERVICE_KEY is not set,"
        " and no service_pattern of PAGERDUTY_ROUTING_RULES matches"
    )
    assert peer.http.requests == []


async def test_a_run_without_a_service_pages_nobody(peer: PagerDutyPeer) -> None:
    error = await failure_of(attempt(activities_with(peer.url).plan, a_page(anomaly=False, names={"service_id": None})))
    assert error.type == "InvalidStep"


async def test_a_resolution_takes_the_page_back_and_may_be_told_twice(peer: PagerDutyPeer) -> None:
    await attempt(activities_with(peer.url).execute, a_page())
    paging = PagingActivities(PagerDuty(peer.url), EVERYBODY)
    for _ in range(2):
        result = await attempt(paging.resolve, OVER)
        assert result.summary == "PagerDuty knows that anom-7f3d is over"
    assert peer.alerts == {ALERT: "resolved"}


async def test_a_resolution_without_a_key_says_which_setting_is_missing() -> None:
    error = await failure_of(attempt(PagingActivities(PagerDuty("http://127.0.0.1:1"), Routes()).resolve, OVER))
    assert (error.type, error.non_retryable) == ("NotConfigured", True)


async def test_the_key_is_in_no_plan_no_result_no_error_and_no_log(peer: PagerDutyPeer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    canary = "plover7f3dplover7f3dplover7f3d00"
    routes = Routes(default_key=SecretStr(canary))
    activities = activities_with(peer.url, routes)
    plan = await attempt(activities.plan, a_page())
    refused = await failure_of(attempt(activities.execute, with_plan(a_page(), plan)))
    assert refused.type == "Refused"
    assert "Event object is invalid; 'routing_key' [hidden] is invalid" in refused.message
    peer.keys.add(canary)
    result = await attempt(activities.execute, with_plan(a_page(), plan))
    unreachable = await failure_of(attempt(activities_with(f"http://127.0.0.1:{unused_port()}", routes).execute, a_page()))
    told = [plan.model_dump_json(), result.model_dump_json(), caplog.text]
    told += ["".join(traceback.format_exception(error)) + json.dumps(list(error.details)) for error in (refused, unreachable)]
    for text in told:
        assert "plover" not in text
    assert all(error.__cause__ is None and error.__context__ is None for error in (refused, unreachable))
    assert b"plover" in peer.http.requests[-1].body
    assert "plover" not in str(peer.http.requests[-1].headers) + peer.http.requests[-1].target


async def test_a_page_cannot_be_taken_back_as_a_step(peer: PagerDutyPeer) -> None:
    result = await attempt(activities_with(peer.url).execute, a_page())
    assert result.undo is None
