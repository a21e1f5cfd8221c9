"""What counts as `$NAME`, what may stand for it, and how its value is kept out of every text."""

import base64
import html
import json
import time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.errors import NotConfigured
from activities.secrets import Part, Reference, Secrets, parse, references, spell

TOKEN = "tok/3n+with=odd \"chars\" & 'quotes' \\ é"


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("Token $API_TOKEN", "Token abc"),
        ("$API_TOKEN", "abc"),
        ("$API_TOKEN$API_TOKEN", "abcabc"),
        ("$API_TOKEN-suffix", "abc-suffix"),
        ("$API_TOKENsuffix", "abcsuffix"),
        ("costs $5", "costs $5"),
        ("$", "$"),
        ("$lower and ${API_TOKEN}", "$lower and ${API_TOKEN}"),
        ("$$API_TOKEN", "$API_TOKEN"),
        ("$$$API_TOKEN", "$abc"),
        ("$$$$", "$$"),
        ("$$5", "$5"),
        ("", ""),
    ],
)
def test_a_reference_is_a_dollar_before_capitals_and_everything_else_is_text(text: str, resolved: str) -> None:
    assert Secrets({"API_TOKEN": "abc"}).resolve(text) == resolved


def test_the_value_of_a_secret_is_never_read_for_references_again() -> None:
    secrets = Secrets({"OUTER": "has $INNER and $$ in it", "INNER": "deep"})
    assert secrets.resolve("<$OUTER>") == "<has $INNER and $$ in it>"


def test_a_name_that_is_not_allowed_is_refused_by_its_name() -> None:
    with pytest.raises(NotConfigured, match=r"^\$HOME is not a secret that runbooks may use: RUNBOOK_SECRETS does not name it$"):
        Secrets({"API_TOKEN": "abc"}).resolve("$HOME")


@pytest.mark.parametrize("value", ["", " ", "\n"])
def test_a_secret_that_is_not_set_or_blank_is_refused_by_its_name(value: str) -> None:
    with pytest.raises(NotConfigured, match=r"^\$API_TOKEN has no value"):
        Secrets({"API_TOKEN": value}).check("Token $API_TOKEN")


def test_a_longer_name_is_not_its_allowed_beginning() -> None:
    with pytest.raises(NotConfigured, match=r"^\$API_TOKEN_2 "):
        Secrets({"API_TOKEN": "abc"}).resolve("$API_TOKEN_2")


@pytest.mark.parametrize("name", ["api_token", "2FA", "API-TOKEN", "", "$API", "API_TOKEN\n", "ÄPI"])
def test_an_allow_list_name_that_no_reference_can_spell_stops_the_start(name: str) -> None:
    with pytest.raises(NotConfigured, match="RUNBOOK_SECRETS names"):
        Secrets({name: "abc"})


def test_only_the_variables_of_the_allow_list_are_taken_from_the_environment() -> None:
    secrets = Secrets.from_environment(["ALLOWED", "MISSING"], {"ALLOWED": "yes", "OTHER": "no"})
    assert secrets.resolve("$ALLOWED") == "yes"
    for name in ("MISSING", "OTHER"):
        with pytest.raises(NotConfigured):
            secrets.resolve(f"${name}")


def test_neither_repr_nor_an_error_shows_a_value() -> None:
    secrets = Secrets({"API_TOKEN": "abc-value"})
    with pytest.raises(NotConfigured) as caught:
        secrets.resolve("$OTHER $API_TOKEN")
    assert "abc-value" not in f"{secrets!r} {secrets} {caught.value!r}"


def test_references_are_listed_once_in_order() -> None:
    assert references("$B $A $$C $B") == ["B", "A"]


_literals = st.text(st.sampled_from("$A_5 b"), max_size=6)


@given(st.lists(_literals | st.sampled_from([Reference("A"), Reference("_B9")]), max_size=6))
def test_what_is_spelled_reads_back_as_the_same(drawn: list[Part]) -> None:
    parts: list[Part] = []
    for part in drawn:
        if parts and isinstance(parts[-1], Reference) and isinstance(part, str):
            part = " " + part  # a literal that would lengthen the name is the caller's to refuse
        parts.append(part)
    meant = "".join(part if isinstance(part, str) else f"<{part.name}>" for part in parts)
    secrets = Secrets({"A": "<A>", "_B9": "<_B9>"})
    assert secrets.resolve(spell(parts)) == meant


@given(st.text(st.sampled_from("$A_5 b"), max_size=12))
def test_a_text_read_and_spelled_again_means_the_same(text: str) -> None:
    meant = "".join(str(part) for part in parse(text))
    assert "".join(str(part) for part in parse(spell(parse(text)))) == meant


