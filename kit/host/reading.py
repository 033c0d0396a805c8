"""JSON that another kit wrote, read into dataclasses: what is known is checked, more is left alone.

A site may have a newer kit than the connected side: keys that this kit does not know are passed
over, those that it knows must be there and of their type.
"""

from __future__ import annotations

import math
import re
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""What no text may hold: it would reach a terminal."""
_T = TypeVar("_T")


def decode(kind: type[_T], value: Any) -> _T:
    """Turn parsed JSON into a dataclass; ValueError names the key that does not fit."""
    found: Any = _value(kind, value, "")
    return found  # type: ignore[no-any-return]


def _value(kind: Any, value: Any, key: str) -> Any:
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        (inner,) = [option for option in get_args(kind) if option is not NoneType]
        return None if value is None else _value(inner, value, key)
    if origin is Literal:
        if not isinstance(value, str) or value not in get_args(kind):
            raise ValueError(f"{key}: expected {' or '.join(get_args(kind))}, found {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{key}: expected a list")
        item_kind = get_args(kind)[0]
        return tuple(_value(item_kind, item, f"{key}[{at}]") for at, item in enumerate(value))
    if is_dataclass(kind):
        return _instance(kind, value, key)
    return _scalar(kind, value, key)


def _scalar(kind: type, value: Any, key: str) -> Any:
    found = float(value) if kind is float and type(value) is int else value
    if type(found) is not kind:
        raise ValueError(f"{key}: expected {kind.__name__}, found {value!r:.100}")
    if isinstance(found, str) and CONTROLS.search(found):
        raise ValueError(f"{key}: a text may hold no control character, found {value!r:.100}")
    if isinstance(found, float) and not math.isfinite(found):
        raise ValueError(f"{key}: expected a number, found {value!r}")
    return found


def _instance(kind: Any, value: Any, key: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{key or 'the document'}: expected an object")  # noqa: TRY004 - of JSON
    prefix = f"{key}." if key else ""
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    for name in names:
        if name not in value:
            raise ValueError(f"missing key {prefix}{name}")
    return kind(**{name: _value(hints[name], value[name], f"{prefix}{name}") for name in names})
