"""/webhooks/<provider>: where payment providers tell us what happened to money."""

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from billing.services.payments.intake import take_webhook
from turnpike.kernel import clock
from turnpike.kernel.errors import InvalidInput, TurnpikeError

BODY_MAX = 1_048_576


@csrf_exempt
@require_POST
def stripe_webhook(request: HttpRequest) -> HttpResponse:
    """Take an event: 200 once it is kept, 400 where it was not signed for us."""
    try:
        if int(request.META.get("CONTENT_LENGTH") or 0) > BODY_MAX:
            raise InvalidInput("That is too large for an event.")
        event = take_webhook(
            provider="stripe",
            body=request.body,
            signature=request.headers.get("stripe-signature", ""),
            at=clock.utc_now(),
        )
    except TurnpikeError as error:
        return _answer({"error": error.code}, error.status)
    return _answer({"received": event.event_id, "outcome": event.outcome}, 200)


def _answer(body: dict[str, str], status: int) -> HttpResponse:
    response = JsonResponse(body, status=status)
    response["cache-control"] = "no-store"
    return response
