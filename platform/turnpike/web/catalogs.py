"""Catalogues of translations: found in the code and templates, written, compiled, checked.

One catalogue for each app and language, so that pages of different apps can be worked on side by
side. Compiled files are committed: not every machine has GNU gettext.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_python
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from django.utils.translation.template import templatize

from turnpike.env import ROOT

DOMAIN = "django"
SINCE = datetime(2026, 11, 21, tzinfo=UTC)
LANGUAGES = {"zh_Hans": "zh_Hans", "ru": "ru"}
KEYWORDS: dict[str, tuple[int, ...] | None] = {
    "_": None,
    "gettext": None,
    "gettext_lazy": None,
    "gettext_noop": None,
    "ngettext": (1, 2),
    "ngettext_lazy": (1, 2),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """Folders whose texts share a catalogue, and where it lies."""

    name: str
    folders: tuple[Path, ...]
    locale: Path

    def path(self, language: str, ending: str) -> Path:
        """The catalogue of a language: `po` for people, `mo` for programs."""
        return self.locale / language / "LC_MESSAGES" / f"{DOMAIN}.{ending}"


APPS = (
    App(
        name="turnpike",
        folders=(ROOT / "platform" / "turnpike",),
        locale=ROOT / "platform" / "turnpike" / "web" / "locale",
    ),
    App(name="accounts", folders=(ROOT / "accounts",), locale=ROOT / "accounts" / "locale"),
    App(name="billing", folders=(ROOT / "billing",), locale=ROOT / "billing" / "locale"),
)


def extract(app: App) -> Catalog:
    """All texts of an app, without translations."""
    catalog = Catalog(domain=DOMAIN, fuzzy=False)
    for path in _sources(app):
        text = path.read_text()
        if path.suffix != ".py":
            # What is left of a template looks like Python but for its indentation.
            template = templatize(text, origin=str(path))
            text = "\n".join(line.strip() for line in template.splitlines())
        found = extract_python(io.BytesIO(text.encode()), KEYWORDS, (), {"encoding": "utf-8"})
        for _line, function, message, _comments in found:
            chosen = _texts(function, message)
            if chosen:
                location = [(str(path.relative_to(ROOT)), 0)]
                catalog.add(chosen, locations=location)
    return catalog


def update(app: App, language: str) -> Catalog:
    """The catalogue of a language brought up to date; translations that are there stay."""
    catalog = read(app, language)
    catalog.update(extract(app), no_fuzzy_matching=True)
    catalog.obsolete.clear()
    write(app, language, catalog)
    return catalog


def write(app: App, language: str, catalog: Catalog) -> None:
    """Write both forms of a catalogue. Without dates and names, so that merging is about texts."""
    catalog.header_comment = "# Translations of Turnpike's pages."
    catalog.project, catalog.version = "Turnpike", ""
    catalog.last_translator = catalog.language_team = catalog.msgid_bugs_address = ""
    catalog.creation_date = catalog.revision_date = SINCE
    path = app.path(language, "po")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        write_po(file, catalog, width=100, include_lineno=False, sort_output=True)
    app.path(language, "mo").write_bytes(compiled(catalog))


def read(app: App, language: str) -> Catalog:
    """What is translated so far."""
    path = app.path(language, "po")
    if not path.exists():
        return Catalog(locale=LANGUAGES[language], domain=DOMAIN, fuzzy=False)
    with path.open("rb") as file:
        return read_po(file, locale=LANGUAGES[language], domain=DOMAIN)


def compiled(catalog: Catalog) -> bytes:
    """The bytes that programs read."""
    file = io.BytesIO()
    write_mo(file, catalog)
    return file.getvalue()


def missing(catalog: Catalog, wanted: Catalog) -> list[str]:
    """The texts that a catalogue lacks or has only in part."""
    return [
        str(message.id)
        for message in wanted
        if message.id and not _is_whole(catalog.get(_key(message)))
    ]


def _texts(function: object, message: object) -> str | tuple[str, ...] | None:
    if not isinstance(function, str) or not message:
        return None
    if isinstance(message, tuple | list):
        texts = tuple(text for text in message if isinstance(text, str))
        return texts[:2] if function.startswith("n") and len(texts) > 1 else texts[0]
    return str(message)


def _sources(app: App) -> Iterator[Path]:
    for folder in app.folders:
        for path in sorted(folder.rglob("*")):
            is_template = path.suffix in (".html", ".txt") and "templates" in path.parts
            if (path.suffix == ".py" and "migrations" not in path.parts) or is_template:
                yield path


def _key(message: Message) -> str:
    return message.id if isinstance(message.id, str) else message.id[0]


def _is_whole(message: Message | None) -> bool:
    if message is None or message.fuzzy:
        return False
    texts = (message.string,) if isinstance(message.string, str) else tuple(message.string or ())
    return bool(texts) and all(texts)
