"""Ticket steps against a site on loopback that checks what Jira checks: one incident is one ticket, whatever gets lost."""

import dataclasses
import json
import traceback
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr
from temporalio import workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Worker

from activities.clients.jira import Jira
from activities.secrets import Secrets
from activities.steps import StepActivities
from activities.steps.registry import register
from activities.steps.ticket import TicketPort, TicketSteps, nothing_was_made
from domain.incident import StepRequest
from domain.plan import StepResult
from domain.tickets import Ticket, TicketDraft
from tests.activities.records import an_anomaly
from tests.activities.steps import NAMES, QUICK, Attempt, a_request, a_step, attempt, failure_of, run_step, with_plan
from tests.peers.http import answer, http_peer, unused_port
from tests.peers.jira import PROJECT, TOKEN, USER, JiraPeer, jira
from tests.peers.temporal import real_server

CONSOLE = "https://infrasage.example.com"
LABEL = "infrasage-anom-7f3d"
PAUSES = (timedelta(milliseconds=5),) * 3


@pytest.fixture
async def site() -> AsyncIterator[JiraPeer]:
    async with jira() as listening:
        yield listening


def a_client(url: str, **keys: Any) -> Jira:
    return Jira(url, **{"user": USER, "token": SecretStr(TOKEN), "project_key": PROJECT, **keys})


def activities_with(tracker: TicketPort | None) -> StepActivities:
    steps = TicketSteps(tracker, CONSOLE, search_pauses=PAUSES)
    return StepActivities(register([steps]), Secrets({}), heartbeat_interval=QUICK)


def a_ticket(*, anomaly: bool = True, **keys: Any) -> StepRequest:
    request = a_request(a_step(type="ticket", **keys))
    return request.model_copy(update={"anomaly": an_anomaly("anom-7f3d")}) if anomaly else request


def after(number: int, *details: str) -> Attempt:
    """Attempt `number`, after one whose last heartbeat said `details`."""
    run = Attempt(number)
    run.environment.info = dataclasses.replace(run.environment.info, heartbeat_details=details)
    return run


async def test_a_ticket_is_created_and_named_with_its_address(site: JiraPeer) -> None:
    result = await run_step(activities_with(a_client(site.url)), a_ticket())
    assert result.summary == f"Ticket OPS-123 created: {site.url}/browse/OPS-123"
    assert result.outputs == {"key": "OPS-123", "url": f"{site.url}/browse/OPS-123"}
    assert not result.repeated
    (issue,) = site.issues
    assert issue["fields"]["labels"] == [LABEL]
    assert issue["fields"]["summary"] == "CPU anomaly on payment-api: 87% CPU (score: 0.93)"


async def test_the_runbooks_own_words_are_filled_in(site: JiraPeer) -> None:
    step = a_ticket(anomaly=False, summary="{{ service_id }} is down", description="See:\n{{ root_cause }}")
    await run_step(activities_with(a_client(site.url, issue_type="Incident")), step)
    fields = site.issues[0]["fields"]
    assert (fields["summary"], fields["issuetype"]) == ("payment-api is down", {"name": "Incident"})
    assert NAMES["root_cause"] in json.dumps(fields["description"])


async def test_the_approver_sees_what_is_created_and_nothing_is_sent_yet(site: JiraPeer) -> None:
    plan = await attempt(activities_with(a_client(site.url)).plan, a_ticket())
    assert plan.change == "one ticket in the project OPS, unless the incident has one"
    assert [(fact.label, fact.value) for fact in plan.facts] == [("Summary", "CPU anomaly on payment-api: 87% CPU (score: 0.93)")]
    assert site.http.requests == []


async def test_an_incident_has_one_ticket_however_often_it_is_asked_for(site: JiraPeer) -> None:
    activities = activities_with(a_client(site.url))
    await attempt(activities.execute, a_ticket())
    again = await attempt(activities.execute, a_ticket(summary="Another step of another runbook"))
    assert again.summary == f"Ticket OPS-123 is there already: {site.url}/browse/OPS-123"
    assert again.repeated
    assert len(site.issues) == 1


async def test_a_ticket_of_another_incident_is_not_taken_for_this_ones(site: JiraPeer) -> None:
    site.ignores_case = True
    activities = activities_with(a_client(site.url))
    await attempt(activities.execute, a_ticket().model_copy(update={"incident_id": "ANOM-7F3D"}))
    result = await attempt(activities.execute, a_ticket())
    assert result.outputs["key"] == "OPS-124"


# Lost answers and lost attempts


async def test_a_create_whose_answer_is_lost_is_looked_for_and_not_repeated(site: JiraPeer) -> None:
    site.lost = 1
    result = await attempt(activities_with(a_client(site.url)).execute, a_ticket())
    assert result.outputs["key"] == "OPS-123"
    assert len(site.issues) == 1


