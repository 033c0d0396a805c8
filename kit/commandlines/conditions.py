"""What a script checks after parsing, over values of which some are not known.

The conditions are those of the table: comparisons and logic over `args.<name>`. The answer is
three-valued: True, False, or None where an unknown value decides. Nothing is handed to `eval`.
"""

from __future__ import annotations

import ast
import math
import operator
from typing import TYPE_CHECKING, Any

from kit.commandlines.values import UNKNOWN, Unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def holds(expression: str, values: Mapping[str, Any]) -> bool | None:
    """Whether `args.a is None or len(args.b) == 3` is true; None where that is not known.

    ValueError for an expression that is not part of the language.
    """
    value = _value(ast.parse(expression, mode="eval").body, values)
    return None if isinstance(value, Unknown) else bool(value)


def names(expression: str) -> set[str]:
    """The `x` of every `args.x` in an expression."""
    tree = ast.walk(ast.parse(expression, mode="eval"))
    return {node.attr for node in tree if isinstance(node, ast.Attribute) and _is_args(node)}


def _value(node: ast.expr, values: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Attribute) and _is_args(node):
        return values.get(node.attr)
    if isinstance(node, ast.BoolOp):
        return _logic(node, values)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        value = _value(node.operand, values)
        return value if isinstance(value, Unknown) else not value
    if isinstance(node, ast.Compare):
        return _comparison(node, values)
    if isinstance(node, ast.Call) and not node.keywords:
        return _call(node, values)
    raise ValueError(f"not part of the checks' language: {ast.unparse(node)}")


def _logic(node: ast.BoolOp, values: Mapping[str, Any]) -> Any:
    stop = isinstance(node.op, ast.Or)
    result: Any = not stop
    for operand in node.values:
        value = _value(operand, values)
        if isinstance(value, Unknown):
            result = UNKNOWN
        elif bool(value) is stop:
            return value
        elif not isinstance(result, Unknown):
            result = value
    return result


def _comparison(node: ast.Compare, values: Mapping[str, Any]) -> Any:
    if len(node.ops) != 1 or type(node.ops[0]) not in _COMPARE:
        raise ValueError(f"not part of the checks' language: {ast.unparse(node)}")
    kind = type(node.ops[0])
    left, right = _value(node.left, values), _value(node.comparators[0], values)
    if isinstance(left, Unknown) or isinstance(right, Unknown):
        other = right if isinstance(left, Unknown) else left
        if kind in {ast.Is, ast.IsNot} and other is None:
            return kind is ast.IsNot  # what is given is not None, whatever it is
        return UNKNOWN
    try:
        return _COMPARE[kind](left, right)
    except TypeError:
        return UNKNOWN  # such as None > 0, where the script sets a value before it looks


def _call(node: ast.Call, values: Mapping[str, Any]) -> Any:
    function = node.func
    if isinstance(function, ast.Name) and function.id == "len" and len(node.args) == 1:
        value = _value(node.args[0], values)
        return UNKNOWN if isinstance(value, Unknown) or value is None else len(value)
    if isinstance(function, ast.Attribute) and function.attr == "is_integer" and not node.args:
        value = _value(function.value, values)
        return value if isinstance(value, Unknown) else float(value).is_integer()
    if isinstance(function, ast.Attribute) and function.attr == "log2" and len(node.args) == 1:
        value = _value(node.args[0], values)
        return math.log2(value) if isinstance(value, (int, float)) and value > 0 else UNKNOWN
    raise ValueError(f"not part of the checks' language: {ast.unparse(node)}")


def _is_args(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id == "args"
