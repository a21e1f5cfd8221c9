"""Which commands a host allows, and what line is sent for one."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.expressions import ExpressionError
from domain.shell_commands import LINE_LIMIT_BYTES, NotAllowed, command_line, parse_allowed, quoted, visible

RESTART = "systemctl restart {unit:[a-z][a-z0-9-]{0,40}}"
ANY = "tool {value:(?s:.*)}"
ANY_OPTION = "tool {value:-(?s:.*)}"

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)


def line(command: str, *allowed: str, **names: str | int | float | bool | None) -> str:
    return command_line(command, names, [parse_allowed(text) for text in allowed])


def refusal(command: str, *allowed: str, **names: str | int | float | bool | None) -> str:
    with pytest.raises(NotAllowed) as caught:
        line(command, *allowed, **names)
    return str(caught.value)


# Whole commands


@pytest.mark.parametrize(
    "command", ["uptime", "df -h | tail -n +2; echo $HOME > /tmp/x", "awk '{print $1}' /etc/hosts", "echo {} {a}"]
)
def test_a_whole_command_is_sent_as_it_stands(command: str) -> None:
    assert line(command, "true", command) == command


@pytest.mark.parametrize("command", ["uptime ", "uptime;", "up", "Uptime", "uptime -p", "'uptime'", "\\uptime"])
def test_a_whole_command_allows_that_text_and_no_other(command: str) -> None:
    assert refusal(command, "uptime").endswith("; allowed are `uptime`")


def test_a_whole_command_may_be_filled_in_with_plain_values() -> None:
    assert line("systemctl restart {{ service_id }}", "systemctl restart web.1", service_id="web.1") == "systemctl restart web.1"


@pytest.mark.parametrize(
    ("allowed", "value"),
    [("echo a; reboot", "a; reboot"), ("echo a reboot", "a reboot"), ("echo $HOME", "$HOME"), ("echo 'a'", "'a'"), ("echo *", "*")],
)
def test_a_value_cannot_make_a_step_into_another_whole_command(allowed: str, value: str) -> None:
    """The author of the list allowed that text; the author of the step did not mean it."""
    assert "is not allowed" in refusal("echo {{ value }}", allowed, value=value)
    assert line(allowed, allowed) == allowed  # the control: written by the author of the step, it is meant


def test_nothing_at_all_does_not_count_as_a_plain_value() -> None:
    assert "is not allowed" in refusal("rm -rf /data/{{ value }}", "rm -rf /data/", value="")


# Commands with parameters


@pytest.mark.parametrize(
    ("command", "sent"),
    [
        ("systemctl restart payment-api", "systemctl restart payment-api"),
        ("systemctl   restart\tpayment-api", "systemctl restart payment-api"),
        ("'systemctl' \"restart\" pay'ment'-ap\\i", "systemctl restart payment-api"),
    ],
)
def test_a_command_is_compared_word_for_word_and_written_anew(command: str, sent: str) -> None:
    assert line(command, RESTART) == sent


@pytest.mark.parametrize(
    "command",
    [
        "systemctl restart",
        "systemctl restart payment-api now",
        "systemctl stop payment-api",
        "systemctl restart Payment",
        "systemctl restart -a",
        "systemctl restart ''",
        "systemctl 'restart payment-api'",
        "systemctl restart payment-api-" + 40 * "x",
        "",
    ],
)
def test_what_no_pattern_takes_is_refused_by_naming_what_is_allowed(command: str) -> None:
    assert refusal(command, "uptime", RESTART) == f"is not allowed; allowed are `uptime`, `{RESTART}`"


@pytest.mark.parametrize(
    "command",
    [
        "systemctl restart web; reboot",
        "systemctl restart web\nreboot",
        "systemctl restart $(reboot)",
        'systemctl restart "$(reboot)"',
        "systemctl restart `reboot`",
        'systemctl restart "`reboot`"',
        "systemctl restart web & reboot",
        "systemctl restart web | sh",
        "systemctl restart web > /etc/passwd",
        "systemctl restart web < /etc/passwd",
        "systemctl restart $UNIT",
        "systemctl restart web*",
        "systemctl restart web?",
        "systemctl restart [a-z]",
        "systemctl restart {a,b}",
        "systemctl restart ~root",
        "systemctl restart #web",
        "systemctl restart (web)",
        "systemctl restart web\0",
    ],
)
def test_shell_syntax_in_a_step_is_refused_and_not_quietly_taken_for_text(command: str) -> None:
    assert "which is shell syntax; allowed are `tool" in refusal(command, ANY, "systemctl restart {unit:(?s:.*)}")


@pytest.mark.parametrize(
    ("command", "reason"), [("tool 'a", "has a ' that is never closed"), ('tool "a', 'has a " that'), ("tool a\\", "ends in a")]
)
def test_a_step_that_no_shell_could_read_is_refused(command: str, reason: str) -> None:
    assert reason in refusal(command, ANY)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("tool 'a b'", ["a b"]),
        ("tool a\\ b", ["a b"]),
        ("tool 'a;$(b)`c`|&<>*?[{~#'", ["a;$(b)`c`|&<>*?[{~#"]),
        ("tool a~b#c", ["a~b#c"]),
        ("tool ''", [""]),
        ("tool a''b", ["ab"]),
        ("tool \\;", [";"]),
    ],
)
def test_quotes_of_a_step_are_read_as_a_posix_shell_reads_them(command: str, words: list[str]) -> None:
    assert shlex.split(line(command, ANY)) == ["tool", *words] == shlex.split(command)


def test_in_double_quotes_a_backslash_escapes_what_posix_says() -> None:
    """The standard library knows fewer; POSIX: shell command language, 2.2.3."""
    assert shlex.split(line('tool "a \\"b\\" \\$c \\\\ \\d \\`"', ANY)) == ["tool", 'a "b" $c \\ \\d `']


@given(st.lists(texts, max_size=5))
def test_words_are_read_as_the_standard_library_reads_them(words: list[str]) -> None:
    """Quoted in another way than ours, so that one is the check of the other."""
    allowed = " ".join(["tool", *(f"{{v{at}:{'-' if word.startswith('-') else ''}(?s:.*)}}" for at, word in enumerate(words))])
    escaped = ["".join(f"'{c}'" if c != "'" else '"\'"' for c in word) or "''" for word in words]
    if words:
        assert shlex.split(line(" ".join(["tool", *escaped]), allowed)) == ["tool", *words]


# Values


@given(texts)
def test_a_value_stays_one_word_whatever_it_holds(value: str) -> None:
    allowed = ANY_OPTION if value.startswith("-") else ANY
    for command in ("tool {{ value }}", "tool '{{ value }}'", 'tool "{{value}}"'):
        assert shlex.split(line(command, allowed, value=value)) == ["tool", value]


@given(texts)
def test_a_value_within_a_word_stays_within_it(value: str) -> None:
    assert shlex.split(line("tool --at={{ value }}'!'", "tool --at={value:(?s:.*)}\\!", value=value)) == ["tool", f"--at={value}!"]


def test_a_value_is_not_filled_in_again() -> None:
    assert line("tool {{ a }}", ANY, a="{{ b }}", b="c") == "tool '{{ b }}'"


def test_numbers_and_truth_values_are_written_as_everywhere() -> None:
    assert line("tool {{ a }}", ANY, a=0.93) == "tool 0.93"
    assert line("tool {{ a }}", ANY, a=True) == "tool true"


@pytest.mark.parametrize("command", ["tool {{ nothing }}", "tool {{ unknown }}"])
def test_a_value_that_is_missing_stops_the_step(command: str) -> None:
    with pytest.raises(ExpressionError, match="has no value in this run"):
        line(command, ANY, nothing=None)


def test_the_control_a_value_that_is_filled_in_before_the_words_are_split_would_add_words() -> None:
    filled_first = "tool {{ value }}".replace("{{ value }}", "a b")
    assert shlex.split(filled_first) != shlex.split(line("tool {{ value }}", ANY, value="a b"))


@pytest.mark.parametrize(
    ("regex", "value", "taken"),
    [
        ("[a-z]+", "web", True),
        ("[a-z]+", "web\n", False),
        ("[a-z]+$", "web\n", False),
        ("^[a-z]+$", "\nweb", False),
        ("(?m)^[a-z]+$", "web\nreboot", False),
        ("[a-z]+", "web1", False),
        ("[a-z]+", "1web", False),
        ("a|b", "ab", False),
        ("a|b", "b", True),
        ("a|b", "bc", False),
        (".*", "a\nb", False),
        ("\\d{1,3}", "12", True),
        ("\\d{1,3}", "1234", False),
        ("\\{x\\}", "{x}", True),
        ("[é]", "é", True),
    ],
)
def test_a_regex_has_to_match_the_whole_value(regex: str, value: str, taken: bool) -> None:
    allowed = f"tool {{value:{regex}}}"
    if taken:
        assert shlex.split(line("tool {{ value }}", allowed, value=value)) == ["tool", value]
    else:
        assert "is not allowed" in refusal("tool {{ value }}", allowed, value=value)


@pytest.mark.parametrize(
    ("allowed", "value", "taken"),
    [
        ("tool {v:.*}", "-rf", False),
        ("tool {v:[a-z-]+}", "-rf", False),
        ("tool {v:(-rf)}", "-rf", False),
        ("tool {v:.*}", "--", False),
        ("tool {v:.*}", "-", False),
        ("tool {v:-rf}", "-rf", True),
        ("tool {v:-?[0-9]+}", "-5", True),
        ("tool {v:-?[0-9]+}", "5", True),
        ("tool {v:-?[0-9]+}", "-rf", False),
        ("tool --level={v:.*}", "-rf", True),
        ("tool -- {v:.*}", "-rf", False),
        ("tool {v:.*}", "a-rf", True),
    ],
)
def test_a_value_becomes_an_option_only_where_the_regex_begins_with_a_dash(allowed: str, value: str, taken: bool) -> None:
    command = allowed.partition("{")[0] + "{{ v }}"
    if taken:
        assert shlex.split(line(command, allowed, v=value))[-1].endswith(value)
    else:
        assert "is not allowed" in refusal(command, allowed, v=value)


def test_the_control_without_that_rule_the_regex_alone_would_take_the_option() -> None:
    (parameter,) = [word.parameter for word in parse_allowed("tool {v:.*}").pattern or () if word.parameter]
    assert parameter.regex.fullmatch("-rf")
    assert not parameter.takes("-rf", begins_word=True)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("a\0b", "holds a NUL character"),
        ("a\ud800b", "holds an unpaired surrogate"),
        ("'" * (LINE_LIMIT_BYTES // 5), "has 100,007 bytes"),
    ],
)
def test_what_no_argument_can_hold_is_refused(value: str, reason: str) -> None:
    # A line break is shell syntax in the text of a step and fine in a value; what no value can hold is refused at the end.
    assert reason in refusal("tool {{ v }}", ANY, v=value)


# The list


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("tool {v:(}", "has the parameter 'v', whose regex is not valid"),
        ("tool {v:a{2,1}}", "whose regex is not valid"),
        ("tool {v:a{99999999999}}", "whose regex is not valid"),
        ("tool {v:}", "has the parameter 'v' without a regex"),
        ("tool {v:a", "has the parameter 'v', which no } closes"),
        ("tool {v:[{]}", "which no } closes"),
        ("tool '{v:a}'", "has the parameter 'v' in quotes"),
        ('tool "{v:a}"', "has the parameter 'v' in quotes"),
        ("{v:a} tool", "may not have a parameter in its first word"),
        ("/bin/{v:a} x", "may not have a parameter in its first word"),
        ("LD_PRELOAD=/x tool {v:a}", "may not begin with a variable"),
        ("tool {v:a} {v:b}", "has two parameters named 'v'"),
        ("tool {v:a}{w:b}", "has the parameters 'v' and 'w' in one word"),
        ("tool {v:a} | sh", "has '|' outside of quotes, which is shell syntax"),
        ("tool $HOME/{v:a}", "has '$' outside of quotes"),
        ("tool {v:a} {w}", "has '{' outside of quotes"),
        ("tool 'x {v:a}", "has the parameter 'v' in quotes"),
        ("tool {v:a} 'x", "has a ' that is never closed"),
    ],
)
def test_an_entry_that_could_be_misread_is_a_fault(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_allowed(text)
    assert reason in str(caught.value)


def test_an_escaped_brace_is_a_brace() -> None:
    assert line("tool \\{v:a}", "tool \\{v:a}") == "tool \\{v:a}"
    assert parse_allowed("tool \\{v:a\\} {w:b}").matches(["tool", "{v:a}", "b"])


def test_a_long_list_is_named_in_part() -> None:
    assert len(refusal("nothing", *(f"command-{number}" for number in range(200)))) < 700


# Writing


@pytest.mark.parametrize(
    ("word", "written"),
    [("a", "a"), ("", "''"), ("a b", "'a b'"), ("it's", "'it'\"'\"'s'"), ("=ls", "'=ls'"), ("a=b", "a=b"), ("-rf", "-rf")],
)
def test_a_word_is_quoted_where_a_shell_could_read_it_otherwise(word: str, written: str) -> None:
    assert quoted(word) == written


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain ö", "plain ö"), ("a\nb", "a\\nb"), ("\x1b[31m", "\\x1b[31m"), ("a\u202eb", "a\\u202eb"), ("\u00a0", "\\xa0")],
)
def test_what_a_reader_would_not_see_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown
