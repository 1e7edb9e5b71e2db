"""/webhooks: where a tenant's events go, what was sent, and sending it again."""

from datetime import timedelta
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import (
    access_deliveries,
    access_delivery,
    access_tenant,
    access_webhook,
    access_webhooks,
)
from accounts.api.fields import read
from accounts.models import (
    EVENT_TYPES_MAX,
    NAME_LENGTH_MAX,
    URL_LENGTH_MAX,
    WebhookDelivery,
    WebhookEndpoint,
)
from accounts.services import webhooks
from accounts.services.webhook_events import EVENT_TYPES
from accounts.services.webhooks import OVERLAP_DEFAULT
from turnpike.control.caller import Power
from turnpike.control.drf import StrictSerializer, TenantView
from turnpike.control.pages import PAGE_PARAMETERS, keyset_page, page_of
from turnpike.kernel import clock


class WebhookSerializer(serializers.Serializer[Any]):
    """A webhook endpoint."""

    id = serializers.CharField()
    url = serializers.CharField()
    description = serializers.CharField()
    event_types = serializers.ListField(
        child=serializers.CharField(), help_text="None: all that there are."
    )
    is_enabled = serializers.BooleanField()
    disabled = serializers.CharField(allow_null=True, help_text="by_hand, failing or gone.")
    failing_since = serializers.CharField(allow_null=True)
    previous_secret_ends_at = serializers.CharField(allow_null=True)
    dropped = serializers.IntegerField(help_text="Events that found 10,000 waiting.")
    created_at = serializers.CharField()


class IssuedWebhookSerializer(WebhookSerializer):
    """A webhook endpoint with its new secret, which is on this answer alone."""

    secret = serializers.CharField()


class NewWebhookInput(StrictSerializer):
    """A new webhook endpoint."""

    url = serializers.CharField(max_length=URL_LENGTH_MAX)
    description = serializers.CharField(
        max_length=NAME_LENGTH_MAX, required=False, allow_blank=True, default=""
    )
    event_types = serializers.ListField(
        child=serializers.ChoiceField(choices=EVENT_TYPES),
        required=False,
        max_length=EVENT_TYPES_MAX,
        default=list,
    )


class WebhookInput(StrictSerializer):
    """Changes of a webhook endpoint."""

    url = serializers.CharField(max_length=URL_LENGTH_MAX, required=False)
    description = serializers.CharField(
        max_length=NAME_LENGTH_MAX, required=False, allow_blank=True
    )
    event_types = serializers.ListField(
        child=serializers.ChoiceField(choices=EVENT_TYPES),
        required=False,
        max_length=EVENT_TYPES_MAX,
    )
    is_enabled = serializers.BooleanField(required=False)


class RotateWebhookInput(StrictSerializer):
    """How long the old secret signs beside the new one."""

    overlap_seconds = serializers.IntegerField(
        required=False, default=int(OVERLAP_DEFAULT.total_seconds())
    )


class DeliverySerializer(serializers.Serializer[Any]):
    """An event on its way to an endpoint."""

    id = serializers.CharField()
    webhook = serializers.CharField()
    event = serializers.CharField()
    type = serializers.CharField()
    state = serializers.ChoiceField(choices=WebhookDelivery.State.choices)
    tries = serializers.IntegerField()
    next_try_at = serializers.CharField(allow_null=True)
    finished_at = serializers.CharField(allow_null=True)
    created_at = serializers.CharField()


class AttemptSerializer(serializers.Serializer[Any]):
    """One try; either a status or the word of why there is none."""

    number = serializers.IntegerField()
    at = serializers.CharField()
    took_ms = serializers.IntegerField()
    status = serializers.IntegerField(allow_null=True)
    error = serializers.CharField(allow_blank=True)
    response = serializers.CharField(allow_blank=True)


class DeliveryDetailSerializer(DeliverySerializer):
    """A delivery with its tries."""

    attempts = AttemptSerializer(many=True)


def _time(at: Any) -> str | None:
    return None if at is None else clock.rfc3339(at)


def _write(endpoint: WebhookEndpoint) -> dict[str, Any]:
    return {
        "id": endpoint.public_id,
        "url": endpoint.url,
        "description": endpoint.description,
        "event_types": endpoint.event_types,
        "is_enabled": not endpoint.disabled,
        "disabled": endpoint.disabled or None,
        "failing_since": _time(endpoint.failing_since),
        "previous_secret_ends_at": _time(endpoint.previous_ends_at),
        "dropped": endpoint.dropped,
        "created_at": clock.rfc3339(endpoint.created_at),
    }


def _write_delivery(row: WebhookDelivery) -> dict[str, Any]:
    is_waiting = row.state == WebhookDelivery.State.WAITING
    return {
        "id": row.public_id,
        "webhook": row.endpoint.public_id,
        "event": row.event.public_id,
        "type": row.event.type,
        "state": row.state,
        "tries": row.tries,
        "next_try_at": clock.rfc3339(row.next_try_at) if is_waiting else None,
        "finished_at": _time(row.finished_at),
        "created_at": clock.rfc3339(row.created_at),
    }


