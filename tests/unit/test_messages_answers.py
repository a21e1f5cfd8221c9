"""Answers to one person, notes in the thread, and blocks as text."""

from datetime import UTC, datetime

import pytest

from activities.messages.answers import IncidentLine, help_answer, incidents_answer, sentence, status_answer
from activities.messages.progress import REACTIONS, note_message
from activities.messages.terminal import to_text
from domain.anomaly import Severity
from domain.approval import ApprovalRef, ApprovalStatus
from domain.incident import (
    AlertView,
    ApprovalView,
    IncidentStatus,
    IncidentView,
    Resolution,
    RunbookView,
    RunStatus,
    StepStatus,
    StepView,
)
from domain.narration import AlertState, Note, Tone
from tests.peers.slack_blocks import check_blocks
from tests.peers.slack_samples import CONSOLE, JANE, sample_alert

AT = datetime(2026, 4, 10, 12, 1, 10, tzinfo=UTC)


def incident(**changes: object) -> IncidentView:
    view = IncidentView(
        incident_id="anom-7f3d",
        status=IncidentStatus.OPEN,
        severity=Severity.CRITICAL,
        anomaly=sample_alert().anomaly,
        alert=AlertView(sent=True),
        opened_at=AT,
    )
    return view.model_copy(update=changes)


def run(steps: int = 3, done: int = 1) -> RunbookView:
    def step(index: int) -> StepView:
        status = StepStatus.SUCCEEDED if index <= done else StepStatus.PENDING
        return StepView(index=index, type="kubernetes", summary=f"Do thing {index}", status=status)

    return RunbookView(
        name="scale-out-payment-api",
        workflow_id="anom-7f3d/scale-out-payment-api",
        incident_id="anom-7f3d",
        service_id="payment-api",
        status=RunStatus.AWAITING_APPROVAL,
        started_at=AT,
        steps=tuple(step(index) for index in range(1, steps + 1)),
    )


def test_the_status_says_what_it_is_and_where_its_runbook_stands() -> None:
    waiting = ApprovalView(
        ref=ApprovalRef(step=2, round=1, digest="ab"),
        status=ApprovalStatus.OPEN,
        title="t",
        change="c",
        opened_at=AT,
        deadline_at=AT,
    )
    view = run()
    second = view.steps[1].model_copy(update={"status": StepStatus.AWAITING_APPROVAL, "approval": waiting})
    view = view.model_copy(update={"steps": (view.steps[0], second, view.steps[2])})
    message = status_answer(incident(), [view], CONSOLE)
    check_blocks(message.blocks)
    assert to_text(message.blocks).splitlines() == [
        "anom-7f3d — open",
        "Service: payment-api (production)",
        "Metric: cpu_usage_percent",
        "Score: 0.93 (Critical)",
        "Detected at: 2026-04-10 12:00:05 UTC",
        "scale-out-payment-api — awaiting approval",
        "1. Do thing 1 — succeeded",
        "2. Do thing 2 — awaiting approval until 2026-04-10 12:01:10 UTC",
        "3. Do thing 3 — pending",
        "[🔍 View in InfraSage]",
    ]


def test_the_status_of_a_resolved_incident_says_who_and_how() -> None:
    view = incident(
        status=IncidentStatus.RESOLVED,
        alert=AlertView(sent=False, reason="quiet hours"),
        acknowledged_by="Joe",
        recovered_at=AT,
        resolution=Resolution(text="Scaled from 3 to 5 pods.", by=JANE, at=AT),
        closed_reason="resolved",
    )
    text = to_text(status_answer(view, [], CONSOLE).blocks)
    assert "Not alerted: quiet hours" in text
    assert "Acknowledged by Joe" in text
    assert "Recovered at 2026-04-10 12:01:10 UTC" in text
    assert "Resolved by Jane Doe at 2026-04-10 12:01:10 UTC: Scaled from 3 to 5 pods." in text


def test_of_a_long_runbook_the_steps_around_the_current_one_are_shown() -> None:
    text = to_text(status_answer(incident(), [run(steps=50, done=30)], CONSOLE).blocks)
    assert "Steps 25 to 32 of 50:" in text
    assert "30. Do thing 30 — succeeded" in text
    assert "33. Do thing" not in text
    assert "Steps 43 to 50 of 50:" in to_text(status_answer(incident(), [run(steps=50, done=50)], CONSOLE).blocks)


