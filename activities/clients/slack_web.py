"""Slack's Web API and incoming webhooks: the only importer of slack_sdk's web client.

Owns the connections and the translation of every failure into the error tree. It must not decide what is said, and it neither
retries nor sleeps: Temporal does. Nothing it raises or logs holds the token or the webhook's URL; errors are raised outside of
the handlers that caught their causes, so that not even `__context__` leads to a request.

A call that timed out may have been done: after a retry a message can stand in the channel twice. Slack offers no key to prevent
it; every approval button leads to the same request, so a second card decides nothing twice.
"""

import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import aiohttp
from pydantic import SecretStr
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from activities.clients.slack_connection import CALL_TIMEOUT, Connection
from activities.clients.slack_failures import failure, not_slack, throttled
from activities.errors import OrchestratorError, Refused, Unreachable
from activities.messages.parts import SlackMessage
from domain.approval import ReplyTo
from domain.narration import PostedMessage

REQUIRED_SCOPES = ("chat:write", "chat:write.public", "commands", "reactions:write")
"""Of the bot token; `commands` is for `/infrasage`."""

WEBHOOK_ANSWER_BYTES = 200
"""Read of a webhook's answer, which is `ok` or a code."""

_DONE_ALREADY = frozenset({"already_reacted", "no_reaction", "message_not_found"})
"""Refusals of a reaction that leave nothing to be done."""

_NOT_A_WEBHOOK_ERROR = frozenset({"no_text", "invalid_payload", "missing_text_or_fallback_or_attachments"})
"""What a working webhook answers to an empty message."""

_CODE = re.compile(r"[a-z][a-z_]{2,60}\b")

_quiet = logging.getLogger("infrasage.slack_sdk")
_quiet.setLevel(logging.WARNING)  # at DEBUG the SDK logs whole requests and answers


@dataclass(frozen=True)
class SlackIdentity:
    """Who the token is, as `auth.test` says it."""

    team: str
    bot_user: str
    bot_user_id: str
    scopes: tuple[str, ...] | None
    """Granted scopes; None when Slack did not say."""

    @property
    def missing_scopes(self) -> tuple[str, ...]:
        """Those of `REQUIRED_SCOPES` that are not granted."""
        return () if self.scopes is None else tuple(scope for scope in REQUIRED_SCOPES if scope not in self.scopes)


class SlackBot:
    """The bot: posts, threads, updates, reacts and answers one person alone. One per process; close it with `aclose`."""

    def __init__(
        self,
        token: SecretStr,
        default_channel: str,
        *,
        api_url: str = "https://slack.com/api/",
        timeout: timedelta = CALL_TIMEOUT,
    ) -> None:
        """`default_channel` is a name with `#` or an id; it is where a post without a channel or thread goes."""
        self._default_channel = default_channel
        self._connection = Connection(api_url, timeout)
        # Any: the SDK's signatures hold bare `dict`s, which strict typing counts as unknown
        self._web: Any = AsyncWebClient(
            token=token.get_secret_value(),
            base_url=api_url,
            retry_handlers=[],  # the SDK's own would sleep in an activity slot
            logger=_quiet,
        )
        self._web.proxy = self._connection.proxy  # the SDK's own choice ignores NO_PROXY

    async def aclose(self) -> None:
        await self._connection.aclose()

    async def post(self, channel: str | None, message: SlackMessage, thread: PostedMessage | None = None) -> PostedMessage:
        """Post a message: in `thread` if `channel` is None or the thread's own, else in `channel`, else in the default channel.

        Returns: what Slack made of it; its channel is an id, even where a name was given.
        Raises: RateLimited, Unreachable, Refused.
        """
        target = channel or (thread.channel if thread else self._default_channel)
        answer = await self._call(
            self._web.chat_postMessage,
            channel=target,
            thread_ts=thread.ts if thread and thread.channel == target else None,
            unfurl_links=False,
            unfurl_media=False,
            **_content(message),
        )
        ts = answer.get("ts")
        if not isinstance(ts, str) or not ts:
            raise not_slack(self._connection.host)
        return PostedMessage(channel=str(answer.get("channel") or target), ts=ts)

    async def update(self, posted: PostedMessage, message: SlackMessage) -> None:
        """Replace a message whole. Raises: RateLimited, Unreachable, Refused (also when it is gone)."""
        await self._call(self._web.chat_update, channel=posted.channel, ts=posted.ts, **_content(message))

    async def react(self, posted: PostedMessage, emoji: str) -> None:
        """Add a reaction; one that is there, or a message that is gone, is no error. Raises: RateLimited, Unreachable, Refused."""
        await self._call(self._web.reactions_add, _DONE_ALREADY, channel=posted.channel, timestamp=posted.ts, name=emoji)

    async def unreact(self, posted: PostedMessage, emoji: str) -> None:
        """Take the bot's reaction away; none, or a message that is gone, is no error. Raises: RateLimited, Unreachable, Refused."""
        await self._call(self._web.reactions_remove, _DONE_ALREADY, channel=posted.channel, timestamp=posted.ts, name=emoji)

    async def tell(self, reply_to: ReplyTo, message: SlackMessage) -> None:
        """Show a message to one person alone. Raises: RateLimited, Unreachable, Refused."""
        await self._call(self._web.chat_postEphemeral, channel=reply_to.channel, user=reply_to.user, **_content(message))

    async def check(self) -> SlackIdentity:
        """Ask who the token is and what it may. Raises: RateLimited, Unreachable, Refused."""
        answer = await self._call(self._web.auth_test)
        granted = cast("Mapping[str, str]", answer.headers).get("x-oauth-scopes")
        return SlackIdentity(
            team=str(answer.get("team") or ""),
            bot_user=str(answer.get("user") or ""),
            bot_user_id=str(answer.get("user_id") or ""),
            scopes=None if granted is None else tuple(scope.strip() for scope in granted.split(",") if scope.strip()),
        )

    async def _call(
        self, method: Callable[..., Awaitable[AsyncSlackResponse]], harmless: Iterable[str] = (), **arguments: Any
    ) -> AsyncSlackResponse:
        self._web.session = self._connection.session()
        error: OrchestratorError
        try:
            return await method(**arguments)
        except SlackApiError as refusal:
            response: Any = refusal.response
            if _field(response, "error") in harmless and isinstance(response, AsyncSlackResponse):
                return response
            error = _judged(response)
        except (SlackClientError, AttributeError):  # the SDK takes a text/plain body for a mapping
            error = not_slack(self._connection.host)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as trouble:
            error = self._connection.failure(trouble)
        raise error


