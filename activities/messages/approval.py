"""The approval card: the request with its buttons, the same card with its outcome, and what a button carries."""

import json
import re
from collections.abc import Iterable
from typing import Any, cast

from slack_sdk.models.blocks import Block

from activities.messages.figures import duration, instant
from activities.messages.foreign import escaped, one_line
from activities.messages.parts import (
    SlackMessage,
    Surroundings,
    button,
    buttons,
    divider,
    footnote,
    header,
    incident_url,
    lines,
    marked,
    markup,
    message,
)
from domain.approval import ApprovalRef, ApprovalStatus
from domain.base import Actor, Source
from domain.narration import ApprovalCard

APPROVE_ACTION = "approve_step"
REJECT_ACTION = "reject_step"

VALUE_LIMIT_CHARACTERS = 2_000
"""Of a button's value (docs.slack.dev/reference/block-kit/block-elements/button-element)."""

NAME_LIMIT = 200
TITLE_LIMIT = 500
CHANGE_LIMIT = 2_000
FACT_LABEL_LIMIT = 60
FACT_LIMIT = 300
FACTS_SHOWN = 10
REASON_LIMIT = 800

_WORKFLOW_ID = re.compile(r"[!-~]{1,300}")
_DIGEST = re.compile(r"[!-~]{1,128}")

_HEADERS = {
    ApprovalStatus.OPEN: "⚡ Runbook Approval Required",
    ApprovalStatus.APPROVED: "✅ Runbook Approval — Approved",
    ApprovalStatus.REJECTED: "❌ Runbook Approval — Rejected",
    ApprovalStatus.EXPIRED: "⌛ Runbook Approval — Expired",
    ApprovalStatus.CANCELLED: "🚫 Runbook Approval — Cancelled",
}


def encode_ref(workflow_id: str, ref: ApprovalRef) -> str:
    """What the approve and reject buttons carry: compact JSON of the run and the request that the click is about.

    Raises: ValueError when it could not be decoded again, or is too long for a button.
    """
    value = json.dumps({"w": workflow_id, "s": ref.step, "r": ref.round, "d": ref.digest}, separators=(",", ":"))
    if len(value) > VALUE_LIMIT_CHARACTERS or not _is_sound(workflow_id, ref):
        raise ValueError("an approval button needs a workflow id of 1 to 300 and a digest of 1 to 128 printable ASCII characters")
    return value


def decode_ref(value: str) -> tuple[str, ApprovalRef]:
    """Read a button's value. Returns: the workflow id and the request.

    Raises: ValueError for anything that `encode_ref` does not write.
    """
    try:
        workflow_id, ref = _parsed(value)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError("that button carries no approval request of this system") from None
    return workflow_id, ref


def approval_message(card: ApprovalCard, surroundings: Surroundings) -> SlackMessage:
    """Draw the card: with its buttons while it is open, with its outcome afterwards."""
    blocks: list[Block] = [header(_HEADERS[card.status]), divider(), *lines(_facts(card))]
    if card.status is ApprovalStatus.OPEN:
        blocks += _request(card, surroundings)
    else:
        blocks += [marked(*_outcome(card)), *_reason(card)]
    return message(blocks)


def outcome_message(card: ApprovalCard) -> SlackMessage:
    """The outcome of a card in a few lines, for where the card itself cannot be changed (a webhook)."""
    what = f"{one_line(card.runbook, NAME_LIMIT)} — step {card.step}/{card.step_count}: {one_line(card.title, TITLE_LIMIT)}"
    return message([marked(*_outcome(card)), *lines([what]), *_reason(card)])


