"""Whatever text comes in, the message is one that Slack takes, and none of the text in it acts."""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from activities.messages.alert import alert_message
from activities.messages.answers import IncidentLine, incidents_answer, sentence
from activities.messages.approval import approval_message, decode_ref, outcome_message
from activities.messages.parts import SlackMessage, Surroundings, label, lines, markup, message, prose
from activities.messages.progress import note_message
from activities.messages.terminal import to_text
from domain.anomaly import Anomaly, Severity
from domain.approval import ApprovalRef, ApprovalStatus
from domain.base import Actor, Source
from domain.incident import EscalationKind
from domain.memory import SimilarIncident
from domain.narration import Alert, ApprovalCard, Note, Tone
from domain.plan import Fact
from tests.peers.slack_blocks import DRAWN_EMOJI, Fault, check_blocks, length, texts_in
from tests.peers.slack_samples import CONSOLE, sample_alert, sample_card

MARKUP = ["*bold*", "_i_", "~s~", "`c`", "```\nb\n```", "> q\n", ":skull:", ":+1:", "<https://evil.example|https://bank.example>"]
MENTIONS = ["<!channel>", "<!here> ", "<@U0JANE0001>", "<#C0OPSALERT>", "&lt;!channel&gt;"]
DECEPTION = ["\u202egnp.exe", "\u2066x\u2069", "\x1b[2J", "\x00", "z" + "\u0336" * 9, "\ud800", "\U000e0041", "\u2028"]
PLAIN = ["\n\n\nNamespace: staging\n", "👩\u200d🚒", "𝕏", "&", "<", "a", " "]
PIECES = [*MARKUP, *MENTIONS, *DECEPTION, *PLAIN, ":a"]
HOSTILE = st.sampled_from(PIECES)
TEXT = (
    st.text(max_size=30)
    | st.builds(lambda piece, times: piece * times, HOSTILE, st.sampled_from([1, 2, 40, 3_000]))
    | st.lists(HOSTILE, max_size=8).map("".join)
)
MAYBE = st.none() | TEXT
INSTANTS = st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC))
MAYBE_INSTANT = st.none() | INSTANTS
SHARES = st.floats(0, 1)
IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", fullmatch=True)

ANOMALIES = st.builds(
    Anomaly,
    anomaly_id=IDS,
    service_id=TEXT,
    metric_name=TEXT,
    timestamp=INSTANTS,
    anomaly_score=SHARES,
    environment=MAYBE,
    root_cause=MAYBE,
    rca_confidence=st.none() | SHARES,
    blast_radius=st.lists(TEXT, max_size=4).map(lambda some: tuple(some * 20)),
    suggested_actions=st.lists(TEXT, max_size=4).map(lambda some: tuple(some * 12)),
)
SIMILAR = st.builds(
    SimilarIncident,
    anomaly_id=IDS,
    occurred_at=INSTANTS,
    minutes_to_resolve=st.floats(0, 1e6),
    resolution=TEXT,
    similarity=SHARES,
)
ALERTS = st.builds(Alert, anomaly=ANOMALIES, severity=st.sampled_from(Severity), similar=st.none() | SIMILAR)
ACTORS = st.builds(Actor, id=TEXT, name=TEXT, source=st.sampled_from(Source))
CARDS = st.builds(
    ApprovalCard,
    workflow_id=IDS.map(lambda some: f"{some}/{'r' * 100}"),
    incident_id=IDS,
    runbook=TEXT,
    service_id=TEXT,
    environment=MAYBE,
    step=st.integers(1, 50),
    step_count=st.integers(1, 50),
    title=TEXT,
    change=TEXT,
    facts=st.lists(st.builds(Fact, label=TEXT, value=TEXT), max_size=4).map(lambda some: tuple(some * 8)),
    ref=st.builds(ApprovalRef, step=st.integers(1, 50), round=st.integers(1, 99), digest=st.just("ab" * 32)),
    timeout=st.timedeltas(timedelta(milliseconds=1), timedelta(days=7)),
    deadline_at=MAYBE_INSTANT,
    on_timeout=TEXT,
    status=st.sampled_from(ApprovalStatus),
    decided_by=st.none() | ACTORS,
    decided_at=MAYBE_INSTANT,
    reason=TEXT,
    recovered_at=MAYBE_INSTANT,
)
SURROUNDINGS = st.builds(
    Surroundings, st.just(CONSOLE), interactive=st.booleans(), offers=st.frozensets(st.sampled_from(EscalationKind))
)

thorough = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def text_objects(value: object) -> Iterator[Mapping[str, Any]]:
    """Every text object in some blocks."""
    if isinstance(value, list):
        for item in value:
            yield from text_objects(item)
    elif isinstance(value, Mapping):
        if value.get("type") in ("plain_text", "mrkdwn"):
            yield value
        for item in value.values():
            yield from text_objects(item)


