"""What the supervisor writes: each child's lines with its name, for people or for machines."""

import json
import sys
from collections.abc import Mapping
from typing import TextIO

from turnpike.kernel import clock

COLOURS = (36, 35, 33, 32, 34, 96, 95, 93)
RESET = "\x1b[0m"
LINE_BYTES_MAX = 65_536


class Output:
    """Writes whole lines to one stream; a closed terminal does not stop the platform."""

    def __init__(self, stream: TextIO | None = None, *, is_json: bool = False) -> None:
        self._stream = stream or sys.stdout
        self._is_json = is_json
        self._is_coloured = not is_json and self._stream.isatty()
        self._colours: dict[str, int] = {}

    def say(self, text: str, **fields: object) -> None:
        """A line of the supervisor itself."""
        if self._is_json:
            self._write(json.dumps({**self._head("up"), "message": text, **fields}))
        else:
            self._write(text)

    def relay(self, name: str, line: bytes) -> None:
        """A line of a child."""
        text = line.decode(errors="replace").rstrip()
        if not text:
            return
        if self._is_json:
            self._write(json.dumps({**self._head(name), **_fields_of(text)}))
        else:
            self._write(f"{self._prefix(name)} {text}")

    def _head(self, name: str) -> dict[str, object]:
        return {"at": clock.rfc3339(clock.utc_now()), "process": name}

    def _prefix(self, name: str) -> str:
        text = f"{name:<10}|"
        if not self._is_coloured:
            return text
        colour = self._colours.setdefault(name, COLOURS[len(self._colours) % len(COLOURS)])
        return f"\x1b[{colour}m{text}{RESET}"

    def _write(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            return


def _fields_of(text: str) -> Mapping[str, object]:
    try:
        found = json.loads(text)
    except ValueError:
        return {"message": text}
    return found if isinstance(found, dict) else {"message": text}


class Lines:
    """Cuts a stream of bytes into lines of bounded length."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_BYTES_MAX:
            lines.append(self._rest)
            self._rest = b""
        return lines

    def rest(self) -> bytes:
        """What stands after the last line feed."""
        rest, self._rest = self._rest, b""
        return rest