def _facts(card: ApprovalCard) -> list[str]:
    texts = [
        f"Runbook: {one_line(card.runbook, NAME_LIMIT)}",
        f"Service: {one_line(card.service_id, NAME_LIMIT)}",
        f"Step {card.step}/{card.step_count}: {one_line(card.title, TITLE_LIMIT)}",
    ]
    if change := one_line(card.change, CHANGE_LIMIT):
        texts.append(f"Change: {change}")
        if change != one_line(card.change, 2 * CHANGE_LIMIT):
            texts.append("The change is longer than Slack can show: read all of it in InfraSage before you decide.")
    facts = [(one_line(fact.label, FACT_LABEL_LIMIT), one_line(fact.value, FACT_LIMIT)) for fact in card.facts]
    shown = [(name, value) for name, value in facts if name and value]
    texts += [f"{name}: {value}" for name, value in shown[:FACTS_SHOWN]]
    if len(shown) > FACTS_SHOWN:
        texts.append(f"… and {len(shown) - FACTS_SHOWN} more facts in InfraSage")
    environment = one_line(card.environment or "", NAME_LIMIT)
    if environment and environment not in (value for _, value in shown):
        texts.append(f"Environment: {environment}")
    return texts


def _request(card: ApprovalCard, surroundings: Surroundings) -> Iterable[Block]:
    if card.recovered_at:
        yield marked(
            "ℹ️", f"The source reported at {instant(card.recovered_at)} that the anomaly is over. Is the step still needed?"
        )
    if surroundings.interactive:
        value = encode_ref(card.workflow_id, card.ref)
        yield buttons(
            button("✅ Approve", APPROVE_ACTION, value, "primary"),
            button("❌ Reject", REJECT_ACTION, value, "danger"),
        )
    else:
        yield markup(_how_to_decide(card.incident_id, surroundings.console_url))
    until = f" — open until {instant(card.deadline_at)}" if card.deadline_at else ""
    yield footnote(f"⏱ Timeout in {duration(card.timeout)} (then: {one_line(card.on_timeout, NAME_LIMIT)}){until}")


def _how_to_decide(incident_id: str, console_url: str) -> str:
    page = escaped(incident_url(console_url, incident_id).replace("|", "%7C"))
    return f"Decide in <{page}|InfraSage> or with `infrasage approve {escaped(one_line(incident_id, NAME_LIMIT))}`"


def _outcome(card: ApprovalCard) -> tuple[str, str]:
    when = f" at {instant(card.decided_at)}" if card.decided_at else ""
    match card.status:
        case ApprovalStatus.APPROVED:
            return "✅", f"Approved{_by(card.decided_by)}{when}"
        case ApprovalStatus.REJECTED:
            return "❌", f"Rejected{_by(card.decided_by)}{when}"
        case ApprovalStatus.EXPIRED:
            at = f" at {instant(card.deadline_at)}" if card.deadline_at else ""
            then = one_line(card.on_timeout, NAME_LIMIT)
            return "⌛", f"Expired{at}: nobody decided within {duration(card.timeout)} (then: {then})"
        case ApprovalStatus.CANCELLED:
            return "🚫", f"Cancelled{_by(card.decided_by)}{when}"
        case ApprovalStatus.OPEN:
            return "⏱", "Open"


def _by(actor: Actor | None) -> str:
    if actor is None:
        return ""
    where = "" if actor.source in (Source.SLACK, Source.SYSTEM) else f" ({actor.source.value})"
    return f" by {one_line(actor.name, NAME_LIMIT) or one_line(actor.id, NAME_LIMIT)}{where}"


def _reason(card: ApprovalCard) -> Iterable[Block]:
    if reason := one_line(card.reason, REASON_LIMIT):
        name = "Note" if card.status is ApprovalStatus.APPROVED else "Reason"
        yield from lines([f"{name}: {reason}"])


def _parsed(value: str) -> tuple[str, ApprovalRef]:
    if len(value) > VALUE_LIMIT_CHARACTERS:
        raise ValueError
    fields = cast("dict[str, Any]", json.loads(value))
    workflow_id = fields["w"]
    ref = ApprovalRef(step=fields["s"], round=fields["r"], digest=fields["d"])
    if encode_ref(workflow_id, ref) != value:  # another type, more keys, another order, spaces: not ours
        raise ValueError
    return workflow_id, ref


def _is_sound(workflow_id: str, ref: ApprovalRef) -> bool:
    return bool(_WORKFLOW_ID.fullmatch(workflow_id) and _DIGEST.fullmatch(ref.digest) and ref.step >= 1 and ref.round >= 1)
