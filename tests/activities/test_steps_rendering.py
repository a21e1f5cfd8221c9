"""Filling `{{ name }}` beside `$NAME`: a value stays a value, whatever it looks like."""

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.errors import InvalidStep, NotConfigured
from activities.secrets import Secrets
from activities.steps.rendering import fill_beside_secrets, for_url
from domain.expressions import ExpressionError

SECRETS = Secrets({"TOKEN": "s3cret", "TOKEN_2": "other", "A": "a-value"})


@pytest.mark.parametrize("value", ["$TOKEN", "$$TOKEN", "$$$TOKEN", "$", "TOKEN", "_2", "{{ cause }}", "costs $5"])
@pytest.mark.parametrize(
    "template", ["{{ cause }}", "<{{cause}}>", "${{ cause }}", "$TOKEN {{ cause }}", "{{ cause }}$TOKEN", "$5{{ cause }}"]
)
def test_a_filled_in_value_is_sent_as_the_text_it_is(template: str, value: str) -> None:
    filled = fill_beside_secrets(template, {"cause": value})
    expected = template.replace("$TOKEN", "s3cret").replace("{{cause}}", "{{ cause }}").replace("{{ cause }}", value)
    assert SECRETS.resolve(filled) == expected


@given(
    st.lists(st.text(st.sampled_from("$A_5 "), max_size=4) | st.just("{{ cause }}"), max_size=5),
    st.text(st.sampled_from("$A_5 {}cause"), max_size=8),
)
def test_no_value_adds_takes_away_or_changes_a_reference(template: list[str], value: str) -> None:
    text = "|".join(template)
    secrets = Secrets({name: f"<{name}>" for name in {"A" * n for n in range(1, 5)}} | {"_": "<_>"})
    try:
        whole = secrets.resolve(text)
    except NotConfigured:
        return
    try:
        filled = fill_beside_secrets(text, {"cause": value})
    except InvalidStep:
        return
    assert secrets.resolve(filled) == whole.replace("{{ cause }}", value)


def test_a_reference_directly_before_a_value_is_refused_because_the_value_could_lengthen_its_name() -> None:
    with pytest.raises(InvalidStep, match=r"^'\$TOKEN' may not stand directly before '\{\{ cause \}\}'"):
        fill_beside_secrets("$TOKEN{{ cause }}", {"cause": "_2"})


def test_a_value_cannot_leave_its_component_of_a_url() -> None:
    filled = fill_beside_secrets("https://host/a/{{ x }}?q={{ x }}&t=$TOKEN", {"x": "b/../c?d=e&f#g%2F $TOKEN é"}, for_url)
    path, _, query = filled.removeprefix("https://host/a/").partition("?q=")
    assert unquote(path) == "b/../c?d=e&f#g%2F $TOKEN é"
    assert not set("/?&# $") & set(path)
    assert query == f"{path}&t=$TOKEN"


@pytest.mark.parametrize("text", ["{{ nobody }}", "{{ cause", "{{ 1 + 1 }}", "{{ empty }}"])
def test_what_cannot_be_filled_in_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        fill_beside_secrets(f"$TOKEN {text}", {"cause": "x", "empty": None})
