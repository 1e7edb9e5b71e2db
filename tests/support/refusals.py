"""Finds in the data plane's code every sentence with which it refuses a request."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.servers import ROOT

# Callables whose text argument a client reads, and which argument that is.
SAYING = {
    "ApiError": 2,
    "AttemptFailed": None,
    "NotServed": 0,
    "Refusal": "message",
    "Refused": "message",
    "_forbidden": 0,
    "_invalid": 0,
    "_payment_refusal": 0,
    "error_event": 1,
    "invalid": 0,
    "overloaded": 0,
    "wrong": 1,
}
CONTRACTS = ROOT / "platform" / "turnpike" / "contracts"
PLACES = (ROOT / "proxy", CONTRACTS / "features.py", CONTRACTS / "standing.py")
# Asked by the platform's own worker alone; what it is told is an item's result.
UNHEARD = ROOT / "proxy" / "batch_items.py"


def sentences_in_code() -> set[str]:
    """Every sentence, with `…` for what is filled in."""
    return {
        text
        for place in PLACES
        for path in ([place] if place.is_file() else sorted(place.rglob("*.py")))
        if path != UNHEARD
        for text in _sentences_of(path)
    }


def _sentences_of(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            value = _argument(node)
            if isinstance(value, ast.Name):
                value = constants.get(value.id)
            text = _text_of(value)
            if text.strip("… :"):
                yield text


def _argument(call: ast.Call) -> ast.expr | None:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    place = SAYING.get(name)
    if isinstance(place, int) and len(call.args) > place:
        return call.args[place]
    if isinstance(place, str):
        return next((item.value for item in call.keywords if item.arg == place), None)
    return None


def _text_of(value: ast.expr | None) -> str:
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return value.value
    if isinstance(value, ast.JoinedStr):
        parts = [
            str(part.value) if isinstance(part, ast.Constant) else "…" for part in value.values
        ]
        return "".join(parts)
    return ""
