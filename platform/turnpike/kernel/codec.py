"""Frozen dataclasses to JSON and back, without a library.

Unknown fields are ignored and new fields have defaults, so that two releases read each other's
values. The data plane may use a faster codec for the same shapes; this one is the reference.
"""

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


def to_json(value: Any) -> str:
    """A dataclass, or a list or mapping of them, as compact JSON."""
    return json.dumps(value, default=_as_dict, separators=(",", ":"), ensure_ascii=False)


def from_json(kind: type[T], text: str | bytes) -> T:
    """JSON as an instance of the given type. Raises ValueError where the shape does not fit."""
    try:
        return typing.cast(T, _build(kind, json.loads(text)))
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"Not a {getattr(kind, '__name__', kind)}: {error}") from error


def _as_dict(value: Any) -> dict[str, Any]:
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise TypeError(f"Cannot write {type(value).__name__} as JSON.")
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


@cache
def _fields_of(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _build(kind: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _build(next(item for item in arguments if item is not type(None)), value)
    if origin in _CONTAINERS:
        return _CONTAINERS[origin](arguments, value)
    if isinstance(kind, type) and kind not in (object, Any):
        return _expect(kind, value)
    return value


def _build_dataclass(kind: Any, value: Any) -> Any:
    hints = _fields_of(kind)
    items = _expect(dict, value).items()
    return kind(**{name: _build(hints[name], item) for name, item in items if name in hints})


def _build_tuple(arguments: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    return tuple(_build(arguments[0], item) for item in _expect(list, value))


def _build_list(arguments: tuple[Any, ...], value: Any) -> list[Any]:
    return [_build(arguments[0], item) for item in _expect(list, value)]


def _build_mapping(arguments: tuple[Any, ...], value: Any) -> dict[str, Any]:
    return {key: _build(arguments[1], item) for key, item in _expect(dict, value).items()}


_CONTAINERS: dict[Any, Callable[[tuple[Any, ...], Any], Any]] = {
    tuple: _build_tuple,
    list: _build_list,
    dict: _build_mapping,
    Mapping: _build_mapping,
}


def _expect(kind: type[Any], value: Any) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if isinstance(value, bool) and kind is int:
        raise TypeError("expected a number, got a boolean")
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value
