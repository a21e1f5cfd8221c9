"""Foreign text: what is taken out, what is cut, and what cannot become markup."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.messages.foreign import clean, clipped, escaped, one_line, paragraph, size, without_emoji
from tests.peers.slack_blocks import DRAWN_EMOJI, length

BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"
ANY_TEXT = st.text(st.characters(codec=None), max_size=200) | st.text("<>&*_~`:!@#|a1 \n\u202e\u2060\u0301", max_size=60)


@pytest.mark.parametrize("character", [*BIDI, "\x00", "\x1b", "\x7f", "\x9b", "\u200b", "\ufeff", "\u00ad", "\U000e0041", "\ud800"])
def test_a_character_that_deceives_the_eye_is_shown_as_taken_out(character: str) -> None:
    assert clean(f"a{character}b") == "a\ufffdb"


def test_joiners_accents_and_emoji_stay() -> None:
    text = "naïve e\u0301 👩\u200d🚒 ⚠️ می\u200cخواهم"
    assert clean(text) == text


def test_a_pile_of_combining_marks_is_cut_to_four() -> None:
    assert clean("z" + "\u0336" * 50 + "y") == "z" + "\u0336" * 4 + "y"


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r", "\v", "\f", "\x85", "\u2028", "\u2029", " \n\n "])
def test_a_value_of_one_line_cannot_pretend_to_be_the_next_line(line_break: str) -> None:
    assert one_line(f"harmless{line_break}Namespace: staging", 200) == "harmless ⏎ Namespace: staging"


def test_a_paragraph_keeps_its_lines_and_at_most_one_empty_one() -> None:
    assert paragraph("one\ntwo\n \n\n\n\nthree\r\n", 200) == "one\ntwo\n\nthree"


def test_cut_text_says_that_it_was_cut() -> None:
    assert one_line("x" * 50, 10) == "x" * 9 + "…"
    assert one_line("x" * 10, 10) == "x" * 10


def test_text_of_which_nothing_shown_is_left_still_says_that_there_was_more() -> None:
    assert one_line(" " * 500 + "hidden", 10) == "…"


@pytest.mark.parametrize("text", ["🚨" * 20, "<" * 20, "&" * 20, "𝕏<&>" * 10])
def test_cutting_counts_by_the_strictest_reading_of_slacks_limits(text: str) -> None:
    assert length(clipped(text, 30)) <= 30
    assert length(text) > 30, "the plain text is over the limit, so the cut is what keeps it"


@given(ANY_TEXT, st.integers(min_value=1, max_value=50))
def test_no_text_is_longer_than_its_limit(text: str, limit: int) -> None:
    for shown in (one_line(text, limit), paragraph(text, limit)):
        assert length(shown) <= limit


@given(ANY_TEXT)
def test_our_size_is_the_length_that_slack_may_count(text: str) -> None:
    storable = clean(text)
    assert size(storable) == length(storable)


@given(ANY_TEXT)
def test_clean_text_is_free_of_control_and_bidi_characters_and_stays_clean(text: str) -> None:
    cleaned = clean(text)
    hidden = {character for character in cleaned if unicodedata.category(character) in ("Cc", "Cf", "Cs")}
    assert hidden <= {"\n", "\u200c", "\u200d"}
    assert clean(cleaned) == cleaned


@pytest.mark.parametrize("text", [":skull:", "a:+1:b", ":man::skin-tone-2:", ":100:", "x:y:z:", ":名前:"])
def test_no_emoji_code_survives_in_drawn_text(text: str) -> None:
    assert DRAWN_EMOJI.search(text)
    assert not DRAWN_EMOJI.search(without_emoji(text))


@pytest.mark.parametrize("text", ["12:00:05 UTC", "http://localhost:9093/x:1", "a: b", "std::vector"])
def test_times_urls_and_single_colons_are_left_alone(text: str) -> None:
    assert without_emoji(text) == text


@pytest.mark.parametrize(
    "text", ["<!channel>", "<@U0JANE0001>", "<#C0OPSALERT>", "<https://evil.example|bank>", "<!subteam^S1>", "&lt;!here&gt;"]
)
def test_mentions_and_links_arrive_as_text(text: str) -> None:
    shown = escaped(text)
    assert "<" not in shown
    assert ">" not in shown
    assert re.fullmatch(r"(?:[^&]|&amp;|&lt;|&gt;)*", shown)


@pytest.mark.parametrize("text", ["*bold*", "_italics_", "~gone~", "`code`", "```block```", "_a_ and _b_"])
def test_formatting_characters_lose_their_meaning(text: str) -> None:
    assert not re.search(r"(?<!\w)[*_~`](?=\S)", escaped(text))


def test_an_underscore_inside_a_word_stays() -> None:
    assert escaped("cpu_usage_percent") == "cpu_usage_percent"


def test_a_line_of_foreign_text_cannot_be_drawn_as_a_quotation() -> None:
    assert not re.search(r"(?m)^ *&gt;", escaped("fine\n> quoted\n > too"))


@given(ANY_TEXT)
def test_nothing_that_is_escaped_can_be_a_control_sequence_of_slack(text: str) -> None:
    shown = escaped(clean(text))
    assert not set(shown) & set("<>*~`")
    assert not DRAWN_EMOJI.search(shown)
    assert re.fullmatch(r"(?:[^&]|&amp;|&lt;|&gt;)*", shown, re.DOTALL)
