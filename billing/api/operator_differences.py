"""/operator/differences, /operator/doubts: what does not agree, and usage nobody is sure of."""

from typing import Any
from uuid import UUID

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.api.fields import read
from accounts.models import REASON_LENGTH_MAX, Tenant
from billing.models.differences import ReconciliationItem, UsageReview
from billing.models.upstreams import Upstream
from billing.queries.doubts import (
    WHOLE_REQUEST,
    Doubt,
    find_doubt,
    list_unknown,
    list_waived,
    read_evidence,
)
from billing.services.differences import close_difference
from billing.services.doubts import COUNT_MAX, KINDS, accept_doubt, charge_doubt
from turnpike.control.drf import OperatorView, StrictSerializer
from turnpike.control.pages import (
    PAGE_PARAMETERS,
    keyset_page,
    page_of,
    read_cursor,
    read_limit,
    write_cursor,
)
from turnpike.kernel import clock, ids
from turnpike.kernel.errors import InvalidInput, NotFound
from turnpike.kernel.money import format_amount, nanos_of_micros

UNKNOWN, WAIVED = "unknown", "waived"
ATTEMPT_MAX = 32_767
STATES = ("open", "closed", "all")


class FigureSerializer(serializers.Serializer[Any]):
    """One column of a comparison."""

    name = serializers.CharField()
    value = serializers.CharField()


class DifferenceSerializer(serializers.Serializer[Any]):
    """A difference that a comparison found."""

    id = serializers.CharField()
    check = serializers.CharField(help_text="The row of the reconciliation.")
    cause = serializers.CharField()
    evidence = FigureSerializer(many=True)
    state = serializers.ChoiceField(ReconciliationItem.State.choices)
    found_at = serializers.DateTimeField()
    seen_at = serializers.DateTimeField()
    gone_at = serializers.DateTimeField(allow_null=True)
    times_reopened = serializers.IntegerField()
    closed_at = serializers.DateTimeField(allow_null=True)
    closed_by = serializers.CharField()
    reason = serializers.CharField()


class CloseDifferenceInput(StrictSerializer):
    """Why nobody has to look at it any more."""

    reason = serializers.CharField(max_length=REASON_LENGTH_MAX)


class EvidenceSerializer(serializers.Serializer[Any]):
    """What the upstream's usage report of the day says of the model."""

    day = serializers.DateField()
    read_at = serializers.DateTimeField()
    ours = serializers.DictField(child=serializers.IntegerField())
    reported = serializers.DictField(child=serializers.IntegerField())
    others = serializers.IntegerField(help_text="How many more attempts it may be about.")


class DoubtSerializer(serializers.Serializer[Any]):
    """An attempt whose answer nobody read, or (attempt 0) what a hold did not cover."""

    request_id = serializers.CharField()
    attempt = serializers.IntegerField()
    tenant_id = serializers.CharField(allow_null=True)
    upstream = serializers.CharField(allow_null=True)
    outcome = serializers.CharField()
    model = serializers.CharField()
    started_at = serializers.DateTimeField()
    held = serializers.CharField()
    charged = serializers.CharField()
    waived = serializers.CharField()
    currency = serializers.CharField()


class OneDoubtSerializer(DoubtSerializer):
    """The same, with the upstream's evidence."""

    evidence = EvidenceSerializer(allow_null=True)


class BilledInput(StrictSerializer):
    """What the upstream billed, by kind of token."""

    uncached_input = serializers.IntegerField(default=0, min_value=0, max_value=COUNT_MAX)
    output = serializers.IntegerField(default=0, min_value=0, max_value=COUNT_MAX)
    cache_read = serializers.IntegerField(default=0, min_value=0, max_value=COUNT_MAX)
    cache_write_5m = serializers.IntegerField(default=0, min_value=0, max_value=COUNT_MAX)
    cache_write_1h = serializers.IntegerField(default=0, min_value=0, max_value=COUNT_MAX)
    web_search = serializers.IntegerField(default=0, min_value=0, max_value=COUNT_MAX)


