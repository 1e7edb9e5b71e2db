"""AnsweringPage: how pages of both consoles answer: a page, or a word where one lands."""

from collections.abc import Mapping
from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views import View


class AnsweringPage(View):
    """What both consoles' pages do alike, whoever may see them."""

    def back(self) -> str:
        """Where one lands after a change, or after one that was not possible."""
        return self.request.path

    def page(
        self, template: str, context: Mapping[str, Any] | None = None, *, status: int = 200
    ) -> HttpResponse:
        """The rendered page; never kept by caches."""
        response = render(self.request, template, dict(context or {}), status=status)
        response["cache-control"] = "no-store"
        return response

    def done(self, message: str, *, to: str | None = None) -> HttpResponse:
        """Say what was done, on the page where one lands."""
        messages.success(self.request, message)
        return redirect(to or self.back())
