"""Reads JSON objects field by field; whatever nobody took is told to the client, never lost."""

import re
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from proxy.api_errors import ApiError

T = TypeVar("T")

NAMES_MAX = 24
OTHERS = "and-others"
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)
_NULL = b"null"

_read_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_read_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Ignored:
    """The names of what was asked for and cannot be carried over, in the order of their finding."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}

    def add(self, name: str) -> None:
        """Note a name. It goes into a header, so it is bounded and holds no odd characters."""
        safe = name if _NAME.fullmatch(name) else "unnamed"
        if len(self._names) < NAMES_MAX:
            self._names[safe] = None
        elif safe not in self._names:
            self._names[OTHERS] = None

    @property
    def names(self) -> tuple[str, ...]:
        """What was ignored, each name once."""
        return tuple(self._names)


class Fields:
    """One JSON object. A null is taken for an absent field, as both APIs do."""

    __slots__ = ("_left", "path", "source")

    def __init__(
        self, values: Mapping[str, msgspec.Raw], path: str = "", source: bytes = b""
    ) -> None:
        self.path = path
        self.source = source  # the object as it came
        self._left = {name: value for name, value in values.items() if bytes(value) != _NULL}

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def at(self, name: str) -> str:
        """The path of a field, as errors name it."""
        return f"{self.path}.{name}" if self.path else name

    def raw(self, name: str) -> msgspec.Raw | None:
        """Take a field as the bytes that came."""
        return self._left.pop(name, None)

    def take(self, name: str, kind: type[T], word: str) -> T | None:
        """Take a field of a type. Raises ApiError 400 where it has another."""
        raw = self._left.pop(name, None)
        if raw is None:
            return None
        try:
            return msgspec.json.decode(raw, type=kind)
        except _UNREADABLE as error:
            raise self.wrong(name, f"Input should be a valid {word}") from error

    def text(self, name: str) -> str | None:
        """Take a string."""
        return self.take(name, str, "string")

    def needed_text(self, name: str) -> str:
        """Take a string that must be there."""
        value = self.text(name)
        if value is None:
            raise self.missing(name)
        return value

    def integer(self, name: str) -> int | None:
        """Take a whole number."""
        return self.take(name, int, "integer")

    def number(self, name: str) -> int | float | None:
        """Take a number."""
        whole = self.take(name, msgspec.Raw, "number")
        if whole is None:
            return None
        try:
            return msgspec.json.decode(whole, type=int | float)
        except _UNREADABLE as error:
            raise self.wrong(name, "Input should be a valid number") from error

    def flag(self, name: str) -> bool | None:
        """Take a boolean."""
        return self.take(name, bool, "boolean")

    def object(self, name: str) -> "Fields | None":
        """Take an object."""
        raw = self._left.pop(name, None)
        return None if raw is None else object_of(raw, self.at(name))

    def needed_object(self, name: str) -> "Fields":
        """Take an object that must be there."""
        value = self.object(name)
        if value is None:
            raise self.missing(name)
        return value

    def objects(self, name: str) -> "list[Fields]":
        """Take a list of objects; an absent one is empty."""
        raw = self._left.pop(name, None)
        if raw is None:
            return []
        try:
            items = _read_list(raw)
        except _UNREADABLE as error:
            raise self.wrong(name, "Input should be a valid list") from error
        return [object_of(item, f"{self.at(name)}.{index}") for index, item in enumerate(items)]

    def is_text(self, name: str) -> bool:
        """Whether a field is a string."""
        raw = self._left.get(name)
        return raw is not None and bytes(raw)[:1] == b'"'

    def is_list(self, name: str) -> bool:
        """Whether a field is a list."""
        raw = self._left.get(name)
        return raw is not None and bytes(raw)[:1] == b"["

    def drop(self, name: str, *neutral: bytes) -> None:
        """Pass over a field, told or not, if its JSON is one of these: it asks for nothing."""
        raw = self._left.get(name)
        if raw is not None and bytes(raw) in neutral:
            del self._left[name]

    def tell(self, ignored: Ignored) -> None:
        """Note every field that nobody took, under its path without positions."""
        if not self._left:
            return
        steps = [step for step in self.path.split(".") if step and not step.isdecimal()]
        for name in self._left:
            ignored.add(".".join([*steps, name]))
        self._left.clear()

    def missing(self, name: str) -> ApiError:
        """400: a field must be there."""
        return self.wrong(name, "Field required")

    def wrong(self, name: str, sentence: str) -> ApiError:
        """400: what is wrong with a field."""
        return invalid(f"{self.at(name)}: {sentence}")


def object_of(raw: bytes | msgspec.Raw, path: str = "") -> Fields:
    """An object's fields. Raises ApiError 400 where there is none."""
    try:
        return Fields(_read_object(raw), path, bytes(raw))
    except msgspec.ValidationError as error:
        raise invalid(f"{path or 'Request body'}: Input should be an object") from error
    except _UNREADABLE as error:
        where = f"{path}: " if path else ""
        raise invalid(f"{where}The request body is not valid JSON.") from error


def invalid(message: str) -> ApiError:
    """400 with this message."""
    return ApiError(400, "invalid_request_error", message)
