"""What Slack's refusals mean: which may pass, which will not, and what somebody can do about those."""

from collections.abc import Mapping
from datetime import timedelta

from activities.errors import OrchestratorError, RateLimited, Refused, Unreachable, clip
from activities.messages.foreign import one_line

MAX_RETRY_AFTER = timedelta(hours=1)
"""Longest wait that is believed; Slack asks for seconds."""

CODE_CHARACTERS = 100

PASSING = frozenset(
    {
        "fatal_error",
        "internal_error",
        "org_login_required",
        "request_timeout",
        "rollup_error",
        "service_unavailable",
        "team_added_to_org",
        "update_failed",
    }
)
"""Codes of trouble on Slack's own side: docs.slack.dev/reference/methods/chat.postMessage#errors; `rollup_error` is a webhook's."""

THROTTLED = frozenset({"ratelimited", "rate_limited"})

_TOKEN = "Set SLACK_BOT_TOKEN to the bot token (xoxb-…) of the app as installed in this workspace."  # noqa: S105  # a sentence
_WEBHOOK = "Create a new incoming webhook and set SLACK_WEBHOOK_URL to its URL."
_CONTENT = "This is a fault in how the message was built; please report it."

REMEDIES: Mapping[str, str] = {
    "invalid_auth": _TOKEN,
    "not_authed": _TOKEN,
    "token_revoked": _TOKEN,
    "token_expired": _TOKEN,
    "account_inactive": _TOKEN,
    "not_allowed_token_type": _TOKEN,
    "channel_not_found": "Check the channel's name or id; a private channel also needs the bot invited to it.",
    "not_in_channel": "Invite the bot to the channel, or give the app the scope chat:write.public.",
    "is_archived": "Unarchive the channel, or name another one.",
    "channel_is_archived": "Unarchive the channel, or name another one.",
    "restricted_action": "A workspace setting keeps apps from posting there; ask a workspace admin, or name another channel.",
    "action_prohibited": "A workspace setting keeps webhooks from posting there; ask a workspace admin.",
    "msg_too_long": _CONTENT,
    "msg_blocks_too_long": _CONTENT,
    "invalid_blocks": _CONTENT,
    "invalid_blocks_format": _CONTENT,
    "invalid_payload": _CONTENT,
    "no_text": _CONTENT,
    "message_not_found": "The message was deleted.",
    "thread_not_found": "The message at the head of the thread was deleted.",
    "cant_update_message": "Only the bot that posted a message can change it.",
    "edit_window_closed": "A workspace setting limits how long messages can be changed.",
    "user_not_in_channel": "The person is not in that channel, so nothing can be shown to them alone there.",
    "no_service": _WEBHOOK,
    "no_service_id": _WEBHOOK,
    "no_active_hooks": _WEBHOOK,
    "no_team": _WEBHOOK,
    "team_disabled": _WEBHOOK,
    "invalid_token": _WEBHOOK,
}
"""Code → what to do, one sentence."""


def failure(code: str, *, needed: str = "", retry_after: str | None = None) -> OrchestratorError:
    """The error for a code of Slack's, to be raised; `needed` names the scope that `missing_scope` is about."""
    code = one_line(code, CODE_CHARACTERS) or "no error code"
    if code in THROTTLED:
        return throttled(retry_after)
    if code in PASSING:
        return Unreachable(f"Slack could not do it right now ({code}).")
    if code == "missing_scope":
        scope = one_line(needed, CODE_CHARACTERS) or "it needs"
        return Refused(f"Slack refused: missing_scope. Add the scope {scope} to the app and install it again.")
    return Refused(clip(f"Slack refused: {code}. {REMEDIES.get(code, '')}".strip()))


def throttled(retry_after: str | None) -> RateLimited:
    """The error for HTTP 429. `retry_after` is the header, in seconds; what is not a number of seconds is ignored."""
    text = (retry_after or "").strip()
    wait = min(timedelta(seconds=int(text)), MAX_RETRY_AFTER) if text.isascii() and text.isdigit() and len(text) < 9 else None
    return RateLimited("Slack asked to slow down" + (f" for {wait.total_seconds():g} s." if wait else "."), retry_after=wait)


def not_slack(host: str) -> OrchestratorError:
    """The error for an answer that Slack would not give: a login page, another server."""
    return Refused(f"{host} answered, but not as Slack does: check SLACK_API_URL, SLACK_BOT_TOKEN or SLACK_WEBHOOK_URL.")
