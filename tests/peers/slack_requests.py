"""What Slack sends to an app: signed requests with clicks and slash commands, field for field as Slack sends them."""

import hashlib
import hmac
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

TEAM_ID = "T0TEAM0001"
TEAM_DOMAIN = "acme"
APP_ID = "A0APP00001"
FORM = "application/x-www-form-urlencoded"


def signed_request(secret: str, body: str | bytes, timestamp: int | str | None = None) -> dict[str, str]:
    """Return the headers of a request from Slack: the signature of `body` at `timestamp` (Unix seconds; default now)."""
    at = str(int(time.time()) if timestamp is None else timestamp)
    raw = body.encode() if isinstance(body, str) else body
    digest = hmac.new(secret.encode(), b"v0:" + at.encode() + b":" + raw, hashlib.sha256).hexdigest()
    return {"Content-Type": FORM, "X-Slack-Request-Timestamp": at, "X-Slack-Signature": f"v0={digest}"}


def block_actions(
    action: Mapping[str, Any],
    *,
    channel: str,
    ts: str,
    blocks: Sequence[Mapping[str, Any]] = (),
    thread_ts: str | None = None,
    user_id: str = "U0JANE0001",
    user_name: str = "jane",
    response_url: str = "https://hooks.slack.com/actions/T0TEAM0001/1/x",
) -> dict[str, Any]:
    """Return the payload of a click on `action`, a button as it stands in the blocks of the message `channel`/`ts`."""
    now = f"{time.time():.6f}"
    message = {
        "type": "message",
        "subtype": "bot_message",
        "text": "",
        "ts": ts,
        "bot_id": "B0BOT00001",
        "app_id": APP_ID,
        "team": TEAM_ID,
        "blocks": list(blocks),
        **({"thread_ts": thread_ts, "parent_user_id": "U0BOT00001"} if thread_ts else {}),
    }
    container = {"type": "message", "message_ts": ts, "channel_id": channel, "is_ephemeral": False}
    return {
        "type": "block_actions",
        "user": {"id": user_id, "username": user_name, "name": user_name, "team_id": TEAM_ID},
        "api_app_id": APP_ID,
        "token": "deprecated-verification-token",
        "container": {**container, "thread_ts": thread_ts} if thread_ts else container,
        "trigger_id": f"{now.replace('.', '')}.{TEAM_ID}.0123456789abcdef",
        "team": {"id": TEAM_ID, "domain": TEAM_DOMAIN},
        "enterprise": None,
        "is_enterprise_install": False,
        "channel": {"id": channel, "name": "ops-alerts"},
        "message": message,
        "state": {"values": {}},
        "response_url": response_url,
        "actions": [{**action, "block_id": action.get("block_id", "b1"), "action_ts": now}],
    }


def interaction_form(payload: Mapping[str, Any]) -> str:
    """Return the body of the request that brings an interaction."""
    return urlencode({"payload": json.dumps(payload)})


def slash_form(
    text: str,
    *,
    command: str = "/infrasage",
    channel: str = "C0OPSALERT",
    user_id: str = "U0JANE0001",
    user_name: str = "jane",
    response_url: str = "https://hooks.slack.com/commands/T0TEAM0001/1/x",
) -> str:
    """Return the body of the request that brings a slash command; `text` is what stands behind the command."""
    return urlencode(
        {
            "token": "deprecated-verification-token",
            "team_id": TEAM_ID,
            "team_domain": TEAM_DOMAIN,
            "channel_id": channel,
            "channel_name": "ops-alerts",
            "user_id": user_id,
            "user_name": user_name,
            "command": command,
            "text": text,
            "api_app_id": APP_ID,
            "is_enterprise_install": "false",
            "response_url": response_url,
            "trigger_id": "1.2.0123456789abcdef",
        }
    )
