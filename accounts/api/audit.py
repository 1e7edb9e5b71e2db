"""/audit: what happened in a tenant."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import access_audit_events
from accounts.models import AuditEvent
from turnpike.control.caller import Power
from turnpike.control.drf import TenantView
from turnpike.control.pages import PAGE_PARAMETERS, keyset_page, page_of
from turnpike.kernel import clock
from turnpike.kernel.errors import InvalidInput

FILTERS = ("actor", "action", "target")
FILTER_LENGTH_MAX = 64


class AuditEventSerializer(serializers.Serializer[Any]):
    """Who did what to what, and from where."""

    at = serializers.CharField()
    actor = serializers.CharField()
    action = serializers.CharField()
    target = serializers.CharField()
    before = serializers.DictField()
    after = serializers.DictField()
    address = serializers.CharField()
    request_id = serializers.CharField()
    reason = serializers.CharField()
    digest = serializers.CharField()


def _write(event: AuditEvent) -> dict[str, Any]:
    return {
        "at": clock.rfc3339(event.created_at),
        "actor": event.actor,
        "action": event.action,
        "target": event.target,
        "before": event.before,
        "after": event.after,
        "address": event.address,
        "request_id": event.request_id,
        "reason": event.reason,
        "digest": event.digest,
    }


def _check_filter(name: str, value: str) -> str:
    if len(value) > FILTER_LENGTH_MAX or not value.isprintable():
        raise InvalidInput(
            f"{name} must have at most {FILTER_LENGTH_MAX} printable characters.", field=name
        )
    return value


class AuditView(TenantView):
    """The tenant's audit log."""

    powers = {"GET": Power.AUDIT_READ}

    @extend_schema(
        operation_id="audit_list",
        parameters=[
            *PAGE_PARAMETERS,
            *(OpenApiParameter(name, str, description="Exactly this.") for name in FILTERS),
        ],
        responses=page_of(AuditEventSerializer),
    )
    def get(self, request: Request) -> Response:
        """The audit log, newest first."""
        rows = access_audit_events(self.caller, power=Power.AUDIT_READ)
        for name in FILTERS:
            value = request.query_params.get(name)
            if value is not None:
                rows = rows.filter(**{name: _check_filter(name, value)})
        return Response(keyset_page(request, rows, write=_write))