class WebhooksView(TenantView):
    """The tenant's webhook endpoints."""

    powers = {"GET": Power.WEBHOOKS_READ, "POST": Power.WEBHOOKS_WRITE}

    @extend_schema(
        operation_id="webhooks_list",
        parameters=PAGE_PARAMETERS,
        responses=page_of(WebhookSerializer),
    )
    def get(self, request: Request) -> Response:
        """All endpoints, newest first."""
        rows = access_webhooks(self.caller, power=Power.WEBHOOKS_READ)
        return Response(keyset_page(request, rows, write=_write))

    @extend_schema(
        operation_id="webhooks_create",
        request=NewWebhookInput,
        responses={201: IssuedWebhookSerializer},
    )
    def post(self, request: Request) -> Response:
        """Add an endpoint; its secret is on this answer alone."""
        tenant = access_tenant(self.caller, power=Power.WEBHOOKS_WRITE)
        issued = webhooks.create_webhook(
            caller=self.caller, tenant=tenant, **read(NewWebhookInput, request.data)
        )
        return Response({**_write(issued.endpoint), "secret": issued.secret}, status=201)


class WebhookView(TenantView):
    """One endpoint."""

    powers = {
        "GET": Power.WEBHOOKS_READ,
        "PATCH": Power.WEBHOOKS_WRITE,
        "DELETE": Power.WEBHOOKS_WRITE,
    }

    @extend_schema(operation_id="webhooks_get", responses=WebhookSerializer)
    def get(self, _request: Request, webhook_id: str) -> Response:
        """One endpoint."""
        row = access_webhook(self.caller, webhook_id, power=Power.WEBHOOKS_READ)
        return Response(_write(row))

    @extend_schema(
        operation_id="webhooks_update", request=WebhookInput, responses=WebhookSerializer
    )
    def patch(self, request: Request, webhook_id: str) -> Response:
        """Change an endpoint, or switch it off or on."""
        row = access_webhook(self.caller, webhook_id, power=Power.WEBHOOKS_WRITE)
        changes = read(WebhookInput, request.data)
        changed = webhooks.update_webhook(caller=self.caller, endpoint=row, changes=changes)
        return Response(_write(changed))

    @extend_schema(operation_id="webhooks_delete", responses={204: None})
    def delete(self, _request: Request, webhook_id: str) -> Response:
        """Remove an endpoint with its deliveries."""
        row = access_webhook(self.caller, webhook_id, power=Power.WEBHOOKS_WRITE)
        webhooks.delete_webhook(caller=self.caller, endpoint=row)
        return Response(status=204)


class RotateWebhookView(TenantView):
    """A new secret."""

    powers = {"POST": Power.WEBHOOKS_WRITE}

    @extend_schema(
        operation_id="webhooks_rotate",
        request=RotateWebhookInput,
        responses=IssuedWebhookSerializer,
    )
    def post(self, request: Request, webhook_id: str) -> Response:
        """Replace the secret; the old one signs beside it until the overlap ends."""
        row = access_webhook(self.caller, webhook_id, power=Power.WEBHOOKS_WRITE)
        seconds = read(RotateWebhookInput, request.data)["overlap_seconds"]
        overlap = timedelta(seconds=max(-1, min(seconds, 10**9)))
        issued = webhooks.rotate_webhook(caller=self.caller, endpoint=row, overlap=overlap)
        return Response({**_write(issued.endpoint), "secret": issued.secret})


class TestWebhookView(TenantView):
    """A test event."""

    powers = {"POST": Power.WEBHOOKS_WRITE}

    @extend_schema(operation_id="webhooks_test", request=None, responses={202: DeliverySerializer})
    def post(self, _request: Request, webhook_id: str) -> Response:
        """Send a test event to the endpoint."""
        row = access_webhook(self.caller, webhook_id, power=Power.WEBHOOKS_WRITE)
        delivery = webhooks.send_test(caller=self.caller, endpoint=row)
        return Response(_write_delivery(delivery), status=202)


class DeliveriesView(TenantView):
    """What was sent to an endpoint, or will be."""

    powers = {"GET": Power.WEBHOOKS_READ}

    @extend_schema(
        operation_id="webhooks_deliveries",
        parameters=PAGE_PARAMETERS,
        responses=page_of(DeliverySerializer),
    )
    def get(self, request: Request, webhook_id: str) -> Response:
        """Deliveries of the last 30 days, newest first."""
        endpoint = access_webhook(self.caller, webhook_id, power=Power.WEBHOOKS_READ)
        rows = access_deliveries(self.caller, power=Power.WEBHOOKS_READ)
        rows = rows.filter(endpoint=endpoint)
        return Response(keyset_page(request, rows, write=_write_delivery))


class DeliveryView(TenantView):
    """One delivery."""

    powers = {"GET": Power.WEBHOOKS_READ}

    @extend_schema(operation_id="deliveries_get", responses=DeliveryDetailSerializer)
    def get(self, _request: Request, delivery_id: str) -> Response:
        """A delivery with its tries and what was answered."""
        row = access_delivery(self.caller, delivery_id, power=Power.WEBHOOKS_READ)
        attempts = [
            {
                "number": one.number,
                "at": clock.rfc3339(one.at),
                "took_ms": one.took_ms,
                "status": one.status,
                "error": one.error,
                "response": one.response,
            }
            for one in row.attempts.order_by("number")
        ]
        return Response({**_write_delivery(row), "attempts": attempts})


class ReplayDeliveryView(TenantView):
    """Sending an event again."""

    powers = {"POST": Power.WEBHOOKS_WRITE}

    @extend_schema(
        operation_id="deliveries_replay", request=None, responses={202: DeliverySerializer}
    )
    def post(self, _request: Request, delivery_id: str) -> Response:
        """Send the event again, with the same id and body."""
        row = access_delivery(self.caller, delivery_id, power=Power.WEBHOOKS_WRITE)
        replayed = webhooks.replay_delivery(caller=self.caller, delivery=row)
        replayed.event = row.event
        return Response(_write_delivery(replayed), status=202)