# Redaction


def echoes(value: str) -> dict[str, str]:
    """Ways in which a server, a library or a log repeats what it was sent."""
    basic = {before: base64.b64encode((before + value + "tail").encode()).decode() for before in ("", "u", "us", "user:")}
    return {
        "plain": value,
        "percent": quote(value, safe=""),
        "percent in lower case": quote(value, safe="").replace("%2F", "%2f").replace("%2B", "%2b"),
        "percent with slashes": quote(value),
        "a URL's path": quote(value, safe="/%:@!$&'()*+,;=-._~"),
        "a form": quote_plus(value),
        "json": json.dumps(value),
        "json in unicode": json.dumps(value, ensure_ascii=False),
        "json in json": json.dumps(json.dumps([value])),
        "json with escaped slashes": json.dumps(value).replace("/", "\\/"),
        "json of a careful server": json.dumps(value).replace("&", "\\u0026").replace("'", "\\u0027").replace("+", "\\u002B"),
        "html": html.escape(value),
        "repr": repr(value),
        "base64": base64.b64encode(value.encode()).decode(),
        "base64 for URLs": base64.urlsafe_b64encode(value.encode()).decode().rstrip("="),
        **{f"base64 after {len(before)} bytes": text for before, text in basic.items()},
    }


@pytest.mark.parametrize("form", echoes("").keys())
@pytest.mark.parametrize("value", [TOKEN, "u+Hn8dkE39fjalk3/fj3290=", "line one\nline two\ttab", "ключ-é-🔑-9431"])
def test_a_value_is_taken_out_in_whatever_form_it_comes_back(value: str, form: str) -> None:
    text = f"401 for [{echoes(value)[form]}] at 12:00"
    redacted = Secrets({"API_TOKEN": value}).redact(text)
    assert "$API_TOKEN" in redacted
    assert redacted.startswith("401 for [") and redacted.endswith("] at 12:00")
    assert len(redacted) <= len("401 for [] at 12:00") + len("$API_TOKEN") + 14  # what was around the value in the echo


def test_every_occurrence_of_every_secret_is_taken_out() -> None:
    secrets = Secrets({"ONE": "alpha-1", "TWO": "beta-2", "UNSET": ""})
    assert secrets.redact("alpha-1 beta-2 alpha-1, text") == "$ONE $TWO $ONE, text"


def test_overlapping_values_leave_nothing_behind() -> None:
    assert Secrets({"ONE": "abcdef", "TWO": "defghi"}).redact("<abcdefghi>") == "<$ONE>"
    assert Secrets({"ONE": "abc", "TWO": "abcdef"}).redact("<abcdef>") == "<$TWO>"
    assert Secrets({"ONE": "aXa"}).redact("<aXaXa>") == "<$ONE>"


def test_a_line_break_at_the_end_of_a_secrets_file_does_not_hide_the_value() -> None:
    assert Secrets({"ONE": "alpha-1\n"}).redact("<alpha-1>") == "<$ONE>"


def test_the_host_of_a_secret_address_is_taken_out_of_messages_about_the_connection() -> None:
    secrets = Secrets({"HOOK": "https://Hooks.example.com:8443/T0/B0/x"})
    told = secrets.redact("https://hooks.example.com:8443 could not be reached; hooks.example.com has no address")
    assert told == "https://$HOOK could not be reached; $HOOK has no address"


@given(st.text(max_size=40), st.text(max_size=40))
def test_a_text_without_the_value_stays_as_it_is(before: str, after: str) -> None:
    text = f"{before}|{after}"
    assert "canary-0815" in text or Secrets({"ONE": "canary-0815"}).redact(text) == text


@given(st.text(min_size=1, max_size=20).filter(str.strip), st.text(max_size=20), st.text(max_size=20))
def test_no_value_survives_wherever_it_stands(value: str, before: str, after: str) -> None:
    redacted = Secrets({"X": value}).redact(f"{before}{value}{after}")
    assert value.strip() not in redacted.replace("$X", "\0")


@pytest.mark.parametrize("text", ["\\" * 16_000, "%5c" * 5_000, "\\u005c" * 2_500, "a" * 16_000, "&" * 16_000])
def test_no_foreign_text_makes_the_search_slow(text: str) -> None:
    secrets = Secrets({"ONE": "a\\b\\\\c\\\\\\" + "\\x" * 50, "TWO": "a" * 60 + "b", "THREE": "&%5c" * 20})
    began = time.monotonic()
    secrets.redact(text)
    assert time.monotonic() - began < 2
