"""Clicks: stored before Slack has its 200, told to the person when they could not be, and never more than translated."""

import asyncio
import json
import logging
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from temporalio.client import Client

from activities.messages.approval import encode_ref
from api.slack.private import PrivateAnswers, response_hosts
from domain.approval import ApprovalRef
from domain.incident import RunStatus
from domain.narration import Tell
from tests.api.edge import INTERACTIONS, Edge, an_id
from tests.peers.slack import Hang, SlackPeer, Status, block_actions, interaction_form
from tests.workflows.world import RunOnStage, Stage, eventually

CHANNEL = "C0OPSALERT"
JANE = "U0JANE0001"


def click(slack: SlackPeer, action_id: str, value: str | None = None, *, response_url: str | None = None, **changes: Any) -> str:
    """The request body of a click on a button."""
    action = {"type": "button", "action_id": action_id, **({"value": value} if value is not None else {})}
    payload = block_actions(action, channel=CHANNEL, ts="1775822405.000100", response_url=response_url or slack.response_url)
    return interaction_form({**payload, **changes})


def told(slack: SlackPeer) -> list[str]:
    """What people were told alone, by either way."""
    return [json.dumps(answer, ensure_ascii=False) for answer in slack.responses] + [item.text for item in slack.ephemerals]


async def asking(stage: Stage) -> tuple[RunOnStage, ApprovalRef]:
    run = await stage.run()
    return run, await run.open_request()


async def test_a_click_on_approve_runs_the_step_in_the_name_of_the_person(edge: Edge, stage: Stage, slack: SlackPeer) -> None:
    run, ref = await asking(stage)
    before = datetime.now(UTC)
    answer = await edge.signed(INTERACTIONS, click(slack, "approve_step", encode_ref(run.handle.id, ref)))
    assert (answer.status_code, answer.text) == (200, "")
    assert (await run.result()).status is RunStatus.SUCCEEDED
    approved = next(event for event in stage.world.events if event.action == "approval.approved")
    assert (approved.actor, approved.actor_name, approved.source) == (JANE, "jane", "slack")
    assert before <= datetime.fromisoformat(approved.detail["received_at"]) <= datetime.now(UTC)
    assert told(slack) == []
    assert edge.metric("infrasage_slack_clicks_total", action="approve_step", outcome="signalled") == 1


async def test_a_click_on_reject_runs_nothing(edge: Edge, stage: Stage, slack: SlackPeer) -> None:
    run, ref = await asking(stage)
    answer = await edge.signed(INTERACTIONS, click(slack, "reject_step", encode_ref(run.handle.id, ref)))
    assert answer.status_code == 200
    assert (await run.result()).status is RunStatus.HALTED
    assert stage.world.executed == [1]


async def test_slack_has_its_200_only_after_temporal_has_the_signal(
    edge: Edge, stage: Stage, slack: SlackPeer, temporal: Client
) -> None:
    run, ref = await asking(stage)
    await stage.stop_worker()
    answer = await edge.signed(INTERACTIONS, click(slack, "approve_step", encode_ref(run.handle.id, ref)))
    assert answer.status_code == 200
    history = await temporal.get_workflow_handle(run.handle.id).fetch_history()
    signals = [event.workflow_execution_signaled_event_attributes.signal_name for event in history.events]
    assert "decide" in signals
    await stage.start_worker()
    assert (await run.result()).status is RunStatus.SUCCEEDED


async def test_what_the_run_has_to_say_about_a_click_it_says_to_the_person_itself(
    edge: Edge, stage: Stage, slack: SlackPeer
) -> None:
    run, ref = await asking(stage)
    stale = ref.model_copy(update={"digest": "0" * 64})
    answer = await edge.signed(INTERACTIONS, click(slack, "approve_step", encode_ref(run.handle.id, stale)))
    assert answer.status_code == 200

    def answered() -> list[Tell]:
        return [telling for telling in stage.world.tellings if isinstance(telling, Tell)]

    await eventually(answered)
    assert (answered()[0].reply_to.channel, answered()[0].reply_to.user) == (CHANNEL, JANE)
    assert stage.world.executed == [1]


