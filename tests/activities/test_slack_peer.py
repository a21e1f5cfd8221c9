"""The Slack of the tests refuses what Slack refuses: a peer that takes everything would prove nothing."""

import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs

import aiohttp
import pytest
import pytest_asyncio
from slack_sdk.signature import SignatureVerifier

from tests.peers.slack import SlackPeer, Throttle, signed_request, slash_form
from tests.peers.slack_blocks import Fault, check_blocks

SECTION = {"type": "section", "text": {"type": "plain_text", "text": "hello"}}
BUTTON = {"type": "button", "text": {"type": "plain_text", "text": "Go"}, "action_id": "go", "value": "v"}


@pytest_asyncio.fixture
async def slack() -> AsyncIterator[SlackPeer]:
    async with SlackPeer() as peer:
        yield peer


async def call(slack: SlackPeer, method: str, token: str | None = "", **arguments: Any) -> dict[str, Any]:
    headers = {} if token is None else {"Authorization": f"Bearer {token or slack.token}"}
    async with aiohttp.ClientSession() as session, session.post(slack.api_url + method, json=arguments, headers=headers) as answer:
        return await answer.json()


async def post(slack: SlackPeer, **arguments: Any) -> dict[str, Any]:
    return await call(slack, "chat.postMessage", **{"channel": "#ops-alerts", "text": "hello", **arguments})


@pytest.mark.parametrize(
    "block",
    [
        {"type": "header", "text": {"type": "plain_text", "text": "x" * 151}},
        {"type": "header", "text": {"type": "mrkdwn", "text": "x"}},
        {"type": "section"},
        {"type": "section", "text": {"type": "plain_text", "text": "x" * 3_001}},
        {"type": "section", "text": {"type": "plain_text", "text": " "}},
        {"type": "section", "text": {"type": "html", "text": "x"}},
        {"type": "section", "text": {"type": "plain_text", "text": "x", "colour": "red"}},
        {"type": "section", "fields": [{"type": "plain_text", "text": "x"}] * 11},
        {"type": "section", "fields": [{"type": "plain_text", "text": "x" * 2_001}]},
        {"type": "context", "elements": []},
        {"type": "context", "elements": [{"type": "plain_text", "text": "x"}] * 11},
        {"type": "actions", "elements": []},
        {"type": "actions", "elements": [BUTTON, BUTTON]},
        {"type": "actions", "elements": [{**BUTTON, "text": {"type": "plain_text", "text": "x" * 76}}]},
        {"type": "actions", "elements": [{**BUTTON, "value": "x" * 2_001}]},
        {"type": "actions", "elements": [{**BUTTON, "url": "javascript:alert(1)"}]},
        {"type": "actions", "elements": [{**BUTTON, "style": "warning"}]},
        {"type": "carousel"},
        {"text": "x"},
        "text",
    ],
)
def test_a_block_that_slack_would_refuse_is_refused(block: object) -> None:
    with pytest.raises(Fault, match="invalid_blocks"):
        check_blocks([block])


def test_more_than_fifty_blocks_or_too_much_in_all_of_them_is_refused() -> None:
    check_blocks([{"type": "divider"}] * 50)
    with pytest.raises(Fault, match="invalid_blocks"):
        check_blocks([{"type": "divider"}] * 51)
    long = {"type": "section", "text": {"type": "plain_text", "text": "x" * 2_900}}
    check_blocks([long] * 4)
    with pytest.raises(Fault, match="msg_blocks_too_long"):
        check_blocks([long] * 5)


async def test_a_good_post_is_kept_and_a_bad_one_leaves_nothing(slack: SlackPeer) -> None:
    answer = await post(slack, blocks=[SECTION])
    assert answer["ok"] is True
    assert (await post(slack, blocks=[{"type": "carousel"}]))["error"] == "invalid_blocks"
    assert (await post(slack, text=""))["error"] == "no_text"
    (message,) = slack.messages()
    assert (message.ts, message.channel, message.shown) == (answer["ts"], answer["channel"], "hello")
    assert slack.calls["chat.postMessage"] == 3
    assert len(slack.refusals) == 2


