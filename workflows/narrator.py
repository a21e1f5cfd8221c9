"""The narrator: a workflow's queue of what Slack is to be told, delivered in order while the story goes on."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from temporalio import workflow
from temporalio.exceptions import ActivityError

from domain.approval import ReplyTo
from domain.incident import SlackMode
from domain.narration import (
    AlertState,
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
    Tone,
    Update,
)
from workflows import presets


@dataclass
class _Posting:
    """A message by its key; it becomes a reply, a post or an update only when it is handed over."""

    key: str
    message: Message
    in_thread: bool


_Queued = _Posting | React | Tell


class Narrator:
    """Tells Slack what happens, never holds the story up, and gives a message up after about half an hour.

    A message is known by its key: saying the same key again updates it. `thread` may become known later.
    """

    def __init__(self, mode: SlackMode | None = None, thread: PostedMessage | None = None) -> None:
        self.thread = thread
        self._mode = mode
        """None until it is known what Slack can do: what is said before waits for `open`."""
        self._queue: list[_Queued] = []
        self._posted: dict[str, PostedMessage] = {}
        self._settled: dict[str, str | None] = {}
        self._state: AlertState | None = None
        self._in_flight = 0
        self._notes = 0
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def open(self, mode: SlackMode) -> None:
        """Now it is known what Slack can do."""
        self._mode = mode
        if mode is SlackMode.OFF:
            self._queue.clear()
        self._wake()

    def attach(self, thread: PostedMessage) -> None:
        """The alert was delivered after all: what follows goes into its thread, and its reaction shows the state."""
        state, self.thread, self._state = self._state, thread, None
        self.show(state)

    def say(self, key: str, message: Message, *, in_thread: bool = True) -> None:
        """Post the message, or replace the one that was posted under `key`."""
        for queued in self._queue[self._in_flight :]:
            if isinstance(queued, _Posting) and queued.key == key:
                queued.message = message
                return
        self._put(_Posting(key, message, in_thread))

    def note(self, text: str, tone: Tone = Tone.INFO) -> None:
        """Post one line in the thread."""
        self._notes += 1
        self.say(f"note-{self._notes}", Note(text=text, tone=tone))

    def show(self, state: AlertState | None) -> None:
        """Show the state of the alert as its reaction, in place of the one this workflow showed before."""
        if state is not self._state and self.thread is not None and self._mode is SlackMode.BOT:
            self._put(React(posted=self.thread, add=state, remove=self._state))
        self._state = state

    def answer(self, reply_to: ReplyTo | None, text: str) -> None:
        """Tell one person alone; nobody to tell when the answer came from elsewhere than Slack."""
        if reply_to is not None:
            self._put(Tell(reply_to=reply_to, text=text))

    async def delivered(self, key: str, *, unless: Callable[[], bool] = lambda: False) -> PostedMessage | None:
        """Wait until Slack has the message, or refused it, or `unless` holds, or `DELIVERY_WAIT` is over.

        Returns: where the message is, if it is.
        """
        if self._mode is SlackMode.OFF:
            return None
        try:
            await workflow.wait_condition(
                lambda: key in self._settled or unless(),
                timeout=presets.DELIVERY_WAIT,
                timeout_summary="Slack has a moment to take it",
            )
        except TimeoutError:
            return None
        return self._posted.get(key)

    async def caught_up(self) -> None:
        """Wait until everything said so far is told, or `DELIVERY_WAIT` is over: what is posted otherwise comes after it."""
        if not self._queue:
            return
        try:
            await workflow.wait_condition(
                lambda: not self._queue, timeout=presets.DELIVERY_WAIT, timeout_summary="Slack has a moment to catch up"
            )
        except TimeoutError:
            return

    def failure(self, key: str) -> str | None:
        """Why Slack did not take the message; None while it is not decided, and when it was taken."""
        return self._settled.get(key)

    def is_settled(self, key: str) -> bool:
        """Whether Slack took the message or it was given up."""
        return key in self._settled

    async def settled(self, key: str) -> PostedMessage | None:
        """Wait until the message is delivered or given up. Returns: where it is, if it is."""
        await workflow.wait_condition(lambda: key in self._settled)
        return self._posted.get(key)

    async def drain(self) -> None:
        """Deliver everything, or give it up."""
        self._closing = True
        if self._task is not None:
            await self._task

    def _put(self, item: _Queued) -> None:
        if self._mode is SlackMode.OFF:
            return
        self._queue.append(item)
        self._wake()

    def _wake(self) -> None:
        if self._task is None and self._queue and self._mode is not None:
            self._task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        tries = 0
        while True:
            await workflow.wait_condition(lambda: bool(self._queue) or self._closing)
            if not self._queue:
                return
            batch = self._queue[: presets.DELIVER_BATCH_LIMIT]
            outcomes, problem = await self._deliver(batch)
            tries = 0 if outcomes else tries + 1
            if tries > len(presets.DELIVER_PAUSES):
                outcomes, tries = [Delivered(error=f"given up: {problem}")] * len(batch), 0
            for item, outcome in zip(batch, outcomes, strict=False):
                self._settle(item, outcome)
            del self._queue[: len(outcomes)]
            if not outcomes:
                await workflow.sleep(presets.DELIVER_PAUSES[tries - 1], summary="Slack does not answer")

    async def _deliver(self, batch: list[_Queued]) -> tuple[list[Delivered], str | None]:
        """Hand the batch over. Returns: the outcomes of its first part, or none and the reason."""
        tellings = tuple(self._telling(item) for item in batch)
        self._in_flight = len(batch)
        try:
            report = await workflow.execute_activity(
                "slack.deliver",
                Delivery(tellings=tellings),
                result_type=DeliveryReport,
                **presets.DELIVER,
                summary=", ".join(_named(telling) for telling in tellings[:6]),
            )
        except ActivityError as error:
            return [], str(error.cause or error)
        finally:
            self._in_flight = 0
        return list(report.outcomes), None

    def _telling(self, item: _Queued) -> Telling:
        if isinstance(item, _Posting):
            posted = self._posted.get(item.key)
            if posted is not None:
                return Update(posted=posted, message=item.message)
            return Post(key=item.key, message=item.message, thread=self.thread if item.in_thread else None)
        return item

    def _settle(self, item: _Queued, outcome: Delivered) -> None:
        if not isinstance(item, _Posting):
            return
        if outcome.posted is not None:
            self._posted[item.key] = outcome.posted
        self._settled[item.key] = outcome.error


def _named(telling: Telling) -> str:
    if isinstance(telling, Post | Update):
        return f"{telling.op} {telling.message.kind}"
    return telling.op
