"""Conditions and text substitution over flat scalar names: all the language a runbook has.

A condition compares and combines, and nothing else: `anomaly_score > 0.7 and severity in ['high', 'critical']`.
Text takes `{{ name }}` and nothing more: a template language on foreign text is an injection waiting for its payload.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from domain.anomaly import Anomaly, Severity
from domain.conditions import ExpressionError, Scalar, clip, compile_condition, evaluate, usable_number

__all__ = [
    "ANOMALY_NAMES",
    "RENDERED_LIMIT_CHARACTERS",
    "RUN_NAMES",
    "ExpressionError",
    "Scalar",
    "check_condition",
    "check_names",
    "check_text",
    "holds",
    "names_of",
    "placeholders",
    "render",
]

ANOMALY_NAMES = frozenset(
    {
        "anomaly_id",
        "service_id",
        "metric_name",
        "metric_value",
        "anomaly_score",
        "severity",
        "environment",
        "root_cause",
        "rca_confidence",
    }
)
"""What every run started by an anomaly can refer to."""

RUN_NAMES = frozenset({"service_id", "environment"})
"""What a run started by hand can refer to, beside its inputs."""

RENDERED_LIMIT_CHARACTERS = 100_000
"""A thousand placeholders of a long root cause are a mistake; Temporal refuses payloads above 2 MiB."""


def names_of(anomaly: Anomaly, severity: Severity) -> dict[str, Scalar]:
    """The names of `ANOMALY_NAMES` for one anomaly; what is unknown is None."""
    values: dict[str, Scalar] = {name: getattr(anomaly, name, None) for name in ANOMALY_NAMES}
    values["severity"] = severity.value
    return values


def check_condition(expression: str, known: Collection[str] = ANOMALY_NAMES) -> None:
    """Refuse what `holds` could not evaluate. Raises ExpressionError: syntax, an unknown name, a forbidden construct."""
    _require_known(compile_condition(expression).names, known)


def holds(expression: str, names: Mapping[str, Scalar]) -> bool:
    """Evaluate a condition. Raises ExpressionError when it cannot be evaluated or is not a bool: never true by accident.

    A name that is None is unknown: it may be compared with the word `None` (`environment == None`) and with nothing else.
    Pure and fast: a condition is parsed once per process.
    """
    condition = compile_condition(expression)
    _require_known(condition.names, names)
    return evaluate(condition, names)


def _require_known(used: Collection[str], known: Collection[str]) -> None:
    for name in sorted(used):
        if name not in known:
            raise ExpressionError(_unknown(f"'{clip(name)}'", known))


def _unknown(what: str, known: Collection[str]) -> str:
    return f"{what} is not known here; known are {', '.join(sorted(known))}"


_NAME_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.")


def placeholders(text: str) -> list[str]:
    """The names that `text` refers to, in order. Raises ExpressionError for a placeholder that is not a plain name."""
    return [piece.name for piece in _pieces(text) if isinstance(piece, _Placeholder)]


def check_text(text: str, known: Collection[str]) -> None:
    """Refuse placeholders that `render` could not fill. Raises ExpressionError naming the first unknown one."""
    check_names(placeholders(text), known)


def check_names(names: Iterable[str], known: Collection[str]) -> None:
    """Refuse placeholders by these names. Raises ExpressionError naming the first unknown one."""
    for name in names:
        if name not in known:
            raise ExpressionError(_unknown(f"'{{{{ {clip(name)} }}}}'", known))


def render(text: str, names: Mapping[str, Scalar]) -> str:
    """Fill in the placeholders, once: what a value contains is never substituted again.

    Raises ExpressionError for a name that is unknown or has no value: a command with a hole in it is not run.
    Raises ExpressionError as well for more than `RENDERED_LIMIT_CHARACTERS`.
    """
    rendered: list[str] = []
    length = 0
    for piece in _pieces(text):
        filled = _shown(piece.name, names.get(piece.name)) if isinstance(piece, _Placeholder) else piece
        length += len(filled)
        if length > RENDERED_LIMIT_CHARACTERS:
            raise ExpressionError(f"the text would have more than {RENDERED_LIMIT_CHARACTERS:,} characters")
        rendered.append(filled)
    return "".join(rendered)


def _shown(name: str, value: Scalar) -> str:
    if value is None:
        raise ExpressionError(f"'{{{{ {clip(name)} }}}}' has no value in this run")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        try:
            return str(usable_number(value))
        except ExpressionError as error:
            raise ExpressionError(f"'{{{{ {clip(name)} }}}}' cannot be written: {error}") from error
    return value


@dataclass(frozen=True)
class _Placeholder:
    name: str


def _pieces(text: str) -> Iterator[str | _Placeholder]:
    """Cut `text` at its placeholders, in one pass: a search by regular expression takes quadratic time over `{{{{{{…`."""
    position = 0
    while (opening := text.find("{{", position)) >= 0:
        closing = text.find("}}", opening + 2)
        if closing < 0:
            raise ExpressionError("a '{{' is never closed by '}}'")
        name = text[opening + 2 : closing].strip()
        if not _is_name(name):
            raise ExpressionError(f"'{{{{ {clip(name)} }}}}' is not a name; only {{{{ name }}}} is substituted")
        yield text[position:opening]
        yield _Placeholder(name)
        position = closing + 2
    yield text[position:]


def _is_name(text: str) -> bool:
    """A plain name, or names joined by dots of which the later ones may contain dashes."""
    if not _NAME_CHARACTERS.issuperset(text):
        return False
    first, *rest = text.split(".")
    return first.isidentifier() and all(part.replace("-", "_").isidentifier() and part[0] != "-" for part in rest)