async def test_the_token_is_looked_at(slack: SlackPeer) -> None:
    assert (await call(slack, "auth.test", token=None))["error"] == "not_authed"
    assert (await call(slack, "auth.test", token="xoxb-wrong"))["error"] == "invalid_auth"
    assert (await call(slack, "auth.test"))["ok"] is True


async def test_what_does_not_exist_cannot_be_replied_to_updated_or_reacted_on(slack: SlackPeer) -> None:
    channel = "C0OPSALERT"
    assert (await post(slack, thread_ts="1.1"))["error"] == "thread_not_found"
    assert (await post(slack, channel="#nowhere"))["error"] == "channel_not_found"
    assert (await post(slack, channel="#archive"))["error"] == "is_archived"
    assert (await call(slack, "chat.update", channel=channel, ts="1.1", text="x"))["error"] == "message_not_found"
    assert (await call(slack, "chat.update", channel="#ops-alerts", ts="1.1", text="x"))["error"] == "channel_not_found"
    assert (await call(slack, "reactions.add", channel=channel, timestamp="1.1", name="x"))["error"] == "message_not_found"
    assert (await call(slack, "chat.delete"))["error"] == "unknown_method"


async def test_an_update_has_a_shorter_limit_than_a_post(slack: SlackPeer) -> None:
    posted = await post(slack, text="x" * 5_000)
    target = {"channel": posted["channel"], "ts": posted["ts"]}
    assert (await call(slack, "chat.update", **target, text="x" * 4_001))["error"] == "msg_too_long"
    assert (await call(slack, "chat.update", **target, text="x" * 4_000))["ok"]


async def test_a_scope_that_is_missing_is_named(slack: SlackPeer) -> None:
    slack.scopes = ("chat:write",)
    posted = await post(slack)
    answer = await call(slack, "reactions.add", channel=posted["channel"], timestamp=posted["ts"], name="gear")
    assert (answer["error"], answer["needed"]) == ("missing_scope", "reactions:write")
    slack.channels["C0OPSALERT"].bot_is_member = False
    assert (await post(slack))["error"] == "not_in_channel"


async def test_a_scripted_fault_meets_one_call_and_then_the_method_works_again(slack: SlackPeer) -> None:
    slack.script("chat.postMessage", Throttle(3))
    assert (await post(slack))["error"] == "ratelimited"
    assert (await post(slack))["ok"] is True


def test_a_signed_request_is_what_slacks_own_verifier_accepts() -> None:
    body = slash_form('resolve anom-7f3d "it’s done"')
    headers = signed_request("secret", body)
    assert SignatureVerifier("secret").is_valid_request(body, headers)
    assert not SignatureVerifier("other").is_valid_request(body, headers)
    assert not SignatureVerifier("secret").is_valid_request(body, signed_request("secret", body, timestamp=1))
    expected = hmac.new(b"secret", b"v0:7:" + body.encode(), hashlib.sha256).hexdigest()
    assert signed_request("secret", body, 7)["X-Slack-Signature"] == f"v0={expected}"


async def test_a_click_carries_the_button_as_it_stands_in_the_message(slack: SlackPeer) -> None:
    parent = await post(slack, blocks=[SECTION])
    await post(slack, thread_ts=parent["ts"], blocks=[SECTION, {"type": "actions", "elements": [BUTTON]}])
    (alert,) = slack.messages()
    (card,) = slack.replies(alert)
    payload = json.loads(parse_qs(slack.click(card, "go", user_id="U0JOE00001"))["payload"][0])
    assert payload["type"] == "block_actions"
    assert (payload["actions"][0]["action_id"], payload["actions"][0]["value"]) == ("go", "v")
    assert payload["user"]["id"] == "U0JOE00001"
    assert payload["container"] == {
        "type": "message",
        "message_ts": card.ts,
        "channel_id": card.channel,
        "is_ephemeral": False,
        "thread_ts": alert.ts,
    }
    with pytest.raises(LookupError, match="no button stop"):
        slack.click(card, "stop")
