"""A Slack on 127.0.0.1 that checks what Slack checks and keeps what it is told: Web API, incoming webhook, response URLs.

    async with SlackPeer() as slack:
        …  # SLACK_API_URL=slack.api_url, SLACK_BOT_TOKEN=slack.token, SLACK_SIGNING_SECRET=slack.signing_secret
        alert = slack.messages()[0]                      # top-level messages of #ops-alerts, oldest first
        card = slack.replies(alert)[0]
        body = slack.click(card, "approve_step")         # a request body; headers: signed_request(slack.signing_secret, body)

`slack.script("chat.postMessage", Throttle(2), Status(500))` makes the next calls of a method fail; `slack.calls` counts all calls,
failing ones included. The method of a post to the webhook is `webhook`, of one to a response URL `response_url`.
"""

import asyncio
import json
import re
from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from typing import Any, Self

from aiohttp import web

from tests.peers.slack_blocks import Fault, check_blocks
from tests.peers.slack_model import Behaviour, Channel, Drop, Ephemeral, Hang, PeerMessage, Refusal, Refuse, Status, Throttle
from tests.peers.slack_requests import TEAM_ID, block_actions, interaction_form, signed_request, slash_form

__all__ = [
    "Drop",
    "Hang",
    "PeerMessage",
    "Refuse",
    "SlackPeer",
    "Status",
    "Throttle",
    "block_actions",
    "interaction_form",
    "signed_request",
    "slash_form",
]


_SCOPE_OF = {
    "chat.postMessage": "chat:write",
    "chat.update": "chat:write",
    "chat.postEphemeral": "chat:write",
    "reactions.add": "reactions:write",
    "reactions.remove": "reactions:write",
    "auth.test": None,
}


