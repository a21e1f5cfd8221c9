"""Values in the queries of checks: whatever they contain, they stay values."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.errors import InvalidStep
from activities.steps.check_queries import bind_sql, fill_promql
from domain.expressions import ExpressionError, Scalar

NASTY = '"} or vector(0) or up{x="\\'


def test_a_value_of_a_clickhouse_query_travels_beside_it() -> None:
    names: dict[str, Scalar] = {"service_id": "a'; DROP TABLE x --", "limit": 5, "share": 0.5, "on": True, "steps.a-b.c": "{x}"}
    bound = bind_sql("SELECT 1 WHERE a = {{ service_id }} AND b < {{limit}} AND {{share}} AND {{on}} = {{ steps.a-b.c }}", names)
    assert bound.text == "SELECT 1 WHERE a = {p1:String} AND b < {p2:Int64} AND {p3:Float64} AND {p4:UInt8} = {p5:String}"
    assert bound.parameters == {"p1": "a'; DROP TABLE x --", "p2": 5, "p3": 0.5, "p4": 1, "p5": "{x}"}


@pytest.mark.parametrize("quoted", ["'{{ s }}'", "'it''s {{ s }}'", "'\\' {{ s }}'", '"{{ s }}"', "`{{ s }}`"])
def test_a_placeholder_within_quotes_is_refused_because_it_would_be_text(quoted: str) -> None:
    with pytest.raises(InvalidStep, match="within quotes"):
        bind_sql(f"SELECT 1 WHERE a = {quoted}", {"s": "x"})


def test_quotes_in_a_comment_or_around_something_else_do_not_matter() -> None:
    query = "SELECT 1 -- don't\nWHERE a = 'b' AND c = {{ s }} /* isn't */ AND d = {{ s }}"
    assert bind_sql(query, {"s": "x"}).parameters == {"p1": "x", "p2": "x"}


@pytest.mark.parametrize("query", ["INSERT INTO t SELECT 1", "DROP TABLE t", "SELECTED", "SET readonly = 0", "-- x\nSELECT 1"])
def test_what_does_not_begin_as_a_query_is_refused(query: str) -> None:
    with pytest.raises(InvalidStep, match="must begin with SELECT or WITH"):
        bind_sql(query, {})


def test_a_number_that_fits_no_column_and_a_value_that_is_unknown_are_refused() -> None:
    with pytest.raises(InvalidStep, match="64 bits"):
        bind_sql("SELECT {{ n }}", {"n": 2**63})
    with pytest.raises(ExpressionError, match="has no value"):
        bind_sql("SELECT {{ n }}", {"n": None})


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ('up{service="{{ s }}"}', 'up{service="\\"} or vector(0) or up{x=\\"\\\\"}'),
        ("up{service != '{{ s }}'}", "up{service != '\"} or vector(0) or up{x=\"\\\\'}"),
        ("up{service=`{{ s }}`}", f"up{{service=`{NASTY}`}}"),
        ('up{service=~"a{{ s }}|b"}', 'up{service=~"a\\"\\\\} or vector\\\\(0\\\\) or up\\\\{x=\\"\\\\\\\\|b"}'),
    ],
)
def test_a_value_stays_within_its_label_matcher(template: str, filled: str) -> None:
    assert fill_promql(template, {"s": NASTY}) == filled


def test_a_value_is_no_pattern_in_a_matcher_of_patterns() -> None:
    assert fill_promql('up{a=~"{{ s }}"}', {"s": ".*"}) == 'up{a=~"\\\\.\\\\*"}'
    assert fill_promql('up{a="{{ s }}"}', {"s": ".*"}) == 'up{a=".*"}'


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40))
def test_the_string_that_a_matcher_gets_reads_back_as_the_value(value: str) -> None:
    filled = fill_promql('up{a="{{ s }}"}', {"s": value})
    assert json.loads(filled.removeprefix("up{a=").removesuffix("}")) == value


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("cpu_usage_percent", "cpu_usage_percent"),
        ("job:rate5m", "job:rate5m"),
        (5, "5"),
        (-0.5, "(-0.5)"),
        (1e-07, "1e-07"),
        ("5m", "5m"),
    ],
)
def test_one_word_may_stand_outside_of_strings(value: Scalar, written: str) -> None:
    assert fill_promql("sum({{ v }})", {"v": value}) == f"sum({written})"


@pytest.mark.parametrize("value", ["up or vector(0)", "up{", "", "nan\n", "a-b", "1_0", "up#", "up)"])
def test_more_than_a_word_may_not(value: str) -> None:
    with pytest.raises(InvalidStep, match="neither a number nor one name"):
        fill_promql("sum({{ v }})", {"v": value})


@pytest.mark.parametrize(
    "template", ['label_replace(up, "a", "$1", "b", "{{ v }}")', "up # {{ v }}\n", 'count_values("{{ v }}", up)']
)
def test_a_string_that_is_no_label_matcher_takes_no_value(template: str) -> None:
    with pytest.raises(InvalidStep, match="label matcher or as one word"):
        fill_promql(template, {"v": "x"})


def test_a_raw_string_takes_no_value_that_would_end_it() -> None:
    with pytest.raises(InvalidStep, match="use double quotes"):
        fill_promql("up{a=`{{ v }}`}", {"v": "x`} or up"})
