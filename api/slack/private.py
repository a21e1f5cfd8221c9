"""Telling one person alone, from the API itself: only for what no workflow can tell, because it has not got the click.

The way is the click's own `response_url` (valid for 30 minutes, needs no token), else an ephemeral message of the bot. The URL is a
secret for as long as it is valid: it is used at once and goes nowhere else.
"""

import asyncio
import logging
from typing import Protocol
from urllib.parse import urlsplit

from slack_bolt.context.respond.async_respond import AsyncRespond

from activities.messages.answers import sentence
from activities.messages.parts import SlackMessage
from domain.approval import ReplyTo

TELL_SECONDS = 0.7
"""Of the 3 s that Slack waits, after the time that storing a click may take (`api.slack.interactions`); the rest is for the way."""

RESPONSE_URL_SECONDS = 0.4

log = logging.getLogger(__name__)

logging.getLogger("slack_sdk.webhook.async_client").setLevel(logging.WARNING)  # at DEBUG it logs the URL


class PrivateLine(Protocol):
    """The bot: `activities.clients.slack_web.SlackBot`."""

    async def tell(self, reply_to: ReplyTo, message: SlackMessage) -> None: ...


class PrivateAnswers:
    """Answers people alone; never raises, a failure is in the log."""

    def __init__(self, bot: PrivateLine | None, api_url: str) -> None:
        """`api_url`: SLACK_API_URL; it decides which host a `response_url` may name."""
        self._bot = bot
        self._hosts = response_hosts(api_url)

    async def tell(self, text: str, response_url: str, reply_to: ReplyTo | None) -> bool:
        """Within `TELL_SECONDS`. Returns: whether Slack took it."""
        message = sentence(text)
        try:
            async with asyncio.timeout(TELL_SECONDS):
                if await self._by_url(message, response_url):
                    return True
                if self._bot is not None and reply_to is not None:
                    await self._bot.tell(reply_to, message)
                    return True
        except Exception as error:  # whatever the network or Slack's SDK raises: the answer to the click itself must not suffer
            log.warning("a private answer could not be delivered: %s", type(error).__name__)
            return False
        log.warning("a private answer could not be delivered: Slack gave no address that is usable here")
        return False

    async def _by_url(self, message: SlackMessage, response_url: str) -> bool:
        if not self._is_slacks(response_url):
            return False
        try:
            async with asyncio.timeout(RESPONSE_URL_SECONDS):
                answer = await AsyncRespond(response_url=response_url)(
                    text=message.text, blocks=message.blocks, response_type="ephemeral", replace_original=False
                )
        except Exception as error:  # as above; the bot is tried next
            log.warning("a response_url did not answer: %s", type(error).__name__)
            return False
        return answer.status_code == 200

    def _is_slacks(self, url: str) -> bool:
        """A payload is signed, but a signature is no reason to send requests wherever it says."""
        try:
            parts = urlsplit(url)
            host = (parts.hostname or "", parts.port)
        except ValueError:
            return False
        return (parts.scheme, *host) in self._hosts


def response_hosts(api_url: str) -> frozenset[tuple[str, str, int | None]]:
    """Scheme, host and port that a `response_url` may have: `hooks.` beside Slack's public API, or the place of another API."""
    parts = urlsplit(api_url)
    host = parts.hostname or ""
    own = (parts.scheme, host, parts.port)
    return frozenset({own, ("https", f"hooks.{host.removeprefix('www.')}", None)})
