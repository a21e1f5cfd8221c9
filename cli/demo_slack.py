"""A Slack on loopback for `make demo`: it takes what the bot posts and keeps it, so that the demo can show the channel.

It checks nothing and knows no limits: what Slack refuses is found out by the tests, against a stricter one.
"""

from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, cast

from aiohttp import web

CHANNEL = "#ops-alerts"
CHANNEL_ID = "C0DEMO0001"
TOKEN = "xoxb-demo"  # noqa: S105 of no use anywhere
SIGNING_SECRET = "no-click-is-signed-in-the-demo"  # noqa: S105 as above


@dataclass
class Posted:
    """A message as the channel shows it now."""

    ts: str
    thread_ts: str | None
    blocks: list[dict[str, Any]]
    reactions: list[str] = field(default_factory=list[str])


class DemoSlack:
    """`async with DemoSlack() as slack`; `slack.messages` is the channel, oldest first."""

    def __init__(self) -> None:
        self.messages: list[Posted] = []
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/api/{method}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def api_url(self) -> str:
        """For SLACK_API_URL. Raises: RuntimeError outside of `async with`."""
        if self._runner is None:
            raise RuntimeError("the demo's Slack is not running")
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/api/"

    def alerts(self) -> list[Posted]:
        """What was posted to the channel itself."""
        return [item for item in self.messages if item.thread_ts is None]

    def thread(self, parent: Posted) -> list[Posted]:
        """The replies to a message."""
        return [item for item in self.messages if item.thread_ts == parent.ts]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        sent = cast("dict[str, Any]", await request.json()) if request.content_type == "application/json" else {}
        body: dict[str, Any] = {**request.query, **sent}
        posted: Posted | None = None
        match request.match_info["method"]:
            case "chat.postMessage":
                posted = Posted(f"{1_775_822_405 + len(self.messages)}.000000", body.get("thread_ts"), body["blocks"])
                self.messages.append(posted)
            case "chat.update":
                posted = self._find(body["ts"])
                posted.blocks = body["blocks"]
            case "reactions.add":
                self._find(body["timestamp"]).reactions.append(body["name"])
            case "reactions.remove":
                reactions = self._find(body["timestamp"]).reactions
                reactions[:] = [name for name in reactions if name != body["name"]]
            case _:
                return web.json_response({"ok": False, "error": "unknown_method"})
        return web.json_response({"ok": True, "channel": CHANNEL_ID, "ts": posted.ts if posted else None})

    def _find(self, ts: str) -> Posted:
        return next(item for item in self.messages if item.ts == ts)
