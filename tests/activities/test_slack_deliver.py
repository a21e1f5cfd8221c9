"""`slack.deliver` with the bot, with a webhook and with neither: what is told, what is reported, what is tried again."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import slack as slack_activities
from activities.clients.slack_web import SlackBot, SlackWebhook
from activities.slack import SlackActivities
from domain.approval import ApprovalStatus, ReplyTo
from domain.incident import EscalationKind
from domain.narration import (
    AlertState,
    ApprovalCard,
    Delivered,
    Delivery,
    DeliveryReport,
    Note,
    Post,
    PostedMessage,
    React,
    Tell,
    Telling,
    Tone,
    Update,
)
from tests.peers.slack import Drop, Hang, Refuse, SlackPeer, Status, Throttle
from tests.peers.slack_samples import CONSOLE, JANE, sample_alert, sample_card

SHORT = timedelta(seconds=0.3)
GONE = PostedMessage(channel="C0OPSALERT", ts="1.1")


@pytest_asyncio.fixture
async def slack() -> AsyncIterator[SlackPeer]:
    async with SlackPeer() as peer:
        yield peer


@pytest_asyncio.fixture
async def by_bot(slack: SlackPeer) -> AsyncIterator[SlackActivities]:
    bot = SlackBot(SecretStr(slack.token), "#ops-alerts", api_url=slack.api_url, timeout=SHORT)
    yield SlackActivities(CONSOLE, offers=frozenset(EscalationKind), bot=bot)
    await bot.aclose()


@pytest_asyncio.fixture
async def by_webhook(slack: SlackPeer) -> AsyncIterator[SlackActivities]:
    webhook = SlackWebhook(SecretStr(slack.webhook_url), "#ops-alerts", timeout=SHORT)
    yield SlackActivities(CONSOLE, offers=frozenset(EscalationKind), webhook=webhook)
    await webhook.aclose()


async def deliver(activities: SlackActivities, *tellings: Telling) -> DeliveryReport:
    return await ActivityEnvironment().run(activities.deliver, Delivery(tellings=tellings))


async def posted_alert(activities: SlackActivities) -> PostedMessage:
    report = await deliver(activities, Post(key="alert", message=sample_alert()))
    posted = report.outcomes[0].posted
    assert posted is not None
    return posted


def note(text: str, **more: Any) -> Post:
    return Post(key=text, message=Note(text=text), **more)


def decided(status: ApprovalStatus = ApprovalStatus.APPROVED) -> ApprovalCard:
    at = datetime(2026, 4, 10, 12, 1, 10, tzinfo=UTC)
    return sample_card().model_copy(update={"status": status, "decided_by": JANE, "decided_at": at})


# --- the bot ------------------------------------------------------------------------------------------------------------


async def test_an_incident_is_told_as_one_thread_with_the_card_closed_at_the_end(slack: SlackPeer, by_bot: SlackActivities) -> None:
    thread = await posted_alert(by_bot)
    asked = await deliver(by_bot, Post(key="approval", message=sample_card(), thread=thread))
    card = asked.outcomes[0].posted
    assert card is not None
    report = await deliver(
        by_bot,
        Update(posted=card, message=decided()),
        Post(key="done", message=Note(text="scaled from 3 to 5", tone=Tone.SUCCESS), thread=thread),
        React(posted=thread, add=AlertState.RESOLVED),
        Tell(reply_to=ReplyTo(channel=card.channel, user="U0JANE0001"), text="Approved: Scale deployment to 5 replicas."),
    )
    assert [outcome.error for outcome in report.outcomes] == [None] * 4
    (alert,) = slack.messages("#ops-alerts")
    shown_card, result = slack.replies(alert)
    assert alert.action_ids == ["view_incident", "create_ticket", "page_on_call"]
    assert "✅ Approved by Jane Doe at 2026-04-10 12:01:10 UTC" in shown_card.shown
    assert shown_card.action_ids == []
    assert result.shown == "✅ scaled from 3 to 5"
    assert alert.reactions == {"white_check_mark"}
    assert slack.ephemerals[0].text == "Approved: Scale deployment to 5 replicas."
    assert not slack.refusals


async def test_a_state_replaces_another_and_the_same_one_stays(slack: SlackPeer, by_bot: SlackActivities) -> None:
    thread = await posted_alert(by_bot)
    await deliver(by_bot, React(posted=thread, add=AlertState.WAITING))
    await deliver(by_bot, React(posted=thread, add=AlertState.RUNNING, remove=AlertState.WAITING))
    (alert,) = slack.messages()
    assert alert.reactions == {"gear"}
    await deliver(by_bot, React(posted=thread, add=AlertState.RUNNING, remove=AlertState.RUNNING))
    assert alert.reactions == {"gear"}


async def test_a_channel_of_its_own_is_used(slack: SlackPeer, by_bot: SlackActivities) -> None:
    await deliver(by_bot, note("hello", channel="#alerts"))
    assert slack.messages("#alerts")[0].shown == "hello"


async def test_a_refusal_is_the_outcome_of_its_telling_and_the_rest_goes_on(slack: SlackPeer, by_bot: SlackActivities) -> None:
    report = await deliver(
        by_bot,
        note("one"),
        note("two", channel="#nowhere"),
        Update(posted=GONE, message=decided()),
        Tell(reply_to=ReplyTo(channel="C0OPSALERT", user="nobody"), text="x"),
        note("three"),
    )
    first, refused, vanished, untold, last = report.outcomes
    assert (first.error, last.error) == (None, None)
    assert first.posted and last.posted and not refused.posted
    assert refused.error is not None and refused.error.startswith("Slack refused: channel_not_found.")
    assert vanished.error == "Slack refused: message_not_found. The message was deleted."
    assert untold.error is not None and "user_not_found" in untold.error
    assert [message.shown for message in slack.messages()] == ["one", "three"]


TROUBLE = [Throttle(5), Status(503), Drop(), Hang(), Refuse("internal_error")]


@pytest.mark.parametrize("trouble", TROUBLE, ids=str)
async def test_passing_trouble_hands_the_rest_back_and_does_nothing_twice(
    slack: SlackPeer, by_bot: SlackActivities, trouble: Any
) -> None:
    earlier = (await deliver(by_bot, note("zero"))).outcomes[0].posted
    assert earlier is not None
    batch = (note("one"), Update(posted=earlier, message=Note(text="zero, changed")), note("two"))
    slack.script("chat.update", trouble)
    report = await deliver(by_bot, *batch)
    assert len(report.outcomes) == 1
    assert [message.shown for message in slack.messages()] == ["zero", "one"]
    rest = await deliver(by_bot, *batch[len(report.outcomes) :])
    assert len(rest.outcomes) == 2
    assert [message.shown for message in slack.messages()] == ["zero, changed", "one", "two"]


@pytest.mark.parametrize(
    ("trouble", "type_name", "delay"),
    [
        (Throttle(5), "RateLimited", timedelta(seconds=5)),
        (Throttle(None), "RateLimited", None),
        (Status(503), "Unreachable", None),
        (Hang(), "Unreachable", None),
    ],
    ids=str,
)
async def test_passing_trouble_at_the_first_telling_is_raised_for_temporal_to_retry(
    slack: SlackPeer, by_bot: SlackActivities, trouble: Any, type_name: str, delay: timedelta | None
) -> None:
    slack.script("chat.postMessage", trouble)
    with pytest.raises(ApplicationError) as caught:
        await deliver(by_bot, note("one"), note("two"))
    assert (caught.value.type, caught.value.non_retryable, caught.value.next_retry_delay) == (type_name, False, delay)
    assert slack.calls["chat.postMessage"] == 1
    assert caught.value.__cause__ is None
    assert slack.token not in str(caught.value)


@pytest.mark.parametrize("trouble", [*TROUBLE, Refuse("missing_scope", {"needed": "reactions:write"})], ids=str)
async def test_a_reaction_that_fails_never_matters(slack: SlackPeer, by_bot: SlackActivities, trouble: Any) -> None:
    thread = await posted_alert(by_bot)
    slack.script("reactions.add", trouble)
    report = await deliver(by_bot, React(posted=thread, add=AlertState.RUNNING, remove=AlertState.WAITING), note("after"))
    reacted, after = report.outcomes
    assert reacted.error is not None
    assert after.posted is not None
    assert slack.calls["reactions.remove"] == 1, "the old state is taken away all the same"


async def test_a_batch_that_takes_long_reports_what_is_done_before_its_timeout_can_lose_it(
    slack: SlackPeer, by_bot: SlackActivities, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slack_activities, "BATCH_TIME", timedelta(0))
    assert len((await deliver(by_bot, note("one"), note("two"), note("three"))).outcomes) == 1
    monkeypatch.setattr(slack_activities, "BATCH_TIME", timedelta(minutes=1))
    assert len((await deliver(by_bot, note("one"), note("two"), note("three"))).outcomes) == 3


async def test_an_empty_batch_is_an_empty_report(by_bot: SlackActivities) -> None:
    assert await deliver(by_bot) == DeliveryReport(outcomes=())


# --- a webhook ------------------------------------------------------------------------------------------------------------


async def test_by_webhook_everything_is_a_plain_post_without_buttons_for_decisions(
    slack: SlackPeer, by_webhook: SlackActivities
) -> None:
    report = await deliver(
        by_webhook,
        Post(key="alert", message=sample_alert()),
        Post(key="approval", message=sample_card(), thread=GONE),
        Post(key="note", message=Note(text="scaled"), thread=GONE),
    )
    assert report.outcomes == (Delivered(), Delivered(), Delivered())
    alert, card, said = slack.messages("#ops-alerts")
    assert alert.action_ids == ["view_incident"]
    assert card.action_ids == []
    assert "infrasage approve anom-7f3d" in card.shown
    assert said.shown == "scaled"


@pytest.mark.parametrize("form", ["update", "post"])
async def test_by_webhook_an_outcome_is_a_new_short_post(slack: SlackPeer, by_webhook: SlackActivities, form: str) -> None:
    update = Update(posted=GONE, message=decided())
    await deliver(by_webhook, update if form == "update" else Post(key="outcome", message=decided()))
    (message,) = slack.messages("#ops-alerts")
    assert message.shown.splitlines() == [
        "✅ Approved by Jane Doe at 2026-04-10 12:01:10 UTC",
        "scale-out-payment-api — step 2/3: Scale deployment to 5 replicas",
    ]


async def test_by_webhook_what_it_cannot_do_is_left_out_without_an_error(slack: SlackPeer, by_webhook: SlackActivities) -> None:
    report = await deliver(
        by_webhook,
        React(posted=GONE, add=AlertState.RUNNING),
        Tell(reply_to=ReplyTo(channel="C0OPSALERT", user="U0JANE0001"), text="x"),
        Update(posted=GONE, message=sample_card()),
        Update(posted=GONE, message=Note(text="x")),
    )
    assert report.outcomes == (Delivered(),) * 4
    assert not slack.calls


async def test_by_webhook_refusals_and_trouble_are_reported_as_with_the_bot(slack: SlackPeer, by_webhook: SlackActivities) -> None:
    slack.script("webhook", Refuse("action_prohibited"))
    (outcome,) = (await deliver(by_webhook, note("one"))).outcomes
    assert outcome.error is not None and outcome.error.startswith("Slack refused: action_prohibited.")
    slack.script("webhook", Throttle(9))
    with pytest.raises(ApplicationError) as caught:
        await deliver(by_webhook, note("one"))
    assert caught.value.next_retry_delay == timedelta(seconds=9)
    slack.channels["C0OPSALERT"].archived = True
    (outcome,) = (await deliver(by_webhook, note("one"))).outcomes
    assert outcome.error is not None and "channel_is_archived" in outcome.error


# --- neither ------------------------------------------------------------------------------------------------------------


async def test_without_slack_everything_counts_as_delivered_and_nothing_is_posted() -> None:
    report = await deliver(SlackActivities(CONSOLE), note("one"), React(posted=GONE, add=AlertState.RUNNING))
    assert report.outcomes == (Delivered(), Delivered())


async def test_with_both_configured_the_bot_is_used(slack: SlackPeer, by_bot: SlackActivities) -> None:
    webhook = SlackWebhook(SecretStr(slack.webhook_url))
    bot = SlackBot(SecretStr(slack.token), "#ops-alerts", api_url=slack.api_url)
    await deliver(SlackActivities(CONSOLE, bot=bot, webhook=webhook), note("one"))
    await bot.aclose()
    await webhook.aclose()
    assert (slack.calls["chat.postMessage"], slack.calls["webhook"]) == (1, 0)
