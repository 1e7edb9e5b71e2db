"""No text of a page is left untranslated, and numbers are written as each language writes them."""

import ast
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeGuard

import pytest
from babel.messages.mofile import read_mo
from django import forms
from django.utils import translation

from accounts.console.passkeys import AddPasskeyForm, RenamePasskeyForm
from billing.console.logs import KNOWLEDGE, OUTCOMES
from proxy.refusals import ACCEPTED, OUTCOME_OF_STATUS
from turnpike.contracts import usage as words
from turnpike.control import formats
from turnpike.web import catalogs
from turnpike.web.catalogs import App
from turnpike.web.operators.words import ADMISSIONS

NANOS = 1_000_000_000


@pytest.mark.parametrize("language", sorted(catalogs.LANGUAGES))
@pytest.mark.parametrize("app", catalogs.APPS, ids=lambda app: app.name)
def test_every_text_is_translated_and_compiled(app: App, language: str) -> None:
    wanted = catalogs.extract(app)
    written = catalogs.read(app, language)
    with app.path(language, "mo").open("rb") as file:
        compiled = read_mo(file)

    assert len(wanted) > 20
    assert catalogs.missing(written, wanted) == []
    assert catalogs.missing(compiled, wanted) == []


def test_every_text_stands_where_the_catalogues_find_it() -> None:
    """Babel reads tokens: a text within an f-string, or one that is worked out, is never found."""
    sources = [
        path for app in catalogs.APPS for folder in app.folders for path in sources_of(folder)
    ]
    lost = [f"{path.name}:{line}" for path in sources for line in lost_texts(path.read_text())]

    assert len(sources) > 100
    assert lost == []


def sources_of(folder: Path) -> Iterator[Path]:
    return folder.rglob("*.py")


def lost_texts(source: str) -> Iterator[int]:
    """The lines of a module with texts that no catalogue can have."""
    for node in ast.walk(ast.parse(source)):
        inside = ast.walk(node) if isinstance(node, ast.JoinedStr) else ()
        yield from (call.lineno for call in inside if is_text(call))
        if is_text(node) and not isinstance(node.args[0], ast.Constant):
            yield node.lineno


def is_text(node: ast.AST) -> TypeGuard[ast.Call]:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in catalogs.KEYWORDS
    )


@pytest.mark.parametrize("form", [AddPasskeyForm, RenamePasskeyForm])
def test_forms_of_passkeys_speak_the_language_of_the_page(form: type[forms.Form]) -> None:
    with translation.override("ru"):
        assert str(form.base_fields["name"].label) == "Название"


def test_what_the_data_plane_counts_and_notes_has_names_for_people() -> None:
    noted = {value for name, value in vars(words).items() if name.startswith("OUTCOME_")}

    assert set(ADMISSIONS) == {ACCEPTED, "failed", *OUTCOME_OF_STATUS.values()}
    assert noted <= set(OUTCOMES)
    assert {*words.STATUS_OF_RANK, words.STATUS_UNRATED} == set(KNOWLEDGE)


@pytest.mark.parametrize(
    ("language", "nanos", "text"),
    [
        ("en", 1_398_580_000_000, "$1,398.58"),
        ("ru", 1_398_580_000_000, "1 398,58 $"),
        ("zh-hans", 1_398_580_000_000, "US$1,398.58"),
        ("en", 0, "$0.00"),
        ("en", 4_200_000, "$0.0042"),
        ("en", 591_000, "$0.000591"),
        ("en", 120, "$0.00000012"),
        ("en", -5 * NANOS, "-$5.00"),
    ],
)
def test_money_has_two_decimals_and_never_hides_what_is_small(
    language: str, nanos: int, text: str
) -> None:
    with translation.override(language):
        written = formats.money(nanos)

    # Languages put non-breaking spaces of several kinds.
    assert " ".join(written.split()) == text


@pytest.mark.parametrize(
    ("language", "value", "text"),
    [
        ("en", 9_999, "9,999"),
        ("en", 14_600_000, "14.6M"),
        ("ru", 14_600_000, "14,6 млн"),
        ("zh-hans", 14_600_000, "1460万"),
    ],
)
def test_counts_are_short_in_every_language(language: str, value: int, text: str) -> None:
    with translation.override(language):
        written = formats.compact(value)

    assert " ".join(written.split()) == text


def test_changes_have_a_sign_and_an_end() -> None:
    assert formats.change(108, 100) == "+8%"
    assert formats.change(92, 100) == "−8%"
    assert formats.change(5, 0) == "–"
    assert formats.change(5_000, 1) == "more than +999%"


def test_moments_name_their_zone() -> None:
    assert formats.moment(datetime(2026, 11, 21, 17, 5, 9, tzinfo=UTC)) == (
        "Nov 21, 2026, 17:05:09 UTC"
    )