class DecisionInput(StrictSerializer):
    """Who bears it. Without `billed` the upstream billed nothing."""

    attempt = serializers.IntegerField(
        default=WHOLE_REQUEST, min_value=WHOLE_REQUEST, max_value=ATTEMPT_MAX
    )
    decision = serializers.ChoiceField(UsageReview.Decision.choices)
    billed = BilledInput(required=False)
    reason = serializers.CharField(max_length=REASON_LENGTH_MAX)


class ReviewSerializer(serializers.Serializer[Any]):
    """A decision: made once; the same again is answered with the first one."""

    request_id = serializers.CharField()
    attempt = serializers.IntegerField()
    decision = serializers.ChoiceField(UsageReview.Decision.choices)
    charged = serializers.CharField(help_text="What it changed in the charge.")
    accepted = serializers.CharField(help_text="What it left to the operator.")
    currency = serializers.CharField()
    reason = serializers.CharField()
    decided_at = serializers.DateTimeField()


class DifferencesView(OperatorView):
    """All differences."""

    @extend_schema(
        operation_id="operator_differences_list",
        parameters=[
            *PAGE_PARAMETERS,
            OpenApiParameter("state", str, enum=STATES, description="`open` if missing."),
            OpenApiParameter("check", str),
        ],
        responses=page_of(DifferenceSerializer),
    )
    def get(self, request: Request) -> Response:
        """Differences that comparisons of the books found, newest first."""
        state = request.query_params.get("state", "open")
        if state not in STATES:
            raise InvalidInput(f"state must be one of {', '.join(STATES)}.", field="state")
        rows = ReconciliationItem.objects.all()
        if state != "all":
            rows = rows.filter(state=state)
        if check := request.query_params.get("check"):
            rows = rows.filter(kind=check[:40])
        return Response(keyset_page(request, rows, write=_difference))


class DifferenceView(OperatorView):
    """One difference."""

    @extend_schema(operation_id="operator_differences_get", responses=DifferenceSerializer)
    def get(self, _request: Request, difference_id: str) -> Response:
        """One difference with its evidence."""
        return Response(_difference(_find_difference(difference_id)))


class CloseDifferenceView(OperatorView):
    """Closing a difference."""

    @extend_schema(
        operation_id="operator_differences_close",
        request=CloseDifferenceInput,
        responses=DifferenceSerializer,
    )
    def post(self, request: Request, difference_id: str) -> Response:
        """Close it with a reason. It is opened again if it comes back or its figures change."""
        values = read(CloseDifferenceInput, request.data)
        row = _find_difference(difference_id)
        closed = close_difference(caller=self.caller, item=row.pk, reason=values["reason"])
        return Response(_difference(closed))


class DoubtsView(OperatorView):
    """All usage in doubt."""

    @extend_schema(
        operation_id="operator_doubts_list",
        parameters=[*PAGE_PARAMETERS, OpenApiParameter("kind", str, enum=(UNKNOWN, WAIVED))],
        responses=page_of(DoubtSerializer),
    )
    def get(self, request: Request) -> Response:
        """Undecided attempts without an answer, or what holds did not cover, newest first."""
        kind = request.query_params.get("kind", UNKNOWN)
        if kind not in (UNKNOWN, WAIVED):
            raise InvalidInput(f"kind must be {UNKNOWN} or {WAIVED}.", field="kind")
        limit, after = read_limit(request), read_cursor(request, parse=UUID)
        list_doubts = list_waived if kind == WAIVED else list_unknown
        found = list_doubts(limit=limit + 1, after=after)
        shown = found[:limit]
        has_more = len(found) > limit
        return Response(
            {
                "data": _doubts(shown),
                "next_cursor": write_cursor(shown[-1].request) if has_more else None,
            }
        )