class SlackWebhook:
    """An incoming webhook: posts, and nothing else. Close it with `aclose`."""

    def __init__(self, url: SecretStr, channel: str | None = None, *, timeout: timedelta = CALL_TIMEOUT) -> None:
        """`channel` is sent along: legacy webhooks honour it, an app's webhook posts where it was installed."""
        self._url = url
        self._channel = channel
        self._connection = Connection(url.get_secret_value(), timeout)

    async def aclose(self) -> None:
        await self._connection.aclose()

    async def post(self, channel: str | None, message: SlackMessage, thread: PostedMessage | None = None) -> None:
        """Post a message; a webhook knows neither threads nor the message it made. Raises: RateLimited, Unreachable, Refused."""
        target = channel or self._channel
        body = {**_content(message), "unfurl_links": False, "unfurl_media": False}
        code = await self._send({**body, "channel": target} if target else body)
        if code != "ok":
            raise failure(code)

    async def check(self) -> None:
        """See that the webhook exists, without posting: it refuses an empty message. Raises: RateLimited, Unreachable, Refused."""
        code = await self._send({})
        if code not in _NOT_A_WEBHOOK_ERROR:
            raise failure(code) if code != "ok" else not_slack(self._connection.host)

    async def _send(self, body: Mapping[str, Any]) -> str:
        """Returns: `ok`, or the code of a refusal."""
        error: OrchestratorError
        try:
            async with self._connection.session().post(
                self._url.get_secret_value(), json=body, proxy=self._connection.proxy, allow_redirects=False
            ) as response:
                answer = await _beginning(response.content)
                return _webhook_code(response.status, answer, response.headers.get("Retry-After"), self._connection.host)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as trouble:
            error = self._connection.failure(trouble)
        raise error


async def _beginning(stream: aiohttp.StreamReader) -> str:
    """The first `WEBHOOK_ANSWER_BYTES` of an answer, in however many pieces they come."""
    answer = b""
    async for piece in stream.iter_chunked(WEBHOOK_ANSWER_BYTES):
        answer += piece
        if len(answer) >= WEBHOOK_ANSWER_BYTES:
            break
    return answer[:WEBHOOK_ANSWER_BYTES].decode("utf-8", "replace").strip()


def _content(message: SlackMessage) -> dict[str, Any]:
    """`parse` and `link_names` are off: chat.update, unlike chat.postMessage, would find links and names by default."""
    return {"text": message.text, "blocks": message.blocks, "parse": "none", "link_names": False}


def _judged(response: Any) -> OrchestratorError:
    """The error for an answer that is not `ok`. `response` is the SDK's, or aiohttp's where the body was not JSON."""
    status = int(getattr(response, "status_code", 0) or getattr(response, "status", 0))
    headers = cast("Mapping[str, str]", getattr(response, "headers", {}))
    code = _field(response, "error")
    if status == 429:
        return throttled(headers.get("Retry-After"))
    if code and status < 500:
        return failure(code, needed=_field(response, "needed"), retry_after=headers.get("Retry-After"))
    return _without_code(status, "The API")


def _without_code(status: int, what: str) -> OrchestratorError:
    if status >= 500 or status == 408:
        return Unreachable(f"Slack is in trouble right now (HTTP {status}).")
    return Refused(f"{what} answered HTTP {status} and no error code: what SLACK_API_URL or SLACK_WEBHOOK_URL names is not Slack.")


def _field(response: Any, name: str) -> str:
    body = getattr(response, "data", None)
    value = cast("Mapping[str, Any]", body).get(name) if isinstance(body, Mapping) else None
    return value if isinstance(value, str) else ""


def _webhook_code(status: int, answer: str, retry_after: str | None, host: str) -> str:
    """Returns: `ok`, or the code at the start of a refusal. Raises: what an answer without a code means."""
    if status == 429:
        raise throttled(retry_after)
    if status == 200 and answer == "ok":
        return "ok"
    code = _CODE.match(answer)
    if code and 400 <= status < 500:
        return code.group()
    raise not_slack(host) if status == 200 else _without_code(status, "The webhook")
