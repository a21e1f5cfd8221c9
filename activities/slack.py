"""Telling Slack: the one activity that posts, updates, reacts and answers, and the port it speaks through.

It must not decide what is told or when; it draws the content with `activities.messages` and reports what became of it.
"""

import time
from datetime import timedelta
from typing import Protocol

from temporalio import activity

from activities.errors import OrchestratorError, PermanentError, TransientError, to_application_error
from activities.messages.alert import alert_message
from activities.messages.answers import sentence
from activities.messages.approval import approval_message, outcome_message
from activities.messages.parts import SlackMessage, Surroundings
from activities.messages.progress import REACTIONS, note_message
from domain.approval import ApprovalStatus, ReplyTo
from domain.incident import EscalationKind
from domain.narration import (
    Alert,
    ApprovalCard,
    Delivered,
    Delivery,
    DeliveryReport,
    Message,
    Note,
    Post,
    PostedMessage,
    React,
    Tell,
    Telling,
    Update,
)

BATCH_TIME = timedelta(seconds=5)
"""After this long no further telling of the batch is begun, and what is done is reported: one that is cut off by its timeout
reports nothing, and its messages would be posted again. A telling makes two calls of 10 s at most, so `slack.deliver` ends
within 25 s."""


class SlackPort(Protocol):
    """Where messages can be posted: the bot or a webhook."""

    async def post(self, channel: str | None, message: SlackMessage, thread: PostedMessage | None = None) -> PostedMessage | None:
        """Post in `channel`, or as a reply in `thread`, or in the default channel where both are None.

        A channel other than the thread's wins over the thread. Returns: the message, None where Slack does not tell (a webhook).
        Raises: RateLimited, Unreachable, Refused.
        """
        ...


class SlackBotPort(SlackPort, Protocol):
    """What only the bot can do. All raise RateLimited, Unreachable, Refused."""

    async def update(self, posted: PostedMessage, message: SlackMessage) -> None: ...

    async def react(self, posted: PostedMessage, emoji: str) -> None: ...

    async def unreact(self, posted: PostedMessage, emoji: str) -> None: ...

    async def tell(self, reply_to: ReplyTo, message: SlackMessage) -> None: ...


class SlackActivities:
    """`slack.deliver`, with the bot, with a webhook, or with neither."""

    def __init__(
        self,
        console_url: str,
        *,
        offers: frozenset[EscalationKind] = frozenset(),
        bot: SlackBotPort | None = None,
        webhook: SlackPort | None = None,
    ) -> None:
        """`offers` are the escalations whose buttons the alert shows. The bot, if there is one, is used instead of the webhook."""
        self._surroundings = Surroundings(console_url, interactive=bot is not None, offers=offers)
        self._bot = bot
        self._webhook = webhook

    @activity.defn(name="slack.deliver")
    async def deliver(self, delivery: Delivery) -> DeliveryReport:
        """Do the tellings in order.

        Returns: the outcomes of a prefix, never empty unless the batch was; the rest is to be handed over again.
        Raises: ApplicationError[RateLimited, Unreachable] if nothing was done; with Slack's own delay if it named one.
        Run twice, a batch is told twice: updates and reactions then change nothing, posts stand twice in the channel.
        """
        outcomes: list[Delivered] = []
        no_more_after = time.monotonic() + BATCH_TIME.total_seconds()
        for telling in delivery.tellings:
            try:
                outcomes.append(await self._outcome(telling))
            except TransientError as error:
                if outcomes:
                    break
                raise to_application_error(error) from None
            if time.monotonic() > no_more_after:
                break
        return DeliveryReport(outcomes=tuple(outcomes))

    async def _outcome(self, telling: Telling) -> Delivered:
        """Raises: TransientError; a permanent one is the outcome."""
        try:
            if self._bot:
                return await self._tell_by_bot(self._bot, telling)
            return await self._tell_by_webhook(telling) if self._webhook else Delivered()
        except PermanentError as error:
            return Delivered(error=str(error))

    async def _tell_by_bot(self, bot: SlackBotPort, telling: Telling) -> Delivered:
        match telling:
            case Post():
                posted = await bot.post(telling.channel, render(telling.message, self._surroundings), telling.thread)
                return Delivered(posted=posted)
            case Update():
                await bot.update(telling.posted, render(telling.message, self._surroundings))
                return Delivered()
            case React():
                return Delivered(error=await _show_state(bot, telling))
            case Tell():
                await bot.tell(telling.reply_to, sentence(telling.text))
                return Delivered()

    async def _tell_by_webhook(self, telling: Telling) -> Delivered:
        """A webhook only posts: what a reaction or an update would show is left out, but for the outcome of an approval."""
        message = _webhook_message(telling, self._surroundings)
        if self._webhook and message:
            await self._webhook.post(telling.channel if isinstance(telling, Post) else None, message)
        return Delivered()


def render(message: Message, surroundings: Surroundings) -> SlackMessage:
    """Draw one message."""
    match message:
        case Alert():
            return alert_message(message, surroundings)
        case ApprovalCard():
            return approval_message(message, surroundings)
        case Note():
            return note_message(message)


def _webhook_message(telling: Telling, surroundings: Surroundings) -> SlackMessage | None:
    if isinstance(telling, Post | Update):
        if isinstance(telling.message, ApprovalCard) and telling.message.status is not ApprovalStatus.OPEN:
            return outcome_message(telling.message)
        if isinstance(telling, Post):
            return render(telling.message, surroundings)
    return None


async def _show_state(bot: SlackBotPort, telling: React) -> str | None:
    """Add the new state, then take the old one away. Returns: the first failure; none, not even a passing one, is worth a retry."""
    failures: list[str] = []
    gone = telling.remove if telling.remove != telling.add else None
    for change, state in ((bot.react, telling.add), (bot.unreact, gone)):
        if state:
            try:
                await change(telling.posted, REACTIONS[state])
            except OrchestratorError as error:
                failures.append(str(error))
    return failures[0] if failures else None
