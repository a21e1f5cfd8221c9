"""Conditions and text substitution over flat scalar names: all the language a runbook has.

Conditions are evaluated by simpleeval, without functions, attributes or subscripts; text takes `{{ name }}` and nothing more,
because a template language on foreign text is an injection waiting for its payload.
"""

import ast
import re
from collections.abc import Collection, Mapping
from typing import Any

import simpleeval

from domain.anomaly import Anomaly, Severity

Scalar = str | int | float | bool | None

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

EXPRESSION_LIMIT_CHARACTERS = 500

_PLACEHOLDER = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_-]*)*\Z")

_ALLOWED_NODES = (
    ast.Expression,
    ast.BoolOp,
    ast.And,
    ast.Or,
    ast.UnaryOp,
    ast.Not,
    ast.USub,
    ast.UAdd,
    ast.BinOp,
    ast.Add,
    ast.Sub,
    ast.Mult,
    ast.Div,
    ast.Mod,
    ast.Compare,
    ast.Eq,
    ast.NotEq,
    ast.Lt,
    ast.LtE,
    ast.Gt,
    ast.GtE,
    ast.In,
    ast.NotIn,
    ast.Name,
    ast.Load,
    ast.Constant,
    ast.Tuple,
    ast.List,
)


class ExpressionError(ValueError):
    """An expression or a placeholder that cannot be used; the text is one sentence for the runbook's author."""


def names_of(anomaly: Anomaly, severity: Severity) -> dict[str, Scalar]:
    """The names of `ANOMALY_NAMES` for one anomaly; what is unknown is None."""
    values: dict[str, Scalar] = {name: getattr(anomaly, name, None) for name in ANOMALY_NAMES}
    values["severity"] = severity.value
    return values


def check_condition(expression: str, known: Collection[str] = ANOMALY_NAMES) -> None:
    """Refuse what `holds` could not evaluate. Raises ExpressionError: syntax, an unknown name, a forbidden construct."""
    _parse(expression, known)


def holds(expression: str, names: Mapping[str, Scalar]) -> bool:
    """Evaluate a condition. Raises ExpressionError when it cannot be evaluated or is not a bool: never true by accident."""
    _parse(expression, names)
    evaluator = simpleeval.EvalWithCompoundTypes(names=dict(names), functions={})
    try:
        value: Any = evaluator.eval(expression)
    except Exception as error:  # simpleeval passes on whatever the operands raise, TypeError and ZeroDivisionError among them
        raise ExpressionError(f"'{expression}' cannot be evaluated: {error}") from error
    if not isinstance(value, bool):
        raise ExpressionError(f"'{expression}' gives {type(value).__name__}; a condition must give true or false")
    return value


def _parse(expression: str, known: Collection[str]) -> None:
    if not expression.strip():
        raise ExpressionError("a condition may not be empty")
    if len(expression) > EXPRESSION_LIMIT_CHARACTERS:
        raise ExpressionError(f"a condition may have {EXPRESSION_LIMIT_CHARACTERS} characters, not {len(expression)}")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError(f"'{expression}' is not a valid condition") from error
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED_NODES):
            raise ExpressionError(f"'{expression}' may only compare and combine names and constants")
        if isinstance(node, ast.Name) and node.id not in known:
            raise ExpressionError(f"'{node.id}' is not known here; known are {', '.join(sorted(known))}")


def placeholders(text: str) -> list[str]:
    """The names that `text` refers to, in order. Raises ExpressionError for a placeholder that is not a plain name."""
    names = [match.group(1).strip() for match in _PLACEHOLDER.finditer(text)]
    for name in names:
        if not _NAME.match(name):
            raise ExpressionError(f"'{{{{ {name} }}}}' is not a name; only {{{{ name }}}} is substituted")
    return names


def check_text(text: str, known: Collection[str]) -> None:
    """Refuse placeholders that `render` could not fill. Raises ExpressionError naming the first unknown one."""
    for name in placeholders(text):
        if name not in known:
            raise ExpressionError(f"'{{{{ {name} }}}}' is not known here; known are {', '.join(sorted(known))}")


def render(text: str, names: Mapping[str, Scalar]) -> str:
    """Fill in the placeholders, once: what a value contains is never substituted again.

    Raises ExpressionError for a name that is unknown or has no value: a command with a hole in it is not run.
    """
    placeholders(text)

    def fill(match: re.Match[str]) -> str:
        name = match.group(1).strip()
        value = names.get(name)
        if value is None:
            raise ExpressionError(f"'{{{{ {name} }}}}' has no value in this run")
        if isinstance(value, bool):
            return "true" if value else "false"
        return str(value)

    return _PLACEHOLDER.sub(fill, text)
