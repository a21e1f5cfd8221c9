"""Slack and shell steps: what is posted where, and what is said when nothing can be."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from pydantic import SecretStr

from activities.clients.slack_web import SlackBot, SlackWebhook
from activities.messages.progress import note_message
from domain.incident import StepRequest
from domain.narration import Note, PostedMessage
from domain.plan import StepResult, Undo
from domain.runbook import Step
from tests.activities.steps import NAMES, a_request, a_step, an_undo_request, attempt, failure_of, run_step, step_activities
from tests.peers.slack import Hang, Refuse, SlackPeer, Status, Throttle
from tests.peers.slack_model import Behaviour

HOSTILE = "<!channel> *bold* $API_TOKEN {{ service_id }}"
A_MESSAGE = a_step(type="slack", message="hi")


@dataclass
class Channel:
    """A workspace with an alert in #ops-alerts, and the bot that posted it."""

    peer: SlackPeer
    bot: SlackBot
    alert: PostedMessage

    async def post(self, step: Step, *, threaded: bool = True, number: int = 1) -> StepResult:
        request = a_request(step, thread=self.alert if threaded else None)
        return await attempt(step_activities(slack=self.bot).execute, request, number=number)

    def replies(self) -> list[str]:
        (alert, *_) = self.peer.messages()
        return [reply.text for reply in self.peer.replies(alert)]


@pytest.fixture
async def channel() -> AsyncIterator[Channel]:
    async with SlackPeer() as peer:
        bot = SlackBot(SecretStr(peer.token), "#ops-alerts", api_url=peer.api_url)
        try:
            yield Channel(peer, bot, await bot.post(None, note_message(Note(text="the alert"))))
        finally:
            await bot.aclose()


async def test_a_message_goes_into_the_thread_of_the_incident(channel: Channel) -> None:
    result = await channel.post(a_step(type="slack", message="{{ service_id }} is scaled in {{ environment }}"))
    assert channel.replies() == ["payment-api is scaled in production"]
    assert result.summary == "Message posted in the thread"
    assert result.outputs["posted"] is True
    assert result.outputs["channel"] == channel.alert.channel
    assert result.undo is None


async def test_a_message_with_a_channel_goes_there_and_not_into_the_thread(channel: Channel) -> None:
    result = await channel.post(a_step(type="slack", message="hi", channel="#alerts"))
    assert [message.text for message in channel.peer.messages("#alerts")] == ["hi"]
    assert channel.replies() == []
    assert result.summary == "Message posted to #alerts"


async def test_a_message_for_the_channel_of_the_thread_stands_beside_the_thread(channel: Channel) -> None:
    await channel.post(a_step(type="slack", message="hi", channel=channel.alert.channel))
    assert [message.text for message in channel.peer.messages()] == ["the alert", "hi"]


async def test_a_message_without_thread_and_channel_goes_where_the_alerts_go(channel: Channel) -> None:
    result = await channel.post(A_MESSAGE, threaded=False)
    assert [message.text for message in channel.peer.messages()] == ["the alert", "hi"]
    assert result.summary == "Message posted to the channel of the alerts"


async def test_foreign_text_is_posted_as_text_and_never_read_again(channel: Channel) -> None:
    request = a_request(
        a_step(type="slack", message="{{ root_cause }}"), names={**NAMES, "root_cause": HOSTILE}, thread=channel.alert
    )
    await attempt(step_activities(slack=channel.bot).execute, request)
    (reply,) = channel.peer.replies(channel.peer.messages()[0])
    assert reply.shown == HOSTILE
    assert "<!channel>" not in reply.text


async def test_a_webhook_posts_too_and_does_not_say_which_message_it_was() -> None:
    async with SlackPeer() as peer:
        webhook = SlackWebhook(SecretStr(peer.webhook_url))
        result = await attempt(step_activities(slack=webhook).execute, a_request(A_MESSAGE))
        await webhook.aclose()
    assert (result.summary, result.outputs) == ("Message posted to the channel of the alerts", {"posted": True})


async def test_without_slack_the_message_is_kept_in_the_timeline() -> None:
    result = await attempt(step_activities().execute, a_request(a_step(type="slack", message="payment-api scaled — monitoring")))
    assert result.summary == "Message kept in the timeline, Slack is not configured: “payment-api scaled — monitoring”"
    assert result.outputs == {"posted": False}
    assert result.undo is None


async def test_without_slack_a_long_message_is_shortened_in_the_timeline() -> None:
    result = await attempt(step_activities().execute, a_request(a_step(type="slack", message="m" * 3_000)))
    assert len(result.summary) < 300
    assert result.summary.endswith("…”")


async def test_the_plan_of_a_message_shows_the_message_and_where_it_goes() -> None:
    plan = await attempt(step_activities().plan, a_request(a_step(type="slack", message="{{ service_id }}", channel="#alerts")))
    assert (plan.title, plan.change) == ("Post a message to #alerts", "“payment-api”")
    assert plan.request == {"channel": "#alerts", "message": "payment-api"}
    assert [(fact.label, fact.value) for fact in plan.facts] == [("Channel", "#alerts")]
    assert plan.observed == {}


async def test_an_approved_message_is_posted(channel: Channel) -> None:
    step = a_step(type="slack", message="hi", require_approval=True)
    await run_step(step_activities(slack=channel.bot), a_request(step, thread=channel.alert))
    assert channel.replies() == ["hi"]


async def test_what_slack_says_of_its_limits_decides_when_to_try_again(channel: Channel) -> None:
    channel.peer.script("chat.postMessage", Throttle(7))
    error = await failure_of(channel.post(A_MESSAGE))
    assert (error.type, error.non_retryable) == ("RateLimited", False)
    assert error.next_retry_delay is not None
    assert error.next_retry_delay.total_seconds() >= 7
    assert (await channel.post(A_MESSAGE, number=2)).outputs["posted"] is True


@pytest.mark.parametrize("trouble", [Status(503), Throttle(7)])
async def test_a_slack_that_stays_in_trouble_does_not_stop_a_remediation(channel: Channel, trouble: Behaviour) -> None:
    channel.peer.script("chat.postMessage", trouble, trouble)
    assert not (await failure_of(channel.post(A_MESSAGE))).non_retryable
    result = await channel.post(A_MESSAGE, number=2)
    assert result.summary.startswith("Message kept in the timeline, Slack did not take it (")
    assert result.summary.endswith("): “hi”")
    assert result.outputs == {"posted": False}


async def test_a_channel_that_slack_does_not_know_is_told_and_does_not_stop_a_remediation(channel: Channel) -> None:
    channel.peer.script("chat.postMessage", Refuse("channel_not_found"))
    result = await channel.post(a_step(type="slack", message="hi", channel="#nowhere"))
    assert "channel_not_found" in result.summary
    assert result.outputs == {"posted": False}


async def test_a_message_that_a_runbook_insists_on_fails_when_slack_does_not_take_it(channel: Channel) -> None:
    channel.peer.script("chat.postMessage", Refuse("channel_not_found"))
    error = await failure_of(channel.post(a_step(type="slack", message="hi", on_failure="halt")))
    assert (error.type, error.non_retryable) == ("Refused", True)


async def test_a_message_is_tried_as_often_as_its_runbook_says(channel: Channel) -> None:
    step = a_step(type="slack", message="hi", retry={"attempts": 4})
    channel.peer.script("chat.postMessage", Status(503), Status(503))
    assert (await failure_of(channel.post(step, number=3))).type == "Unreachable"
    assert (await channel.post(step, number=4)).outputs == {"posted": False}


@pytest.mark.parametrize("last", [False, True])
async def test_a_slack_that_does_not_answer_is_given_up_after_the_steps_own_time(channel: Channel, last: bool) -> None:
    channel.peer.script("chat.postMessage", Hang())
    work = channel.post(a_step(type="slack", message="hi", timeout_seconds=0.1), number=2 if last else 1)
    if last:
        assert "(no answer within 0.1 s)" in (await work).summary
    else:
        assert (await failure_of(work)).type == "Unreachable"


@pytest.mark.parametrize(
    "step",
    [
        a_step(type="slack", message="hi"),
        a_step(type="http", url="http://127.0.0.1/"),
        a_step(type="shell", command="uptime", host="prod-host-01"),
    ],
)
async def test_what_leaves_no_undo_cannot_be_taken_back(step: Step) -> None:
    error = await failure_of(attempt(step_activities().undo, an_undo_request(step, Undo(title="?", request={}))))
    assert error.type == "InvalidStep"
    assert error.message.endswith("which cannot be taken back")


@pytest.mark.parametrize("method", ["plan", "execute"])
async def test_a_shell_step_says_what_is_missing(method: str) -> None:
    request: StepRequest = a_request(a_step(type="shell", command="systemctl restart payment-api", host="prod-host-01"))
    error = await failure_of(attempt(getattr(step_activities(), method), request))
    assert (error.type, error.non_retryable) == ("NotConfigured", True)
    assert "RUNBOOK_SHELL_HOSTS" in error.message
