"""How values of a run get into the queries of a check: as values, whatever they contain. Pure.

ClickHouse takes them beside the query, as bound parameters. Prometheus has no such thing: a value is written as its place
demands, and only where a place can keep it in.
"""

import re
from collections.abc import Callable, Mapping

from activities.errors import InvalidStep
from domain import expressions
from domain.base import Durable
from domain.expressions import Scalar

_PLACEHOLDER = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)

# --- ClickHouse ---------------------------------------------------------------------------------------------------

_READS = re.compile(r"(?:SELECT|WITH)\b", re.IGNORECASE)
_SQL_QUOTED = re.compile(
    r"--[^\n]*|/\*.*?\*/|(?P<quoted>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|`(?:[^`\\]|\\.)*`)",
    re.DOTALL,
)


class BoundQuery(Durable):
    """A query of ClickHouse, and the values of its parameters."""

    text: str
    parameters: dict[str, int | float | str]


def bind_sql(template: str, names: Mapping[str, Scalar]) -> BoundQuery:
    """Put a typed parameter in place of every `{{ name }}`: `{p1:String}`.

    Raises: ExpressionError as `expressions.render`; InvalidStep for a query that is no SELECT, for a placeholder within quotes,
    where ClickHouse would take the parameter for text, and for an integer that fits no column.
    """
    expressions.render(template, names)
    if not _READS.match(template):
        raise InvalidStep("the query of a clickhouse check must begin with SELECT or WITH")
    for token in _SQL_QUOTED.finditer(template):
        inside = _PLACEHOLDER.search(token["quoted"] or "")
        if inside:
            raise InvalidStep(f"'{inside[0]}' stands within quotes: a clickhouse check takes it without them, as a value")
    parameters: dict[str, int | float | str] = {}

    def parameter(found: re.Match[str]) -> str:
        kind, value = _typed(found[0], names[found[1].strip()])
        name = f"p{len(parameters) + 1}"
        parameters[name] = value
        return f"{{{name}:{kind}}}"

    return BoundQuery(text=_PLACEHOLDER.sub(parameter, template), parameters=parameters)


def _typed(shown: str, value: Scalar) -> tuple[str, int | float | str]:
    match value:
        case bool():
            return "UInt8", int(value)
        case int() if -(2**63) <= value < 2**63:
            return "Int64", value
        case float():
            return "Float64", value
        case str():
            return "String", value
        case _:
            raise InvalidStep(f"'{shown}' is a number that does not fit into 64 bits")


# --- Prometheus ---------------------------------------------------------------------------------------------------

_PROMQL_TOKEN = re.compile(r"(?P<comment>#[^\n]*)|(?P<string>\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|`[^`]*`)", re.DOTALL)
_MATCHER = re.compile(r"(?P<operator>=~|!~|!=|=)\s*\Z")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?")
_WORD = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*|[0-9]+(?:ms|[smhdwy])")
_META = re.compile(r"[\\.+*?()|\[\]{}^$]")  # what RE2's QuoteMeta escapes
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def fill_promql(template: str, names: Mapping[str, Scalar]) -> str:
    """Write the values into a query of Prometheus.

    Within the string of a label matcher any value is escaped, for `=~` and `!~` as a regular expression too. Elsewhere only what
    is one word may stand: a number, a metric's name, a duration.
    Raises: ExpressionError as `expressions.render`; InvalidStep for a value that its place cannot keep in.
    """
    expressions.render(template, names)
    filled, end = "", 0
    for token in _PROMQL_TOKEN.finditer(template):
        before = template[end : token.start()]
        filled += _fill(before, names, _bare)
        filled += _string(token, template[: token.start()], names)
        end = token.end()
    return filled + _fill(template[end:], names, _bare)


def _string(token: re.Match[str], before: str, names: Mapping[str, Scalar]) -> str:
    text = token[0]
    inside = _PLACEHOLDER.search(text)
    if inside is None:
        return text
    matcher = _MATCHER.search(before)
    if matcher is None or token["comment"] is not None:
        raise InvalidStep(f"'{inside[0]}' may stand in a label matcher or as one word, and nowhere else in a prometheus query")
    is_pattern, quote = matcher["operator"] in ("=~", "!~"), text[0]

    def escaped(shown: str, value: str) -> str:
        return _quoted(shown, _META.sub(r"\\\g<0>", value) if is_pattern else value, quote)

    return _fill(text, names, escaped)


def _quoted(shown: str, value: str, quote: str) -> str:
    if quote == "`":
        if "`" in value:
            raise InvalidStep(f"the value of '{shown}' holds a ` and cannot stand within `…`: use double quotes")
        return value
    return "".join(_ESCAPES.get(character, f"\\{quote}" if character == quote else character) for character in value)


def _bare(shown: str, value: str) -> str:
    if _NUMBER.fullmatch(value):
        return f"({value})" if value.startswith("-") else value
    if not _WORD.fullmatch(value):
        raise InvalidStep(
            f"the value of '{shown}' is neither a number nor one name: it may stand in the quotes of a label matcher only"
        )
    return value


def _fill(text: str, names: Mapping[str, Scalar], write: Callable[[str, str], str]) -> str:
    return _PLACEHOLDER.sub(lambda found: write(found[0], expressions.render(found[0], names)), text)
