"""Conditions: their grammar, checked whole when a runbook loads, and the meaning of their operators.

What can go wrong later is only a value: one that is unknown, or of another kind than it is compared with. Both are errors and never
an answer, because `not` would turn a false by accident into a true by accident.
"""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, cast

import simpleeval

Number = int | float
Scalar = str | int | float | bool | None

EXPRESSION_LIMIT_CHARACTERS = 500
DEPTH_LIMIT = 40
"""Levels of nesting in a condition, far below what exhausts Python's stack."""
INTEGER_LIMIT_BITS = 1_024
"""As far as a float reaches; Python writes no integer of more than 4,300 digits (`sys.set_int_max_str_digits`)."""
COMPILED_CONDITIONS = 1_024
"""How many conditions are kept parsed, the least recently used forgotten first."""

_SHOWN_CHARACTERS = 120


class ExpressionError(ValueError):
    """An expression or a placeholder that cannot be used; the text is one sentence for the runbook's author."""


def clip(text: str) -> str:
    """Shorten what an error quotes."""
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


# --- grammar ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Condition:
    """A condition that is grammatical; `flags` are the names that stand where true or false belongs."""

    text: str
    root: ast.expr
    names: frozenset[str]
    flags: frozenset[str]


@lru_cache(maxsize=COMPILED_CONDITIONS)
def compile_condition(expression: str) -> Condition:
    """Parse a condition and hold it against the grammar, whatever its names. Raises ExpressionError with what is wrong."""
    text = expression.strip()
    if not text:
        raise ExpressionError("a condition may not be empty")
    if len(expression) > EXPRESSION_LIMIT_CHARACTERS:
        raise ExpressionError(f"a condition may have {EXPRESSION_LIMIT_CHARACTERS} characters, not {len(expression)}")
    if "\\" in text:  # an escape that Python does not know is a warning on the worker's console, not an error
        raise ExpressionError(f"'{clip(text)}' may not contain a backslash")
    try:
        root = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError(f"'{clip(text)}' is not a valid condition") from error
    grammar = _Grammar(text)
    grammar.truth(root, DEPTH_LIMIT)
    return Condition(text=text, root=root, names=frozenset(grammar.names), flags=frozenset(grammar.flags))


