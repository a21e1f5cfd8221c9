"""Clicks raced against the deadline of their approval, on the real server: none that is late counts, none counts twice.

Every incident gets its clicks spread over the moment of its deadline. What the audit log says and what became of the run
must agree.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

import httpx

from activities.messages.approval import encode_ref
from domain.approval import ApprovalRef
from tests.e2e.harness import Json, RunningStack, actions, has_ended, open_step, write_runbook
from tests.peers.slack import SlackPeer, block_actions, interaction_form, signed_request

INCIDENTS = 20
CLICKS = 10
"""For each incident: 200 in all."""

TIMEOUT_MINUTES = 0.1
SPREAD_SECONDS = 0.1
"""The clicks of one incident lie this far around its deadline."""


@dataclass(frozen=True)
class Ended:
    """What became of one raced approval."""

    deadline_at: datetime
    approval: str
    run: str
    rows: Sequence[Json]


def faults(ended: Ended) -> list[str]:
    """What must never be; empty when the approval was decided once, in time, or not at all."""
    said = actions(ended.rows)
    outcomes = [row for row in ended.rows if row["action"] in ("approval.approved", "approval.rejected", "approval.expired")]
    found: list[str] = []
    if len(outcomes) != 1:
        found.append(f"decided {len(outcomes)} times")
    found += [
        f"accepted a click that was received {row['detail']['received_at']}, after the deadline"
        for row in outcomes
        if row["action"] != "approval.expired" and datetime.fromisoformat(row["detail"]["received_at"]) >= ended.deadline_at
    ]
    if [f"approval.{ended.approval}"] != [row["action"] for row in outcomes]:
        found.append(f"is shown as {ended.approval}, and the audit log says otherwise")
    ran = said.count("step.succeeded")
    if (ended.approval, ended.run, ran) not in (("approved", "succeeded", 1), ("rejected", "halted", 0), ("expired", "halted", 0)):
        found.append(f"was {ended.approval}, but its run {ended.run} after {ran} steps")
    return found


async def test_two_hundred_clicks_around_their_deadlines_are_never_accepted_late_and_never_twice(
    stack: RunningStack, slack: SlackPeer
) -> None:
    service = f"service-{uuid4().hex[:8]}"
    step = {"type": "slack", "message": "decided in time", "require_approval": True, "approval_timeout_minutes": TIMEOUT_MINUTES}
    write_runbook(stack.runbooks, {"name": f"race-{service}", "trigger": {"service_id": service}, "steps": [step]})

    raced = await asyncio.gather(*(_race(stack, slack, service, number) for number in range(INCIDENTS)))

    answers = [status for _, statuses in raced for status in statuses]
    assert answers == [200] * INCIDENTS * CLICKS
    assert [fault for ended, _ in raced for fault in faults(ended)] == []
    # Both sides of the deadline were really hit, or the race proved nothing.
    outcomes = Counter(ended.approval for ended, _ in raced)
    assert outcomes["approved"] + outcomes["rejected"] > 0, outcomes
    assert sum(actions(ended.rows).count("approval.refused") for ended, _ in raced) > 0


async def _race(stack: RunningStack, slack: SlackPeer, service: str, number: int) -> tuple[Ended, list[int]]:
    await asyncio.sleep(number * TIMEOUT_MINUTES * 60 / INCIDENTS / 2)  # apart, so that no two deadlines coincide
    incident_id = await stack.fire(service_id=service)
    story = await stack.until(incident_id, lambda seen: _deadline(seen))
    deadline = datetime.fromisoformat(_deadline(story))
    run_id = story["runbooks"][0]["workflow_id"]
    step = open_step(story)
    assert step is not None
    button = encode_ref(run_id, ApprovalRef.model_validate(step["approval"]["ref"]))
    # Half of the races can be won by a click before the deadline; in the other half every click comes at it or after it.
    first = deadline.timestamp() - (SPREAD_SECONDS if number % 2 else 0)
    async with stack.client() as http:
        clicks = (_click(http, slack, button, first + 2 * SPREAD_SECONDS * click / CLICKS, click) for click in range(CLICKS))
        statuses = await asyncio.gather(*clicks)
    story = await stack.until(incident_id, has_ended)
    rows = await stack.audit(incident_id, until="runbook.finished")
    run = story["runbooks"][0]
    return Ended(deadline, run["steps"][0]["approval"]["status"], run["status"], rows), statuses


def _deadline(story: Json) -> str:
    step = open_step(story)
    return (step and step["approval"]["deadline_at"]) or ""


async def _click(http: httpx.AsyncClient, slack: SlackPeer, button: str, at: float, number: int) -> int:
    action = {"type": "button", "action_id": "approve_step" if number % 2 else "reject_step", "value": button}
    await asyncio.sleep(max(0.0, at - time.time()))
    body = interaction_form(block_actions(action, channel="C0OPSALERT", ts="1775822405.000000", user_id=f"U0RACER{number:03}"))
    answer = await http.post("/api/v1/slack/interactions", content=body, headers=signed_request(slack.signing_secret, body))
    return answer.status_code


def _row(action: str, **detail: str) -> Json:
    return {"action": action, "detail": detail}


DEADLINE = datetime.fromisoformat("2026-04-10T12:10:00+00:00")
IN_TIME = "2026-04-10T12:09:59.999999+00:00"
LATE = "2026-04-10T12:10:00+00:00"


def test_the_judge_of_the_race_lets_pass_what_is_right() -> None:
    approved = [_row("approval.approved", received_at=IN_TIME), _row("step.succeeded")]
    assert faults(Ended(DEADLINE, "approved", "succeeded", approved)) == []
    assert faults(Ended(DEADLINE, "expired", "halted", [_row("approval.expired"), _row("approval.refused")])) == []


def test_the_judge_of_the_race_finds_each_kind_of_wrong() -> None:
    late = [_row("approval.approved", received_at=LATE), _row("step.succeeded")]
    twice = [_row("approval.approved", received_at=IN_TIME), _row("approval.rejected", received_at=IN_TIME), _row("step.succeeded")]
    expired_but_ran = [_row("approval.expired"), _row("step.succeeded")]
    assert "after the deadline" in faults(Ended(DEADLINE, "approved", "succeeded", late))[0]
    assert "decided 2 times" in faults(Ended(DEADLINE, "approved", "succeeded", twice))[0]
    assert faults(Ended(DEADLINE, "expired", "succeeded", expired_but_ran)) != []
    assert faults(Ended(DEADLINE, "approved", "succeeded", [_row("approval.expired"), _row("step.succeeded")])) != []