async def test_the_same_click_again_and_again_is_one_decision(edge: Edge, stage: Stage, slack: SlackPeer) -> None:
    run, ref = await asking(stage)
    body = click(slack, "approve_step", encode_ref(run.handle.id, ref))
    retry = {"X-Slack-Retry-Num": "1", "X-Slack-Retry-Reason": "http_timeout"}
    answers = await asyncio.gather(*(edge.signed(INTERACTIONS, body, **(retry if number else {})) for number in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    assert (await run.result()).status is RunStatus.SUCCEEDED
    assert [event.action for event in stage.world.events].count("approval.approved") == 1
    assert stage.world.executed == [1, 2, 3]


async def test_a_click_on_a_run_that_is_long_over_is_answered_alone(edge: Edge, slack: SlackPeer) -> None:
    value = encode_ref(f"{an_id()}/scale-out", ApprovalRef(step=2, round=1, digest="ab" * 32))
    answer = await edge.signed(INTERACTIONS, click(slack, "approve_step", value))
    assert answer.status_code == 200
    assert len(told(slack)) == 1 and "ended" in told(slack)[0]
    shown = slack.responses[0]
    assert shown["response_type"] == "ephemeral" and not shown.get("replace_original")


@pytest.mark.parametrize(
    ("action", "value"),
    [
        ("approve_step", ""),
        ("approve_step", None),
        ("reject_step", "not json"),
        ("approve_step", '{"w":"x","s":1,"r":1,"d":""}'),
        ("approve_step", '{"w":"x"}'),
        ("create_ticket", ""),
        ("something_else", "x"),
        ("approve_step\n", "x"),
        ("Approve_Step", "x"),
    ],
)
async def test_a_button_that_means_nothing_here_is_answered_alone_and_does_nothing(
    edge: Edge, slack: SlackPeer, action: str, value: str | None
) -> None:
    answer = await edge.signed(INTERACTIONS, click(slack, action, value))
    assert answer.status_code == 200
    assert len(told(slack)) == 1 and "nothing was" in told(slack)[0]


async def test_the_link_to_the_incident_needs_no_answer_but_200(edge: Edge, slack: SlackPeer) -> None:
    answer = await edge.signed(INTERACTIONS, click(slack, "view_incident"))
    assert (answer.status_code, answer.text) == (200, "")
    assert told(slack) == []


@pytest.mark.parametrize("action", ["create_ticket", "page_on_call"])
async def test_an_escalation_is_signalled_to_the_incident(edge: Edge, stage: Stage, slack: SlackPeer, action: str) -> None:
    incident = await stage.incident()
    answer = await edge.signed(INTERACTIONS, click(slack, action, incident.handle.id))
    assert answer.status_code == 200
    await eventually(lambda: any(isinstance(telling, Tell) for telling in stage.world.tellings))
    unknown = await edge.signed(INTERACTIONS, click(slack, action, an_id()))
    assert unknown.status_code == 200 and "unknown" in told(slack)[0]


async def test_a_click_outside_of_any_channel_is_taken(edge: Edge, stage: Stage, slack: SlackPeer) -> None:
    run, ref = await asking(stage)
    body = click(slack, "approve_step", encode_ref(run.handle.id, ref), channel=None, container={"type": "view"})
    assert (await edge.signed(INTERACTIONS, body)).status_code == 200
    assert (await run.result()).status is RunStatus.SUCCEEDED


async def test_where_the_response_url_does_not_serve_the_bot_answers(edge: Edge, slack: SlackPeer) -> None:
    for behaviour in (Status(500), Status(404), Hang()):
        slack.ephemerals.clear()
        slack.script("response_url", behaviour)
        answer = await edge.signed(INTERACTIONS, click(slack, "something_else"))
        assert answer.status_code == 200
        assert [(item.channel, item.user) for item in slack.ephemerals] == [(CHANNEL, JANE)], behaviour


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:1/response/1",
        "http://169.254.169.254/latest/meta-data",
        "https://hooks.slack.com.example.org/x",
        "https://hooks.slack.com@127.0.0.1/x",
        "file:///etc/passwd",
        "//127.0.0.1/x",
        "http://[::1",
        "not a url",
        "",
    ],
)
async def test_a_response_url_that_is_not_slacks_is_never_called(edge: Edge, slack: SlackPeer, address: str) -> None:
    body = click(slack, "something_else", response_url=address or "-")
    assert (await edge.signed(INTERACTIONS, body)).status_code == 200
    assert slack.calls["response_url"] == 0 and len(slack.ephemerals) == 1


async def test_a_server_that_a_signed_payload_names_but_that_is_not_slacks_gets_no_request(edge: Edge, slack: SlackPeer) -> None:
    async with SlackPeer() as stranger:
        body = click(slack, "something_else", response_url=stranger.response_url)
        assert (await edge.signed(INTERACTIONS, body)).status_code == 200
        assert stranger.calls.total() == 0 and len(slack.ephemerals) == 1


def test_slacks_own_hosts_for_response_urls_are_hooks_beside_the_api() -> None:
    assert ("https", "hooks.slack.com", None) in response_hosts("https://slack.com/api/")
    assert ("https", "hooks.slack-gov.com", None) in response_hosts("https://slack-gov.com/api/")
    assert ("https", "hooks.slack.com", None) not in response_hosts("http://127.0.0.1:9999/api/")


async def test_when_nobody_can_be_told_the_click_is_still_answered_in_time(
    edge: Edge, slack: SlackPeer, caplog: pytest.LogCaptureFixture
) -> None:
    slack.script("response_url", Hang())
    slack.script("chat.postEphemeral", Hang())
    began = time.monotonic()
    answer = await edge.signed(INTERACTIONS, click(slack, "something_else"))
    assert answer.status_code == 200
    assert time.monotonic() - began < 2
    assert "private answer could not be delivered" in caplog.text


async def test_without_a_bot_and_without_a_usable_url_nothing_is_pretended(caplog: pytest.LogCaptureFixture) -> None:
    assert not await PrivateAnswers(None, "https://slack.com/api/").tell("x", "https://example.org/x", None)
    assert "could not be delivered" in caplog.text


async def test_neither_the_log_nor_the_history_holds_a_response_url_or_a_secret(
    edge: Edge, stage: Stage, slack: SlackPeer, temporal: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    run, ref = await asking(stage)
    for action in ("approve_step", "something_else", "view_incident"):
        await edge.signed(INTERACTIONS, click(slack, action, encode_ref(run.handle.id, ref)))
    await run.result()
    history = (await temporal.get_workflow_handle(run.handle.id).fetch_history()).to_json()
    assert slack.calls["response_url"] == 1
    for secret in (slack.response_url, slack.signing_secret, slack.token, "deprecated-verification-token"):
        assert secret not in history and secret not in caplog.text, secret


async def test_bolt_adds_no_wait_of_its_own_to_a_click(edge: Edge, slack: SlackPeer) -> None:
    """Its default arrangement looks for the acknowledgement every 10 ms: no click would be faster than that."""
    body = click(slack, "view_incident")
    took: list[float] = []
    for _ in range(30):
        began = time.perf_counter()
        assert (await edge.signed(INTERACTIONS, body)).status_code == 200
        took.append(time.perf_counter() - began)
    assert min(took) < 0.01