async def test_a_search_that_lags_behind_is_asked_again(site: JiraPeer) -> None:
    site.lost, site.lag = 1, 3
    result = await attempt(activities_with(a_client(site.url)).execute, a_ticket())
    assert result.outputs["key"] == "OPS-123"
    assert len(site.issues) == 1
    assert site.searches == 4


async def test_a_ticket_that_is_not_found_after_a_lost_answer_is_for_a_human(site: JiraPeer) -> None:
    site.lost, site.lag = 1, 100
    error = await failure_of(attempt(activities_with(a_client(site.url)).execute, a_ticket()))
    assert (error.type, error.non_retryable) == ("OutcomeUnknown", True)
    assert error.message.endswith(f"no ticket with the label {LABEL} is found yet: look in Jira before trying again")
    assert len(site.issues) == 1


@pytest.mark.parametrize("mishap", ["broken", "throttled"])
async def test_a_search_that_fails_after_a_lost_answer_is_for_a_human_too(site: JiraPeer, mishap: str) -> None:
    class Losing(Jira):
        async def create(self, draft: TicketDraft) -> Ticket:
            setattr(site, mishap, "search")
            return await super().create(draft)

    site.lost = 1
    tracker = Losing(site.url, user=USER, token=SecretStr(TOKEN), project_key=PROJECT)
    error = await failure_of(attempt(activities_with(tracker).execute, a_ticket()))
    assert (error.type, error.non_retryable) == ("OutcomeUnknown", True)
    assert len(site.issues) == 1


async def test_an_attempt_after_a_lost_one_finds_the_ticket_that_it_made(site: JiraPeer) -> None:
    activities = activities_with(a_client(site.url))
    await attempt(activities.execute, a_ticket())  # by a worker that died before it could say so
    site.lag = 2
    result = await after(2).run(activities.execute, a_ticket())
    assert result.repeated
    assert len(site.issues) == 1


async def test_an_attempt_after_a_lost_one_makes_no_ticket_where_none_is_found(site: JiraPeer) -> None:
    activities = activities_with(a_client(site.url))
    for said in ((), (nothing_was_made(1),)):  # said of the attempt before the lost one, which says nothing of that
        error = await failure_of(after(3, *said).run(activities.execute, a_ticket()))
        assert (error.type, error.non_retryable) == ("OutcomeUnknown", True)
        assert "an earlier attempt to create a ticket was lost" in error.message
    assert site.issues == []


@pytest.mark.parametrize(
    ("mishap", "operation", "type_", "delay"),
    [
        ("throttled", "search", "RateLimited", timedelta(seconds=11)),
        ("throttled", "create", "RateLimited", timedelta(seconds=11)),
        ("broken", "search", "Unreachable", None),
    ],
)
async def test_an_attempt_that_certainly_made_nothing_leaves_word_and_the_next_one_makes_it(
    site: JiraPeer, mishap: str, operation: str, type_: str, delay: timedelta | None
) -> None:
    activities = activities_with(a_client(site.url))
    setattr(site, mishap, operation)
    first = Attempt()
    error = await failure_of(first.run(activities.execute, a_ticket()))
    assert (error.type, error.non_retryable, error.next_retry_delay) == (type_, False, delay)
    assert first.heartbeats[-1] == (nothing_was_made(1),)
    setattr(site, mishap, "")
    result = await after(2, *first.heartbeats[-1]).run(activities.execute, a_ticket())
    assert result.outputs["key"] == "OPS-123"
    assert not result.repeated


async def test_an_attempt_that_does_not_know_leaves_no_word(site: JiraPeer) -> None:
    site.throttled = "search"
    run = after(2)
    error = await failure_of(run.run(activities_with(a_client(site.url)).execute, a_ticket()))
    assert error.type == "RateLimited"
    assert all("no ticket was made" not in str(details) for details in run.heartbeats)


@workflow.defn(name="OneStep", sandboxed=False)
class OneStep:
    """Executes one step, as a runbook does."""

    @workflow.run
    async def run(self, request: StepRequest) -> StepResult:
        return await workflow.execute_activity(
            "step.execute",
            request,
            result_type=StepResult,
            start_to_close_timeout=timedelta(seconds=30),
            heartbeat_timeout=timedelta(seconds=10),
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=50), maximum_attempts=3),
        )


class UnreachableOnce:
    """A tracker that cannot be reached at its first create, and is fine afterwards."""

    def __init__(self, site: JiraPeer) -> None:
        self._trackers = [a_client(f"http://127.0.0.1:{unused_port()}"), a_client(site.url)]
        self.project_key = PROJECT
        self.creates = 0

    async def find(self, label: str) -> Ticket | None:
        return await self._trackers[1].find(label)

    async def create(self, draft: TicketDraft) -> Ticket:
        self.creates += 1
        return await self._trackers[min(self.creates, 2) - 1].create(draft)