class _Grammar:
    """Walks a syntax tree and lets pass: comparisons of values, joined by `and`, `or` and `not`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: set[str] = set()
        self.flags: set[str] = set()

    def truth(self, node: ast.expr, depth: int) -> None:
        """Something that is true or false."""
        self._descend(depth)
        match node:
            case ast.BoolOp(values=values):
                for value in values:
                    self.truth(value, depth - 1)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self.truth(operand, depth - 1)
            case ast.Compare(left=left, ops=operations, comparators=comparators):
                self.value(left, depth - 1)
                for operation, comparator in zip(operations, comparators, strict=True):
                    self._comparison(operation, comparator, depth - 1)
            case ast.Name(id=name):
                self.names.add(name)
                self.flags.add(name)
            case ast.Constant(value=bool()):
                return
            case _:
                raise self._refused("must compare something; 'and', 'or' and 'not' join comparisons")

    def value(self, node: ast.expr, depth: int) -> None:
        """Something that can be compared: a name, a constant, or arithmetic of them."""
        self._descend(depth)
        match node:
            case ast.Name(id=name):
                self.names.add(name)
            case ast.Constant(value=str() | bool() | None):
                return
            case ast.Constant(value=int() | float() as number):
                self._number(number)
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() | ast.Mod(), right=right):
                self.value(left, depth - 1)
                self.value(right, depth - 1)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
                self.value(operand, depth - 1)
            case _:
                raise self._refused("may only compare and combine names and constants")

    def _comparison(self, operation: ast.cmpop, right: ast.expr, depth: int) -> None:
        match operation, right:
            case ((ast.In() | ast.NotIn()), (ast.List(elts=members) | ast.Tuple(elts=members))):
                for member in members:
                    self.value(member, depth - 1)
            case ((ast.Is() | ast.IsNot()), _):
                raise self._refused("may not use 'is': write == None or != None")
            case _:
                self.value(right, depth)

    def _number(self, number: Number) -> None:
        try:
            usable_number(number)
        except ExpressionError as error:
            raise self._refused(f"has a number that cannot be used: {error}") from error

    def _descend(self, depth: int) -> None:
        if depth <= 0:
            raise self._refused(f"is nested more than {DEPTH_LIMIT} levels deep")

    def _refused(self, reason: str) -> ExpressionError:
        return ExpressionError(f"'{clip(self.text)}' {reason}")


# --- meaning ------------------------------------------------------------------------------------------------------


class _Unknown:
    """The value of a name that has none: equal to the word `None`, an error in any other comparison."""


_UNKNOWN = _Unknown()


def usable_number(value: object) -> Number:
    """A finite number of sensible size. Raises ExpressionError for anything else: truth values, texts, NaN, unknown."""
    if isinstance(value, _Unknown) or value is None:
        raise ExpressionError("a value is unknown")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ExpressionError("only numbers can be calculated with and ordered by size")
    if isinstance(value, int) and value.bit_length() > INTEGER_LIMIT_BITS:
        raise ExpressionError("a number is too large")
    if not math.isfinite(value):
        raise ExpressionError("a number is not finite")
    return value


def _arithmetic(function: Callable[[Number, Number], Number]) -> Callable[[object, object], Number]:
    return lambda left, right: usable_number(function(usable_number(left), usable_number(right)))


def _ordering(function: Callable[[Number, Number], bool]) -> Callable[[object, object], bool]:
    # Numbers only: by the alphabet, 'medium' is more than 'high' is more than 'critical'.
    return lambda left, right: function(usable_number(left), usable_number(right))


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "a truth value"
    if isinstance(value, str):
        return "a text"
    usable_number(value)
    return "a number"


def _equal(left: object, right: object) -> bool:
    if left is None or right is None:
        return all(value is None or isinstance(value, _Unknown) for value in (left, right))
    if isinstance(left, _Unknown) or isinstance(right, _Unknown):
        raise ExpressionError("a value is unknown; ask for that first, with == None")
    if _kind(left) != _kind(right):
        raise ExpressionError(f"{_kind(left)} is compared with {_kind(right)}")
    return left == right


def _within(member: object, whole: object) -> bool:
    if isinstance(whole, list | tuple):
        others = cast("list[object]", whole)
        if isinstance(member, _Unknown) and any(other is None for other in others):
            return True
        return any([_equal(member, other) for other in others])  # all are compared: no short cut around a wrong kind
    if isinstance(member, str) and isinstance(whole, str):
        return member in whole
    raise ExpressionError("'in' takes a value and a list, or two texts, and they must be known")


_UNARY: dict[type[ast.AST], Callable[[object], object]] = {
    ast.USub: lambda value: -usable_number(value),
    ast.UAdd: usable_number,
    ast.Not: operator.not_,
}
_BINARY: dict[type[ast.AST], Callable[[object, object], object]] = {
    ast.Add: _arithmetic(lambda left, right: left + right),
    ast.Sub: _arithmetic(lambda left, right: left - right),
    ast.Mult: _arithmetic(lambda left, right: left * right),
    ast.Div: _arithmetic(lambda left, right: left / right),
    ast.Mod: _arithmetic(lambda left, right: left % right),
    ast.Eq: _equal,
    ast.NotEq: lambda left, right: not _equal(left, right),
    ast.Lt: _ordering(lambda left, right: left < right),
    ast.LtE: _ordering(lambda left, right: left <= right),
    ast.Gt: _ordering(lambda left, right: left > right),
    ast.GtE: _ordering(lambda left, right: left >= right),
    ast.In: _within,
    ast.NotIn: lambda member, whole: not _within(member, whole),
}

_names: ContextVar[Mapping[str, object]] = ContextVar("condition_names")


def _lookup(node: ast.Name) -> object:
    return _names.get()[node.id]


class _Evaluator(Protocol):
    """What is used of simpleeval, which carries no types."""

    def eval(self, expr: str, previously_parsed: ast.expr) -> object: ...


# One for all: making one takes longer than evaluating, and changes the process's warning filters for a moment, which is not
# safe beside other threads. It holds no state between evaluations; the names come from a context variable.
_evaluator = cast("_Evaluator", simpleeval.EvalWithCompoundTypes(operators={**_UNARY, **_BINARY}, functions={}, names=_lookup))


def evaluate(condition: Condition, names: Mapping[str, Scalar]) -> bool:
    """Evaluate a condition all of whose names are keys of `names`. Raises ExpressionError when there is no answer."""
    shown = clip(condition.text)
    for name in condition.flags:
        if not isinstance(names[name], bool):
            raise ExpressionError(f"'{shown}' takes '{name}' for true or false, and it is not")
    token = _names.set({name: _UNKNOWN if value is None else value for name, value in names.items()})
    try:
        value = _evaluator.eval(condition.text, condition.root)
    except Exception as error:  # whatever the operands raise (ZeroDivisionError, OverflowError, …), there is no answer
        raise ExpressionError(f"'{shown}' cannot be evaluated: {error}") from error
    finally:
        _names.reset(token)
    if not isinstance(value, bool):
        raise ExpressionError(f"'{shown}' gives {type(value).__name__}; a condition must give true or false")
    return value