def check_harmless(drawn: SlackMessage) -> None:
    """Fail if any text of the message is more than text: deceiving characters, mentions, foreign links, emoji, formatting."""
    for text in [drawn.text, *texts_in(drawn.blocks)]:
        hidden = {character for character in text if unicodedata.category(character) in ("Cc", "Cf", "Cs")}
        assert hidden <= {"\n", "\u200c", "\u200d", "\u2060"}, f"deceiving characters {hidden!r}"
    assert not set(drawn.text) & set("<>*~`"), "markup in the text beside the blocks"
    assert not DRAWN_EMOJI.search(drawn.text)
    for text in text_objects(drawn.blocks):
        if text["type"] == "mrkdwn":
            assert text["verbatim"] is True, "Slack would find links and names by itself"
            foreign = re.sub(r"<http://localhost:9093/incidents/[\w.:/-]+\|InfraSage>|`infrasage approve [^`]+`", "", text["text"])
            assert re.fullmatch(r"\*[^*<>`~]*\*|[^*<>`~]*", foreign), foreign
        if text["type"] == "mrkdwn" or text.get("emoji", True):
            assert not DRAWN_EMOJI.search(text["text"]), "an emoji out of foreign text"


def check(drawn: SlackMessage) -> None:
    check_blocks(drawn.blocks)
    assert drawn.text.strip()
    assert len(drawn.text.encode("utf-16-le")) // 2 <= 4_000, "chat.update would refuse the text"
    check_harmless(drawn)
    to_text(drawn.blocks)


@thorough
@given(ALERTS, SURROUNDINGS)
def test_every_alert_is_a_message_that_slack_takes_and_keeps_its_buttons(alert: Alert, surroundings: Surroundings) -> None:
    drawn = alert_message(alert, surroundings)
    check(drawn)
    buttons = drawn.blocks[-1]["elements"]
    assert buttons[0]["action_id"] == "view_incident"
    assert len(buttons) == 1 + (len(surroundings.offers) if surroundings.interactive else 0)


@thorough
@given(CARDS, SURROUNDINGS)
def test_every_card_is_a_message_that_slack_takes_and_has_buttons_only_while_it_is_open(
    card: ApprovalCard, surroundings: Surroundings
) -> None:
    drawn = approval_message(card, surroundings)
    check(drawn)
    actions = [block for block in drawn.blocks if block["type"] == "actions"]
    if card.status is ApprovalStatus.OPEN and surroundings.interactive:
        (row,) = actions
        assert [decode_ref(button["value"]) for button in row["elements"]] == [(card.workflow_id, card.ref)] * 2
    else:
        assert not actions
    check(outcome_message(card))


@thorough
@given(TEXT, st.sampled_from(Tone))
def test_every_note_and_every_answer_is_a_message_that_slack_takes(text: str, tone: Tone) -> None:
    check(note_message(Note(text=text, tone=tone)))
    check(sentence(text))
    check(incidents_answer([IncidentLine(text, text, text)] * 20))


@pytest.mark.parametrize("piece", PIECES)
def test_the_longest_messages_stay_well_below_the_limit_of_all_blocks(piece: str) -> None:
    long = piece * 9_000
    alert = sample_alert()
    anomaly = alert.anomaly.model_copy(
        update={
            "service_id": long,
            "metric_name": long,
            "environment": long,
            "root_cause": long,
            "blast_radius": (long,) * 200,
            "suggested_actions": (long,) * 50,
        }
    )
    actor = Actor(id=long, name=long, source=Source.API)
    card = sample_card().model_copy(
        update={
            "runbook": long,
            "service_id": long,
            "environment": long,
            "title": long,
            "change": long,
            "facts": (Fact(label=long, value=long),) * 50,
            "on_timeout": long,
            "reason": long,
            "decided_by": actor,
        }
    )
    surroundings = Surroundings(CONSOLE, interactive=True, offers=frozenset(EscalationKind))
    drawn = [alert_message(alert.model_copy(update={"anomaly": anomaly}), surroundings)]
    drawn += [approval_message(card.model_copy(update={"status": status}), surroundings) for status in ApprovalStatus]
    drawn += [note_message(Note(text=long, tone=tone)) for tone in Tone]
    for each in [*drawn, outcome_message(card), sentence(long)]:
        check(each)
        assert sum(length(text) for text in texts_in(each.blocks)) < 9_000


# --- negative controls: the checks above do find what they look for ---------------------------------------------------------


@pytest.mark.parametrize(
    "careless",
    [
        lambda text: message([prose(text + "\u202e")]),
        lambda text: message([markup(text + "<!channel>")]),
        lambda text: message([markup(text + "*bold* word")]),
        lambda text: message([label(":skull:")]),
        lambda text: SlackMessage(text="<!channel>", blocks=[]),
        lambda text: SlackMessage(text=":skull:", blocks=[]),
    ],
)
def test_text_that_was_not_treated_is_found_out(careless: Callable[[str], SlackMessage]) -> None:
    with pytest.raises(AssertionError):
        check_harmless(careless("x "))


def test_a_message_without_its_limits_is_found_out() -> None:
    with pytest.raises(Fault, match="invalid_blocks"):
        check_blocks([{"type": "section", "text": {"type": "plain_text", "text": "x" * 3_001}}])
    with pytest.raises(Fault, match="msg_blocks_too_long"):
        check_blocks(message([block for _ in range(5) for block in lines(["x" * 2_900])]).blocks)
