"""Viewing as a tenant: starting and ending it, and refusing changes meanwhile."""

from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction
from typing import Any, cast

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.decorators import sync_and_async_middleware
from django.utils.translation import gettext as _

from accounts.access import access_any_tenant
from accounts.console.operators import OperatorPage, ReasonForm
from accounts.console.viewing import SESSION_VIEWING, end_viewing, start_viewing, viewing_in

READING = frozenset({"GET", "HEAD", "OPTIONS"})
# What one may send all the same: stop, sign out, read in another language.
ALWAYS = ("operator-viewing-end", "account_logout", "set_language")
Answer = Callable[[HttpRequest], Any]


class StartViewingPage(OperatorPage):
    """Beginning to look at a tenant's console."""

    def back(self) -> str:
        """The tenant."""
        return reverse("operator-tenant", args=[self.kwargs["tenant_id"]])

    def post(self, request: HttpRequest, tenant_id: str) -> HttpResponse:
        """Look at it for half an hour, for a reason."""
        tenant = access_any_tenant(self.caller, tenant_id)
        form = ReasonForm(request.POST)
        if not form.is_valid():
            return self.refused(form)
        reason = form.cleaned_data["reason"]
        start_viewing(request, caller=self.caller, tenant=tenant, reason=reason)
        return redirect("console")


class EndViewingPage(OperatorPage):
    """Ending it."""

    # To do less takes no proof.
    proved = frozenset()

    def post(self, request: HttpRequest) -> HttpResponse:
        """Back to the operator console."""
        tenant = end_viewing(request, caller=self.caller)
        if tenant is None:
            return redirect("operator")
        return self.done(
            _("You no longer look at the console of %(name)s.") % {"name": tenant.name},
            to=reverse("operator-tenant", args=[tenant.public_id]),
        )


@sync_and_async_middleware
def refuse_changes_while_viewing(get_response: Answer) -> Answer:
    """Answers 403 to everything but reading while the session looks at a tenant's console."""
    if iscoroutinefunction(get_response):
        answer = cast(Callable[[HttpRequest], Awaitable[HttpResponseBase]], get_response)

        async def guard_async(request: HttpRequest) -> HttpResponseBase:
            if _may_change(request) and viewing_in(await request.session.aget(SESSION_VIEWING)):
                return await sync_to_async(_refuse)(request)
            return await answer(request)

        return guard_async

    def guard(request: HttpRequest) -> HttpResponseBase:
        if _may_change(request) and viewing_in(request.session.get(SESSION_VIEWING)):
            return _refuse(request)
        return cast(HttpResponseBase, get_response(request))

    return guard


def _may_change(request: HttpRequest) -> bool:
    return request.method not in READING and request.path not in map(reverse, ALWAYS)


def _refuse(request: HttpRequest) -> HttpResponse:
    return render(request, "operator/looking.html", status=403)