async def test_the_word_of_an_attempt_that_made_nothing_reaches_the_next_one_through_a_real_server(site: JiraPeer) -> None:
    tracker = UnreachableOnce(site)
    activities = activities_with(tracker)
    async with real_server() as server:
        client = await Client.connect(server.address, data_converter=pydantic_data_converter)
        queue = f"queue-{uuid4().hex}"
        async with Worker(client, task_queue=queue, workflows=[OneStep], activities=activities.all):
            result = await client.execute_workflow(
                "OneStep", a_ticket(), id=f"one-{uuid4().hex}", task_queue=queue, result_type=StepResult
            )
    assert result.outputs["key"] == "OPS-123"
    assert tracker.creates == 2
    assert len(site.issues) == 1


# What Jira says no to


async def test_wrong_credentials_name_the_settings_and_are_not_tried_again(site: JiraPeer) -> None:
    error = await failure_of(attempt(activities_with(a_client(site.url, token=SecretStr("wrong"))).execute, a_ticket()))
    assert (error.type, error.non_retryable) == ("Refused", True)
    assert error.message == "Jira (127.0.0.1) does not let this user in: check JIRA_USER and JIRA_API_TOKEN"


async def test_what_jira_objects_to_is_told_in_its_words(site: JiraPeer) -> None:
    error = await failure_of(attempt(activities_with(a_client(site.url, issue_type="Bugg")).execute, a_ticket()))
    assert error.type == "Refused"
    assert error.message == (
        "Jira (127.0.0.1) refused the ticket (issuetype: Specify a valid issue type): check JIRA_PROJECT_KEY and JIRA_ISSUE_TYPE"
    )
    error = await failure_of(attempt(activities_with(a_client(site.url, project_key="NOPE")).execute, a_ticket()))
    assert "The value 'NOPE' does not exist for the field 'project'." in error.message


@pytest.mark.parametrize(
    ("status", "body", "type_"),
    [
        (200, b"<html>log in</html>", "Refused"),
        (302, b"", "Refused"),
        (403, b'{"errorMessages": ["no"]}', "Refused"),
        (404, b"", "Refused"),
        (410, b'{"errorMessages": ["removed"]}', "Refused"),
        (503, b"", "Unreachable"),
    ],
)
async def test_a_strange_answer_to_the_search_makes_no_ticket(status: int, body: bytes, type_: str) -> None:
    async with http_peer(answer(status, body)) as peer:
        error = await failure_of(attempt(activities_with(a_client(peer.url("").rstrip("/"))).execute, a_ticket()))
    assert error.type == type_
    assert len(peer.requests) == 1


async def test_a_redirect_carries_the_token_to_nobody(site: JiraPeer) -> None:
    async with http_peer(answer(307, headers={"location": f"{site.url}/rest/api/3/search/jql"})) as peer:
        error = await failure_of(attempt(activities_with(a_client(peer.url("").rstrip("/"))).execute, a_ticket()))
    assert error.type == "Refused"
    assert site.http.requests == []


async def test_a_create_that_ends_with_a_fault_of_the_server_is_not_repeated(site: JiraPeer) -> None:
    site.broken = "create"
    error = await failure_of(attempt(activities_with(a_client(site.url)).execute, a_ticket()))
    assert (error.type, error.non_retryable) == ("OutcomeUnknown", True)


@pytest.mark.parametrize("method", ["plan", "execute"])
async def test_without_jira_the_settings_are_named(method: str) -> None:
    error = await failure_of(attempt(getattr(activities_with(None), method), a_ticket()))
    assert error.type == "NotConfigured"
    for name in ("JIRA_URL", "JIRA_USER", "JIRA_API_TOKEN", "JIRA_PROJECT_KEY"):
        assert name in error.message


async def test_a_run_without_a_service_has_no_ticket() -> None:
    request = a_request(a_step(type="ticket"), names={})
    assert (await failure_of(attempt(activities_with(None).plan, request))).type == "InvalidStep"


async def test_the_token_is_in_no_plan_no_result_no_error_and_no_log(site: JiraPeer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    activities = activities_with(a_client(site.url))
    plan = await attempt(activities.plan, a_ticket())
    result = await attempt(activities.execute, with_plan(a_ticket(), plan))
    async with http_peer(answer(400, json.dumps({"errorMessages": [f"bad header {TOKEN}"]}).encode())) as echo:
        refused = await failure_of(attempt(activities_with(a_client(echo.url("").rstrip("/"))).execute, a_ticket()))
    assert "bad header [hidden]" in refused.message
    nobody = a_client(f"http://127.0.0.1:{unused_port()}")
    unreachable = await failure_of(attempt(activities_with(nobody).execute, a_ticket()))
    assert unreachable.type == "Unreachable"
    told = [plan.model_dump_json(), result.model_dump_json(), caplog.text, repr(nobody)]
    told += ["".join(traceback.format_exception(error)) for error in (refused, unreachable)]
    for text in told:
        assert "plover" not in text
    assert all("plover" not in request.target for request in site.http.requests)
