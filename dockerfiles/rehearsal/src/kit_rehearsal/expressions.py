"""The small language of the table's checks: comparisons and logic over `args.<name>`.

Nothing is handed to `eval`: the syntax tree is walked, and what is not listed here is an error.
"""

from __future__ import annotations

import ast
import math
import operator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

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


def holds(expression: str, args: argparse.Namespace) -> bool:
    """Whether an expression such as `args.a is None or len(args.b) == 3` is true."""
    return bool(_value(ast.parse(expression, mode="eval").body, args))


def _value(node: ast.expr, args: argparse.Namespace) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Attribute) and _is_name(node.value, "args"):
        return getattr(args, node.attr, None)
    if isinstance(node, ast.BoolOp):
        return _logic(node, args)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return not _value(node.operand, args)
    if isinstance(node, ast.Compare):
        return _comparison(node, args)
    if isinstance(node, ast.Call) and not node.keywords:
        return _call(node, args)
    raise ValueError(f"not part of the checks' language: {ast.unparse(node)}")


def _logic(node: ast.BoolOp, args: argparse.Namespace) -> Any:
    stop = isinstance(node.op, ast.Or)
    result: Any = not stop
    for operand in node.values:
        result = _value(operand, args)
        if bool(result) is stop:
            return result
    return result


def _comparison(node: ast.Compare, args: argparse.Namespace) -> bool:
    left = _value(node.left, args)
    for kind, right_node in zip(node.ops, node.comparators):
        if type(kind) not in _COMPARE:
            raise ValueError(f"not part of the checks' language: {ast.unparse(node)}")
        right = _value(right_node, args)
        if not _COMPARE[type(kind)](left, right):
            return False
        left = right
    return True


def _call(node: ast.Call, args: argparse.Namespace) -> Any:
    function = node.func
    if _is_name(function, "len") and len(node.args) == 1:
        return len(_value(node.args[0], args))
    if isinstance(function, ast.Attribute):
        if _is_name(function.value, "math") and function.attr == "log2" and len(node.args) == 1:
            return math.log2(_value(node.args[0], args))
        if function.attr == "is_integer" and not node.args:
            return float(_value(function.value, args)).is_integer()
    raise ValueError(f"not part of the checks' language: {ast.unparse(node)}")


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name