def test_a_status_with_everything_as_long_as_it_can_be_is_still_one_message() -> None:
    long_step = run(steps=50, done=25).steps[0].model_copy(update={"summary": "<" * 9_000})
    long_run = run().model_copy(update={"name": "n" * 100, "steps": (long_step,) * 50})
    view = incident(resolution=Resolution(text="<" * 9_000, by=JANE, at=AT), closed_reason="&" * 9_000, acknowledged_by="a" * 9_000)
    message = status_answer(view, [long_run] * 20, CONSOLE)
    check_blocks(message.blocks)
    assert "… and 16 more runbooks in InfraSage" in to_text(message.blocks)


def test_the_list_of_incidents_leaves_out_what_is_unknown_and_counts_what_does_not_fit() -> None:
    known = IncidentLine("anom-1", "open", "payment-api", Severity.HIGH, AT)
    text = to_text(incidents_answer([known] + [IncidentLine(f"anom-{number}", "suppressed") for number in range(2, 31)]).blocks)
    assert text.splitlines()[:3] == [
        "Incidents (30)",
        "anom-1 · payment-api · high · open · since 2026-04-10 12:01:10 UTC",
        "anom-2 · suppressed",
    ]
    assert text.endswith("… and 15 more in InfraSage")


def test_an_empty_list_of_incidents_is_a_sentence() -> None:
    assert to_text(incidents_answer([]).blocks) == "No incident is open."


def test_the_help_names_every_command() -> None:
    text = to_text(help_answer().blocks)
    for verb in ("resolve", "status", "incidents", "help", "approve", "reject", "halt", "run"):
        assert f"/infrasage {verb}" in text
    check_blocks(help_answer().blocks)


def test_a_sentence_is_shown_as_it_is_and_never_empty() -> None:
    assert to_text(sentence("No incident <b> *is* named :x:.").blocks) == "No incident <b> *is* named :x:."
    assert to_text(sentence(" ").blocks)


@pytest.mark.parametrize(
    ("tone", "start"), [(Tone.INFO, "done"), (Tone.SUCCESS, "✅ done"), (Tone.WARNING, "⚠️ done"), (Tone.FAILURE, "❌ done")]
)
def test_a_note_carries_the_mark_of_its_tone(tone: Tone, start: str) -> None:
    assert to_text(note_message(Note(text="done", tone=tone)).blocks) == start


def test_every_state_of_an_alert_has_its_own_emoji() -> None:
    assert set(REACTIONS) == set(AlertState)
    assert len(set(REACTIONS.values())) == len(AlertState)


def test_markup_becomes_plain_words_in_a_terminal() -> None:
    section = {
        "type": "section",
        "text": {"type": "mrkdwn", "text": "*bold* and `code`, <https://x.example/_a_|a page> &lt;b&gt; &amp;lt; 2*3*4"},
    }
    assert to_text([section]) == "bold and code, a page (https://x.example/_a_) <b> &lt; 2*3*4"


def test_plain_text_is_not_taken_for_markup_in_a_terminal() -> None:
    section = {"type": "section", "text": {"type": "plain_text", "text": "*as it is* &lt;"}}
    assert to_text([section]) == "*as it is* &lt;"


def test_every_block_of_a_message_has_a_rendering_and_fields_and_accessories_are_not_lost() -> None:
    blocks = [
        {"type": "header", "text": {"type": "plain_text", "text": "Title"}},
        {
            "type": "section",
            "fields": [{"type": "mrkdwn", "text": "*a*"}, {"type": "plain_text", "text": "b"}],
            "accessory": {"type": "button", "text": {"type": "plain_text", "text": "Press"}},
        },
        {"type": "context", "elements": [{"type": "plain_text", "text": "c"}, {"type": "image", "alt_text": "d"}]},
        {"type": "image", "image_url": "https://x.example/i.png", "alt_text": "chart"},
    ]
    assert to_text(blocks) == "Title\na\nb\n[Press]\nc d\nchart"


def test_a_terminal_is_not_steered_by_what_a_block_holds() -> None:
    section = {"type": "section", "text": {"type": "plain_text", "text": "a\x1b[31mred\x07"}}
    assert to_text([section]) == "a\ufffd[31mred\ufffd"


def test_a_block_without_a_rendering_is_an_error_and_not_a_gap() -> None:
    with pytest.raises(ValueError, match="a block of type 'video' has no rendering"):
        to_text([{"type": "video"}])
    with pytest.raises(ValueError, match="an element of type 'overflow' has no rendering"):
        to_text([{"type": "actions", "elements": [{"type": "overflow"}]}])
