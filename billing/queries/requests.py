"""Requests as tenants read them: one row each, the newest words and the sum of all revisions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Exists, OuterRef, QuerySet, Sum

from accounts.models import ApiKey, Workspace
from billing.models.ledger import LedgerEntry, LedgerTxn
from billing.models.usage import UpstreamAttempt, UsageEvent
from turnpike.control.scope import platform_scope
from turnpike.kernel import ids

WORDS = (
    "request_id",
    "revision",
    "status",
    "rank",
    "model",
    "requested_model",
    "tier",
    "is_stream",
    "started_at",
    "finished_at",
    "ttft_us",
    "http_status",
    "stop_reason",
    "error_type",
    "workspace_id",
    "api_key_id",
    "member",
    "currency",
    "price_set_id",
    "hold_micro",
)
NUMBERS = (
    "input_tokens",
    "output_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "cache_read_tokens",
    "web_search_requests",
    "thinking_tokens",
    "amount_nano",
    "waived_nano",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFilter:
    """What a list of requests is narrowed to; None or empty: not narrowed."""

    status: str | None = None
    model: str | None = None
    http_status: int | None = None
    workspace: int | None = None
    key: int | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicIds:
    """The public ids behind the numbers of keys and workspaces."""

    keys: Mapping[int, str]
    workspaces: Mapping[int, str]


def list_requests(
    *, tenant: int, chosen: RequestFilter, after: UUID | None, limit: int
) -> list[dict[str, Any]]:
    """A tenant's requests, newest first, those before `after`; three queries whatever the size."""
    heads = _heads(tenant).filter(**_conditions(chosen))
    if after is not None:
        heads = heads.filter(request_id__lt=after)
    rows = list(heads.order_by("-request_id").values(*WORDS, *NUMBERS)[:limit])
    revised = [row["request_id"] for row in rows if row["revision"]]
    if revised:
        sums = _sums(tenant, revised)
        for row in rows:
            row.update(sums.get(row["request_id"], {}))
    return rows


def list_revisions(*, tenant: int, request: UUID) -> list[UsageEvent]:
    """All rows of one request, the first one first; empty where it is not the tenant's."""
    return list(
        UsageEvent.objects.filter(tenant_id=tenant, request_id=request).order_by("revision")
    )


def list_attempts(*, tenant: int, request: UUID) -> list[UpstreamAttempt]:
    """A request's tries at upstreams in their order."""
    return list(
        UpstreamAttempt.objects.filter(tenant_id=tenant, request_id=request).order_by("attempt")
    )


def list_postings(
    *, tenant: int, postings: Iterable[UUID], keys: Iterable[str] = ()
) -> list[tuple[LedgerTxn, list[LedgerEntry]]]:
    """The ledger transactions of these postings with their entries on the tenant's accounts.

    `keys` name further postings of the tenant, such as corrections of prices.
    """
    names = [*(f"usage:{posting}:{tenant}" for posting in postings), *keys]
    found = []
    for txn in LedgerTxn.objects.filter(tenant_id=tenant, idem_key__in=names).order_by("pk"):
        entries = txn.entries.filter(tenant_id=tenant).select_related("account")
        found.append((txn, list(entries.order_by("line"))))
    return found


def public_ids(rows: Sequence[Mapping[str, Any]]) -> PublicIds:
    """The public ids that these rows need, in two queries."""
    keys = {row["api_key_id"] for row in rows if row.get("api_key_id") is not None}
    workspaces = {row["workspace_id"] for row in rows if row.get("workspace_id") is not None}
    return PublicIds(
        keys={
            number: ids.public_id(ids.API_KEY, uuid)
            for number, uuid in ApiKey.objects.filter(pk__in=keys).values_list("pk", "uuid")
        },
        workspaces={
            number: ids.public_id(ids.WORKSPACE, uuid)
            for number, uuid in Workspace.objects.filter(pk__in=workspaces).values_list(
                "pk", "uuid"
            )
        },
    )


def key_numbers(*, tenant: int, public: Iterable[str]) -> list[int]:
    """The numbers of a tenant's keys by public id; ids that are not its own are left out."""
    uuids = _uuids(ids.API_KEY, public)
    return list(
        ApiKey.objects.filter(tenant_id=tenant, uuid__in=uuids).values_list("pk", flat=True)
    )


def workspace_numbers(*, tenant: int, public: Iterable[str]) -> list[int]:
    """The numbers of a tenant's workspaces by public id; others are left out."""
    found = Workspace.objects.filter(tenant_id=tenant, uuid__in=_uuids(ids.WORKSPACE, public))
    return list(found.values_list("pk", flat=True))


def find_first_event_at() -> datetime | None:
    """When the oldest request started; None before the first."""
    with platform_scope("find first event"):
        oldest = UsageEvent.objects.order_by("request_id").values_list("started_at", flat=True)
        return oldest.first()


def _heads(tenant: int) -> QuerySet[UsageEvent]:
    """The newest revision of each request."""
    newer = UsageEvent.objects.filter(
        request_id=OuterRef("request_id"), revision__gt=OuterRef("revision")
    )
    return UsageEvent.objects.filter(~Exists(newer), tenant_id=tenant)


def _sums(tenant: int, requests: Sequence[UUID]) -> dict[UUID, dict[str, int]]:
    rows = (
        UsageEvent.objects.filter(tenant_id=tenant, request_id__in=requests)
        .order_by("request_id")
        .values("request_id")
        .annotate(**{f"sum_{name}": Sum(name) for name in NUMBERS})
        .values_list("request_id", *(f"sum_{name}" for name in NUMBERS))
    )
    return {
        request: {name: int(number) for name, number in zip(NUMBERS, numbers, strict=True)}
        for request, *numbers in rows
    }


def _conditions(chosen: RequestFilter) -> dict[str, Any]:
    given = {
        "status": chosen.status,
        "model": chosen.model,
        "http_status": chosen.http_status,
        "workspace_id": chosen.workspace,
        "api_key_id": chosen.key,
        # Ids are ordered by time, and the index is on them.
        "request_id__gte": None if chosen.since is None else ids.uuid7_floor(chosen.since),
        "request_id__lt": None if chosen.until is None else ids.uuid7_floor(chosen.until),
    }
    return {name: value for name, value in given.items() if value is not None}


def _uuids(prefix: str, public: Iterable[str]) -> list[UUID]:
    found = []
    for text in public:
        try:
            found.append(ids.parse_public_id(prefix, text))
        except ValueError:
            continue
    return found
