"""Playground: a conversation with a model through the real data plane, on one's own limits.

The browser never holds a key: it speaks to the session's own address, and the answer is relayed
with the workspace's playground key. What a run cost is read from its receipt once it is posted.
"""

import json
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.translation import gettext as _

from accounts.access import access_workspace, access_workspaces
from accounts.console.pages import TenantPage, problem_of
from accounts.services.playground import open_playground
from billing.console.models import Offer, list_offers
from billing.queries.requests import list_revisions
from turnpike.control import formats
from turnpike.control.caller import Power
from turnpike.env import env
from turnpike.kernel import ids
from turnpike.kernel.errors import InvalidInput, NotFound, TurnpikeError
from turnpike.web.keys import example_model
from turnpike.web.relay import relay

VERSION = "2023-06-01"
EVENT_STREAM = "text/event-stream"
MAX_TOKENS = 1_024
# A model without a known maximum gets one that every model has.
MAX_TOKENS_KNOWN = 8_192


class PlaygroundPage(TenantPage):
    """The page; everything that runs is done by its module."""

    powers = {"GET": Power.KEYS_WRITE}

    def get(self, _request: HttpRequest) -> HttpResponse:
        """Models that can be called, workspaces, and the sentences that the module says."""
        offers = list_offers(self.tenant).open_offers
        rows = access_workspaces(self.caller, power=Power.WORKSPACES_READ)
        names = [offer.model.model for offer in offers]
        example = example_model()
        return self.page(
            "turnpike/playground.html",
            {
                "offers": offers,
                "chosen": example if example in names else next(iter(names), ""),
                "workspaces": rows.filter(archived_at=None).order_by("-is_default", "pk"),
                "max_tokens": MAX_TOKENS,
                "facts": {
                    "tenant": self.visit.tenant.public_id,
                    "base_url": settings.PUBLIC_BASE_URL,
                    "models": {offer.model.model: _facts(offer) for offer in offers},
                    "texts": texts(),
                },
            },
        )


class SpokenPage(TenantPage):
    """What the playground's module asks for: failures are JSON, never a redirection."""

    def _failed(self, request: HttpRequest, error: TurnpikeError) -> HttpResponse:
        message = f"{problem_of(error)} {error.message}"
        body = {"type": "error", "error": {"type": error.code, "message": message}}
        return JsonResponse(body, status=error.status)


class PlaygroundStream(SpokenPage):
    """One run: the request goes to the data plane, the answer comes back as it is written."""

    powers = {"POST": Power.KEYS_WRITE}

    def post(self, request: HttpRequest) -> HttpResponseBase:
        """Relay it."""
        asked = _parse(request)
        workspace = access_workspace(
            self.caller, str(asked.get("workspace", "")), power=Power.WORKSPACES_READ
        )
        body = asked.get("request")
        if not isinstance(body, dict):
            raise InvalidInput("request must be an object.", field="request")
        headers = {
            "x-api-key": open_playground(caller=self.caller, workspace=workspace),
            "x-turnpike-member": self.user.public_id,
            "anthropic-version": VERSION,
            "content-type": "application/json",
            "accept": EVENT_STREAM,
        }
        sent = json.dumps({**body, "stream": True}, ensure_ascii=False).encode()
        answer = StreamingHttpResponse(
            _relayed(headers=headers, body=sent), content_type=EVENT_STREAM
        )
        answer["cache-control"] = "no-store"
        answer["x-accel-buffering"] = "no"
        return answer


class PlaygroundReceipt(SpokenPage):
    """What a run used and cost, once it is charged."""

    powers = {"GET": Power.REQUESTS_READ}

    def get(self, _request: HttpRequest, request_id: str) -> HttpResponse:
        """The figures as the receipt has them, in the reader's language."""
        try:
            revisions = list_revisions(
                tenant=self.tenant, request=ids.parse_public_id(ids.REQUEST, request_id)
            )
        except ValueError as error:
            raise NotFound("There is no such request.") from error
        if not revisions:
            return JsonResponse({"is_posted": False})
        newest = revisions[-1]
        cached = sum(row.cache_read_tokens for row in revisions)
        written = sum(row.cache_write_5m_tokens + row.cache_write_1h_tokens for row in revisions)
        taken = newest.finished_at - newest.started_at
        amount = sum(row.amount_nano for row in revisions)
        fresh = sum(row.input_tokens for row in revisions)
        return JsonResponse(
            {
                "is_posted": True,
                "input": formats.number(fresh + cached + written),
                "cached": formats.number(cached) if cached else "",
                "output": formats.number(sum(row.output_tokens for row in revisions)),
                "cost": formats.exact_money(amount, newest.currency),
                "ttft": "" if newest.ttft_us is None else formats.duration(newest.ttft_us),
                "duration": formats.duration(taken // timedelta(microseconds=1)),
                "log": reverse("console-log", args=[request_id]),
            }
        )


def texts() -> dict[str, Any]:
    """What the module says, in the reader's language."""
    return {
        "you": _("You"),
        "thinking": _("Thinking"),
        "thought": _("What the model thought"),
        "copy": _("Copy"),
        "copied": _("Copied"),
        "edit": _("Edit and run again"),
        "retry": _("Run again"),
        "tool_wants": _("The model calls a tool"),
        "tool_result": _("Result of the tool"),
        "send_result": _("Send the result"),
        "running": _("The model is writing."),
        "done": _("The answer is complete."),
        "stopped": _("Stopped. What was written until then is charged."),
        "cut": _("The answer reached max_tokens."),
        "refused_by_model": _("The model declined to answer."),
        "input": _("in"),
        "cached": _("from cache"),
        "output": _("out"),
        "first": _("first token"),
        "total": _("total"),
        "cost": _("cost"),
        "counting": _("being charged"),
        "log": _("Open the receipt"),
        "bad_tools": _("The tools are not a JSON list."),
        "signed_out": _("You are signed out. Sign in again, and your conversation is still here."),
        "lost": _("The connection broke. What was written until then is charged."),
        "errors": refusals(),
    }


def refusals() -> dict[str, str]:
    """A sentence for each kind of refusal; none of them is charged."""
    return {
        "invalid_request_error": _("The request cannot be accepted as it is."),
        "authentication_error": _("The playground is not ready yet. Try again in a moment."),
        "billing_error": _(
            "Your credit or a budget does not cover the dearest outcome of this run."
            " Lower max_tokens, or add credit."
        ),
        "permission_error": _("This is not allowed here."),
        "not_found_error": _("There is no such model for you."),
        "request_too_large": _("The conversation is too large."),
        "rate_limit_error": _("A limit is reached. Wait a moment and run again."),
        "timeout_error": _("The model took too long."),
        "api_error": _("Something went wrong on the way to the model."),
        "overloaded_error": _("No model can serve this now. Try again soon."),
        "nothing_charged": _("Nothing was charged."),
    }


async def _relayed(*, headers: Mapping[str, str], body: bytes) -> AsyncIterator[bytes]:
    async for part in relay(base_url=env().data_plane, headers=headers, body=body):
        yield part


def _parse(request: HttpRequest) -> dict[str, Any]:
    try:
        found = json.loads(request.body)
    except RequestDataTooBig as error:
        raise InvalidInput("The conversation is too large.", field="request") from error
    except ValueError as error:
        raise InvalidInput("The body must be JSON.", field="request") from error
    if not isinstance(found, dict):
        raise InvalidInput("The body must be an object.", field="request")
    return found


def _facts(offer: Offer) -> dict[str, Any]:
    return {
        "max_tokens": offer.model.max_tokens or MAX_TOKENS_KNOWN,
        "thinking": offer.can_think,
    }
