"""The approval card in each of its states, and what its buttons carry."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.messages.approval import approval_message, decode_ref, encode_ref, outcome_message
from activities.messages.parts import Surroundings
from activities.messages.terminal import to_text
from domain.approval import ApprovalRef, ApprovalStatus
from domain.base import Actor, Source
from domain.narration import ApprovalCard
from domain.plan import Fact
from tests.peers.slack_blocks import check_blocks
from tests.peers.slack_samples import CONSOLE, JANE, sample_card

BOT = Surroundings(CONSOLE, interactive=True)
WEBHOOK = Surroundings(CONSOLE, interactive=False)
AT = datetime(2026, 4, 10, 12, 1, 10, tzinfo=UTC)
DEADLINE = datetime(2026, 4, 10, 12, 10, 5, tzinfo=UTC)

FACTS = """\
────────────────────────────────
Runbook: scale-out-payment-api
Service: payment-api
Step 2/3: Scale deployment to 5 replicas
Change: replicas 3 → 5
Namespace: production"""


def card(**changes: object) -> ApprovalCard:
    return sample_card().model_copy(update=changes)


def shown(request: ApprovalCard, surroundings: Surroundings = BOT) -> str:
    message = approval_message(request, surroundings)
    check_blocks(message.blocks)
    return to_text(message.blocks)


def kinds(request: ApprovalCard, surroundings: Surroundings = BOT) -> list[str]:
    return [block["type"] for block in approval_message(request, surroundings).blocks]


def test_the_request_reads_as_on_the_page_with_the_change_in_it() -> None:
    assert shown(sample_card()) == (
        f"⚡ Runbook Approval Required\n{FACTS}\n[✅ Approve] [❌ Reject]\n⏱ Timeout in 10 minutes (then: halt)"
    )


def test_both_buttons_carry_the_run_and_the_request_and_nothing_else_tells_them_apart() -> None:
    (actions,) = [block for block in approval_message(sample_card(), BOT).blocks if block["type"] == "actions"]
    approve, reject = actions["elements"]
    assert (approve["action_id"], reject["action_id"]) == ("approve_step", "reject_step")
    assert approve["value"] == reject["value"]
    assert decode_ref(approve["value"]) == ("anom-7f3d/scale-out-payment-api", sample_card().ref)


def test_the_environment_is_named_where_no_fact_names_it() -> None:
    assert "Environment: production" in shown(card(facts=()))
    assert "Environment" not in shown(sample_card())


def test_a_known_deadline_is_shown_beside_the_timeout() -> None:
    assert shown(card(deadline_at=DEADLINE)).endswith("⏱ Timeout in 10 minutes (then: halt) — open until 2026-04-10 12:10:05 UTC")


def test_an_approved_card_says_who_and_when_and_has_no_buttons() -> None:
    decided = card(status=ApprovalStatus.APPROVED, decided_by=JANE, decided_at=AT)
    assert shown(decided) == f"✅ Runbook Approval — Approved\n{FACTS}\n✅ Approved by Jane Doe at 2026-04-10 12:01:10 UTC"
    assert "actions" not in kinds(decided)


def test_a_rejected_card_gives_the_reason() -> None:
    decided = card(status=ApprovalStatus.REJECTED, decided_by=JANE, decided_at=AT, reason="not during\nthe sale")
    assert shown(decided).splitlines()[-2:] == [
        "❌ Rejected by Jane Doe at 2026-04-10 12:01:10 UTC",
        "Reason: not during ⏎ the sale",
    ]
    assert "actions" not in kinds(decided)


def test_an_expired_card_blames_nobody_and_is_not_called_rejected() -> None:
    expired = card(status=ApprovalStatus.EXPIRED, deadline_at=DEADLINE)
    text = shown(expired)
    assert text.startswith("⌛ Runbook Approval — Expired\n")
    assert text.endswith("⌛ Expired at 2026-04-10 12:10:05 UTC: nobody decided within 10 minutes (then: halt)")
    assert "ejected" not in text
    assert "actions" not in kinds(expired)


def test_a_cancelled_card_names_why() -> None:
    cancelled = card(status=ApprovalStatus.CANCELLED, reason="the incident was resolved")
    assert shown(cancelled).splitlines()[-2:] == ["🚫 Cancelled", "Reason: the incident was resolved"]
    assert "actions" not in kinds(cancelled)


@pytest.mark.parametrize("source", [Source.API, Source.CLI, Source.CONSOLE])
def test_a_decision_from_outside_slack_says_from_where(source: Source) -> None:
    by = Actor(id="key:ops", name="ops", source=source)
    assert f"Approved by ops ({source.value}) at" in shown(card(status=ApprovalStatus.APPROVED, decided_by=by, decided_at=AT))


def test_recovery_is_shown_on_an_open_card_and_leaves_the_decision_open() -> None:
    text = shown(card(recovered_at=AT))
    assert "ℹ️ The source reported at 2026-04-10 12:01:10 UTC that the anomaly is over." in text
    assert "[✅ Approve] [❌ Reject]" in text
    assert "anomaly is over" not in shown(card(recovered_at=AT, status=ApprovalStatus.APPROVED, decided_by=JANE, decided_at=AT))


def test_with_a_webhook_the_card_says_how_to_decide_in_place_of_buttons() -> None:
    assert "actions" not in kinds(sample_card(), WEBHOOK)
    assert shown(sample_card(), WEBHOOK).splitlines()[-2:] == [
        "Decide in InfraSage (http://localhost:9093/incidents/anom-7f3d) or with infrasage approve anom-7f3d",
        "⏱ Timeout in 10 minutes (then: halt)",
    ]


def test_an_outcome_by_webhook_is_short_and_names_the_step() -> None:
    decided = card(status=ApprovalStatus.REJECTED, decided_by=JANE, decided_at=AT, reason="no")
    assert to_text(outcome_message(decided).blocks).splitlines() == [
        "❌ Rejected by Jane Doe at 2026-04-10 12:01:10 UTC",
        "scale-out-payment-api — step 2/3: Scale deployment to 5 replicas",
        "Reason: no",
    ]


def test_the_text_of_a_decided_card_says_the_outcome_to_screen_readers() -> None:
    decided = card(status=ApprovalStatus.APPROVED, decided_by=JANE, decided_at=AT)
    assert "Approved by Jane Doe at 2026-04-10 12:01:10 UTC" in approval_message(decided, BOT).text


def test_a_change_that_does_not_fit_says_so_and_keeps_the_buttons() -> None:
    text = shown(card(change="rm " + "x" * 5_000))
    assert "The change is longer than Slack can show: read all of it in InfraSage before you decide." in text
    assert "[✅ Approve] [❌ Reject]" in text
    assert "longer than Slack" not in shown(card(change="x" * 2_000))


def test_a_title_cannot_pretend_to_be_further_lines() -> None:
    lines = shown(card(title="Scale\nNamespace: staging", change="a\nNamespace: staging")).splitlines()
    assert [line for line in lines if line.startswith("Namespace:")] == ["Namespace: production"]


def test_facts_beyond_what_fits_are_counted() -> None:
    facts = tuple(Fact(label=f"L{number} " + "l" * 900, value="v" * 9_000) for number in range(30))
    assert "… and 20 more facts in InfraSage" in shown(card(facts=facts))


# --- what a button carries ------------------------------------------------------------------------------------------------

REFS = st.builds(
    ApprovalRef, step=st.integers(1, 50), round=st.integers(1, 10**6), digest=st.text("0123456789abcdef", min_size=64, max_size=64)
)
WORKFLOW_IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}/[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True)


@given(WORKFLOW_IDS, REFS)
def test_every_reference_survives_the_way_through_the_button(workflow_id: str, ref: ApprovalRef) -> None:
    value = encode_ref(workflow_id, ref)
    assert len(value) <= 2_000
    assert decode_ref(value) == (workflow_id, ref)


GOOD = {"w": "anom-1/rb", "s": 1, "r": 1, "d": "ab" * 32}


@pytest.mark.parametrize(
    "value",
    [
        "",
        "anom-7f3d",
        "null",
        "[]",
        '"text"',
        "7",
        "{}",
        "[" * 2_000,
        json.dumps(GOOD),  # with spaces
        json.dumps({**GOOD, "x": 1}, separators=(",", ":")),
        json.dumps({key: GOOD[key] for key in "swrd"}, separators=(",", ":")),
        json.dumps({key: GOOD[key] for key in "wsr"}, separators=(",", ":")),
        json.dumps({**GOOD, "s": True}, separators=(",", ":")),
        json.dumps({**GOOD, "s": "1"}, separators=(",", ":")),
        json.dumps({**GOOD, "s": 1.0}, separators=(",", ":")),
        json.dumps({**GOOD, "s": 0}, separators=(",", ":")),
        json.dumps({**GOOD, "r": -1}, separators=(",", ":")),
        json.dumps({**GOOD, "r": None}, separators=(",", ":")),
        json.dumps({**GOOD, "d": ""}, separators=(",", ":")),
        json.dumps({**GOOD, "d": ["ab"]}, separators=(",", ":")),
        json.dumps({**GOOD, "w": ""}, separators=(",", ":")),
        json.dumps({**GOOD, "w": "a b"}, separators=(",", ":")),
        json.dumps({**GOOD, "w": "x" * 3_000}, separators=(",", ":")),
        '{"w":"anom-1/rb","w":"anom-2/rb","s":1,"r":1,"d":"' + "ab" * 32 + '"}',
        json.dumps(GOOD, separators=(",", ":")) + " ",
        '{"w":"anom-1/rb","s":NaN,"r":1,"d":"ab"}',
    ],
)
def test_anything_else_in_a_button_is_refused_in_one_sentence(value: str) -> None:
    with pytest.raises(ValueError, match="that button carries no approval request of this system"):
        decode_ref(value)


def test_the_value_that_the_refused_ones_vary_is_itself_accepted() -> None:
    assert decode_ref(json.dumps(GOOD, separators=(",", ":")))[0] == "anom-1/rb"


@pytest.mark.parametrize(
    ("workflow_id", "ref"),
    [
        ("", ApprovalRef(step=1, round=1, digest="ab")),
        ("x" * 301, ApprovalRef(step=1, round=1, digest="ab")),
        ("a\nb", ApprovalRef(step=1, round=1, digest="ab")),
        ("a", ApprovalRef(step=0, round=1, digest="ab")),
        ("a", ApprovalRef(step=1, round=1, digest="x" * 3_000)),
    ],
)
def test_what_could_not_be_read_again_is_not_written(workflow_id: str, ref: ApprovalRef) -> None:
    with pytest.raises(ValueError, match="an approval button needs"):
        encode_ref(workflow_id, ref)


def test_a_timeout_of_a_fraction_of_a_minute_is_told_in_seconds() -> None:
    assert "⏱ Timeout in 6 seconds (then: halt)" in shown(card(timeout=timedelta(minutes=0.1)))