class DoubtView(OperatorView):
    """One request in doubt."""

    moves_money = True

    @extend_schema(
        operation_id="operator_doubts_get",
        parameters=[OpenApiParameter("attempt", int, description="0: the request as a whole.")],
        responses=OneDoubtSerializer,
    )
    def get(self, request: Request, request_id: str) -> Response:
        """An attempt with the upstream's evidence."""
        text = request.query_params.get("attempt", "0")
        attempt = int(text[:6]) if text.isdecimal() else -1
        if not WHOLE_REQUEST <= attempt <= ATTEMPT_MAX:
            raise InvalidInput("attempt must be a number.", field="attempt")
        doubt = find_doubt(request=_request(request_id), attempt=attempt)
        if doubt is None:
            raise NotFound("There is no such attempt.")
        evidence = read_evidence(doubt)
        written = None
        if evidence is not None:
            written = {
                "day": evidence.day.isoformat(),
                "read_at": clock.rfc3339(evidence.read_at),
                "ours": {kind: pair[0] for kind, pair in evidence.figures.items()},
                "reported": {kind: pair[1] for kind, pair in evidence.figures.items()},
                "others": evidence.others,
            }
        return Response({**_doubts([doubt])[0], "evidence": written})

    @extend_schema(
        operation_id="operator_doubts_decide", request=DecisionInput, responses=ReviewSerializer
    )
    def post(self, request: Request, request_id: str) -> Response:
        """Accept it, or charge it at the highest rank and at most the hold; once."""
        # The request and attempt are the key of the posting itself; the caller's is checked, too.
        values = read(DecisionInput, request.data)
        is_charge = values["decision"] == UsageReview.Decision.CHARGED
        decide = charge_doubt if is_charge else accept_doubt
        row = decide(
            caller=self.caller,
            request=_request(request_id),
            attempt=values["attempt"],
            counts={kind: values.get("billed", {}).get(kind, 0) for kind in KINDS},
            reason=values["reason"],
        )
        return Response(
            {
                "request_id": request_id,
                "attempt": row.attempt,
                "decision": row.decision,
                "charged": format_amount(row.charged_nano),
                "accepted": format_amount(row.accepted_nano),
                "currency": row.currency,
                "reason": row.reason,
                "decided_at": clock.rfc3339(row.created_at),
            }
        )


def _request(text: str) -> UUID:
    try:
        return ids.parse_public_id(ids.REQUEST, text)
    except ValueError as error:
        raise NotFound("There is no such request.") from error


def _find_difference(text: str) -> ReconciliationItem:
    try:
        uuid = ReconciliationItem.parse_public_id(text)
    except ValueError as error:
        raise NotFound("There is no such difference.") from error
    row = ReconciliationItem.objects.filter(uuid=uuid).first()
    if row is None:
        raise NotFound("There is no such difference.")
    return row


def _difference(row: ReconciliationItem) -> dict[str, Any]:
    return {
        "id": row.public_id,
        "check": row.kind,
        "cause": row.cause,
        "evidence": [{"name": name, "value": value} for name, value in row.evidence],
        "state": row.state,
        "found_at": clock.rfc3339(row.created_at),
        "seen_at": clock.rfc3339(row.seen_at),
        "gone_at": row.gone_at and clock.rfc3339(row.gone_at),
        "times_reopened": row.times_reopened,
        "closed_at": row.closed_at and clock.rfc3339(row.closed_at),
        "closed_by": row.closed_by,
        "reason": row.reason,
    }


def _doubts(rows: list[Doubt]) -> list[dict[str, Any]]:
    tenants = Tenant.objects.in_bulk({row.tenant for row in rows})
    names = dict(Upstream.objects.values_list("pk", "name"))
    return [
        {
            "request_id": row.public_id,
            "attempt": row.attempt,
            "tenant_id": tenants[row.tenant].public_id if row.tenant in tenants else None,
            "upstream": names.get(row.upstream or 0),
            "outcome": row.outcome,
            "model": row.model,
            "started_at": clock.rfc3339(row.started_at),
            "held": format_amount(nanos_of_micros(row.hold_micro)),
            "charged": format_amount(row.charged_nano),
            "waived": format_amount(row.waived_nano),
            "currency": row.currency,
        }
        for row in rows
    ]