class SlackPeer:
    """One workspace with the channels #ops-alerts (C0OPSALERT), #alerts (C0ALERTS01) and #archive (archived)."""

    def __init__(
        self, *, scopes: tuple[str, ...] = ("chat:write", "chat:write.public", "reactions:write", "commands"), port: int = 0
    ) -> None:
        self.token = "xoxb-1111-2222-peerPeerPeerPeer"
        self.signing_secret = "8f742231b10e8888abcd99yyyzzz85a5"
        self.scopes = scopes
        self.channels = {
            channel.id: channel
            for channel in (
                Channel("C0OPSALERT", "ops-alerts"),
                Channel("C0ALERTS01", "alerts"),
                Channel("C0ARCHIVE1", "archive", archived=True),
            )
        }
        self.outsiders: set[str] = set()
        """Users who are in no channel."""
        self.calls: Counter[str] = Counter()
        self.ephemerals: list[Ephemeral] = []
        self.responses: list[dict[str, Any]] = []
        """Bodies that were posted to response URLs."""
        self.refusals: list[str] = []
        """Why requests were refused that nobody scripted to be."""
        self._webhook_path = f"/services/{TEAM_ID}/B0HOOK0001/secretSecretSecretSecret"
        self._scripts: defaultdict[str, deque[Behaviour]] = defaultdict(deque)
        self._clock = 1_775_822_405
        self._port = port
        self._closing = asyncio.Event()
        self._runner: web.AppRunner | None = None

    # --- for tests ----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=4 * 1024 * 1024)
        app.router.add_post("/api/{method}", self._api)
        app.router.add_post("/services/{rest:.*}", self._webhook)
        app.router.add_post("/response/{rest:.*}", self._response)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        if self._runner:
            await self._runner.cleanup()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def api_url(self) -> str:
        return f"{self.base_url}/api/"

    @property
    def webhook_url(self) -> str:
        return f"{self.base_url}{self._webhook_path}"

    @property
    def response_url(self) -> str:
        return f"{self.base_url}/response/1"

    def script(self, method: str, *behaviours: Behaviour) -> None:
        """Let the next calls of `method` meet these, one each; afterwards it works again."""
        self._scripts[method].extend(behaviours)

    def messages(self, channel: str = "#ops-alerts") -> list[PeerMessage]:
        """The top-level messages of a channel, oldest first."""
        return [message for message in self._channel(channel).messages.values() if message.thread_ts is None]

    def replies(self, parent: PeerMessage) -> list[PeerMessage]:
        """The replies in the thread of a message, oldest first."""
        return [message for message in self.channels[parent.channel].messages.values() if message.thread_ts == parent.ts]

    def delete(self, message: PeerMessage) -> None:
        del self.channels[message.channel].messages[message.ts]

    def click(self, message: PeerMessage, action_id: str, *, user_id: str = "U0JANE0001", user_name: str = "jane") -> str:
        """Return the request body of a click on a button of `message`, to be signed. Raises LookupError without that button."""
        payload = block_actions(
            message.button(action_id),
            channel=message.channel,
            ts=message.ts,
            blocks=message.blocks,
            thread_ts=message.thread_ts,
            user_id=user_id,
            user_name=user_name,
            response_url=self.response_url,
        )
        return interaction_form(payload)

    # --- Web API ------------------------------------------------------------------------------------------------------

    async def _api(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        self.calls[method] += 1
        scripted = await self._scripted(method, request)
        if scripted is not None:
            return scripted
        headers = {"X-OAuth-Scopes": ",".join(self.scopes)}
        try:
            arguments = await self._arguments(request)
            self._authorise(method, request)
            answer = {"ok": True, **self._perform(method, arguments)}
        except Refusal as refusal:
            self.refusals.append(f"{method}: {refusal.code}")
            answer = {"ok": False, "error": refusal.code, **refusal.more}
        except Fault as fault:
            self.refusals.append(f"{method}: {fault}")
            answer = {"ok": False, "error": fault.code, "response_metadata": {"messages": [str(fault)]}}
        return web.json_response(answer, headers=headers)

    async def _arguments(self, request: web.Request) -> dict[str, Any]:
        if request.content_type == "application/json":
            try:
                body = json.loads(await request.text())
            except ValueError:
                raise Refusal("invalid_json") from None
            if not isinstance(body, dict):
                raise Refusal("json_not_object")
            if any(value is None for value in body.values()):
                raise Refusal("invalid_arguments")
            return {**request.query, **body}
        if request.content_type == "application/x-www-form-urlencoded":
            return {**request.query, **(await request.post())}
        raise Refusal("invalid_post_type")

    def _authorise(self, method: str, request: web.Request) -> None:
        if method not in _SCOPE_OF:
            raise Refusal("unknown_method")
        header = request.headers.get("Authorization", "")
        if not header:
            raise Refusal("not_authed")
        if header != f"Bearer {self.token}":
            raise Refusal("invalid_auth")
        needed = _SCOPE_OF[method]
        if needed and needed not in self.scopes:
            raise Refusal("missing_scope", {"needed": needed, "provided": ",".join(self.scopes)})

    def _perform(self, method: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        match method:
            case "chat.postMessage":
                message = self._post(arguments)
                return {"channel": message.channel, "ts": message.ts, "message": {"text": message.text, "ts": message.ts}}
            case "chat.update":
                message = self._update(arguments)
                return {"channel": message.channel, "ts": message.ts, "text": message.text}
            case "chat.postEphemeral":
                return self._post_ephemeral(arguments)
            case "reactions.add" | "reactions.remove":
                return self._react(method, arguments)
            case _:
                return {
                    "url": "https://acme.slack.com/",
                    "team": "Acme",
                    "user": "infrasage",
                    "team_id": TEAM_ID,
                    "user_id": "U0BOT00001",
                }

    def _post(self, arguments: Mapping[str, Any]) -> PeerMessage:
        channel = self._writable(str(arguments.get("channel", "")))
        thread_ts = arguments.get("thread_ts")
        if thread_ts is not None and thread_ts not in channel.messages:
            raise Refusal("thread_not_found")
        return self._add(channel, arguments, thread_ts=thread_ts)

    def _add(
        self, channel: Channel, arguments: Mapping[str, Any], *, thread_ts: str | None = None, by_webhook: bool = False
    ) -> PeerMessage:
        text, blocks = _content(arguments, 40_000)
        self._clock += 1
        message = PeerMessage(
            channel=channel.id,
            ts=f"{self._clock}.{len(channel.messages):06d}",
            text=text,
            blocks=blocks,
            thread_ts=thread_ts,
            by_webhook=by_webhook,
            request=dict(arguments),
        )
        channel.messages[message.ts] = message
        return message

    def _update(self, arguments: Mapping[str, Any]) -> PeerMessage:
        message = self._message(arguments, "ts")
        if message.by_webhook:
            raise Refusal("cant_update_message")
        message.text, message.blocks = _content(arguments, 4_000)
        message.request = dict(arguments)
        message.edits += 1
        return message

    def _post_ephemeral(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        channel = self._writable(str(arguments.get("channel", "")))
        user = str(arguments.get("user", ""))
        if not re.fullmatch(r"[UW][A-Z0-9]{2,}", user):
            raise Refusal("user_not_found")
        if user in self.outsiders:
            raise Refusal("user_not_in_channel")
        text, blocks = _content(arguments, 40_000)
        self.ephemerals.append(Ephemeral(channel=channel.id, user=user, text=text, blocks=blocks))
        self._clock += 1
        return {"message_ts": f"{self._clock}.000000"}

    def _react(self, method: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        name = str(arguments.get("name", ""))
        if not re.fullmatch(r"[a-z0-9_+'-]{1,100}", name):
            raise Refusal("invalid_name")
        message = self._message(arguments, "timestamp")
        if method == "reactions.add":
            if name in message.reactions:
                raise Refusal("already_reacted")
            message.reactions.add(name)
        elif name in message.reactions:
            message.reactions.remove(name)
        else:
            raise Refusal("no_reaction")
        return {}

    def _message(self, arguments: Mapping[str, Any], key: str) -> PeerMessage:
        channel = self.channels.get(str(arguments.get("channel", "")))  # these methods take ids only
        if channel is None:
            raise Refusal("channel_not_found")
        message = channel.messages.get(str(arguments.get(key, "")))
        if message is None:
            raise Refusal("message_not_found")
        return message

    def _channel(self, name_or_id: str) -> Channel:
        for channel in self.channels.values():
            if name_or_id in (channel.id, channel.name, f"#{channel.name}"):
                return channel
        raise Refusal("channel_not_found")

    def _writable(self, name_or_id: str) -> Channel:
        channel = self._channel(name_or_id)
        if channel.archived:
            raise Refusal("is_archived")
        if not channel.bot_is_member and channel.private:
            raise Refusal("channel_not_found")
        if not channel.bot_is_member and "chat:write.public" not in self.scopes:
            raise Refusal("not_in_channel")
        return channel

    # --- incoming webhook and response URLs ------------------------------------------------------------------------------

    async def _webhook(self, request: web.Request) -> web.StreamResponse:
        self.calls["webhook"] += 1
        scripted = await self._scripted("webhook", request)
        if scripted is not None:
            return scripted
        if request.path != self._webhook_path:
            return web.Response(status=404, text="no_service")
        try:
            arguments = json.loads(await request.text())
            channel = self._channel(str(arguments.get("channel", "#ops-alerts")))
            if channel.archived:
                return web.Response(status=410, text="channel_is_archived")
            self._add(channel, arguments, by_webhook=True)
        except (ValueError, AttributeError):
            return web.Response(status=400, text="invalid_payload")
        except (Refusal, Fault) as refusal:
            self.refusals.append(f"webhook: {refusal}")
            return web.Response(status=404 if refusal.code == "channel_not_found" else 400, text=refusal.code)
        return web.Response(text="ok")

    async def _response(self, request: web.Request) -> web.StreamResponse:
        self.calls["response_url"] += 1
        scripted = await self._scripted("response_url", request)
        if scripted is not None:
            return scripted
        self.responses.append(json.loads(await request.text()))
        return web.Response(text="ok")

    async def _scripted(self, method: str, request: web.Request) -> web.StreamResponse | None:
        behaviour = self._scripts[method].popleft() if self._scripts[method] else None
        match behaviour:
            case Throttle(retry_after):
                headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
                return web.json_response({"ok": False, "error": "ratelimited"}, status=429, headers=headers)
            case Status(status, body, content_type):
                return web.Response(status=status, text=body, content_type=content_type)
            case Refuse(code, more, status):
                if method == "webhook":
                    return web.Response(status=400 if status == 200 else status, text=code)
                return web.json_response({"ok": False, "error": code, **more}, status=status)
            case Hang():
                await self._closing.wait()
                return web.Response(status=503)
            case Drop():
                if request.transport:
                    request.transport.abort()
                return web.Response(status=503)
            case None:
                return None


def _content(arguments: Mapping[str, Any], text_limit: int) -> tuple[str, list[dict[str, Any]]]:
    """The text and blocks of a request. Raises: Refusal, Fault."""
    text, blocks = arguments.get("text", ""), arguments.get("blocks", [])
    if isinstance(blocks, str):
        blocks = json.loads(blocks)
    if not isinstance(text, str) or (not text.strip() and not blocks):
        raise Refusal("no_text")
    if len(text.encode("utf-16-le")) // 2 > text_limit:
        raise Refusal("msg_too_long")
    check_blocks(blocks)
    return text, blocks
