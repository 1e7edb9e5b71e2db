"""Every setting and error code is documented, and the documents point at things that exist."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers import ROOT
from turnpike.env import Env
from turnpike.kernel import errors

DOCUMENTS = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
]


def documented_variables() -> set[str]:
    text = (ROOT / "docs" / "configuration.md").read_text()
    return set(re.findall(r"^\| `([A-Z_]+)` \|", text, flags=re.MULTILINE))


def proxy_variables() -> set[str]:
    text = (ROOT / "proxy" / "config.py").read_text()
    return set(re.findall(r'"([A-Z][A-Z_]{3,})"', text))


def test_settings_are_documented_and_nothing_else_is() -> None:
    known = {name.upper() for name in Env.model_fields} | proxy_variables()

    assert documented_variables() == known


def all_errors(base: type[errors.TurnpikeError]) -> Iterator[type[errors.TurnpikeError]]:
    yield base
    ours = ("turnpike.", "accounts.", "billing.")
    for kind in (kind for kind in base.__subclasses__() if kind.__module__.startswith(ours)):
        yield from all_errors(kind)


def test_error_codes_are_documented_with_their_status() -> None:
    text = (ROOT / "docs" / "errors.md").read_text()
    rows = set(re.findall(r"^\| (\d{3}) \| `(\w+)` \|", text, flags=re.MULTILINE))

    missing = {(str(kind.status), kind.code) for kind in all_errors(errors.TurnpikeError)} - rows

    assert missing == set()


def test_the_newest_heading_of_the_changelog_is_the_version() -> None:
    heading = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert heading is not None
    assert heading.group(1) == project["version"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", path.read_text())
    local = [target for target in targets if "://" not in target]

    missing = [target for target in local if not (path.parent / target).exists()]

    assert missing == []


def test_the_readme_fits_on_a_screen() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 60
