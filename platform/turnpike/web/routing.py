"""routes: a console's pages as a table of path, page and name."""

from django.urls import URLPattern, path
from django.views import View


def routes(*rows: tuple[str, type[View], str]) -> list[URLPattern]:
    """The routes of a table, in its order."""
    return [path(where, page.as_view(), name=name) for where, page, name in rows]
