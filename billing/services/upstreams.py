"""add_upstream, set_credential, add_missing_routes: who answers requests, and with which secret."""

from collections.abc import Collection
from typing import Literal

from django.db import transaction

from billing.models.catalog import CatalogModel
from billing.models.upstreams import Route, Upstream, UpstreamCredential
from billing.services.publication import touch_plane
from turnpike.contracts.snapshots import credential_place
from turnpike.env import env
from turnpike.kernel import hashing, sealing
from turnpike.kernel.errors import InvalidInput, NotFound

AnyModels = Literal["*"]
ALL: AnyModels = "*"


def add_upstream(
    *,
    name: str,
    kind: str,
    base_url: str,
    credential: str | None,
    is_simulator: bool = False,
    send_request_id: bool = False,
    models: AnyModels | Collection[str] = ALL,
    priority: int = 0,
) -> Upstream:
    """Add an upstream, or bring the one of that name to these values; from the next request.

    `models='*'`: everything it can have. The simulator has every model of the catalogue, retired
    ones too; Anthropic what it has not retired; others have the models that are named.
    """
    if kind not in Upstream.Kind.values:
        raise InvalidInput(f"No such kind of upstream: {kind!r}.", field="kind")
    if not base_url.startswith(("https://", "http://")):
        raise InvalidInput("The base URL begins with https:// or http://.", field="base_url")
    with transaction.atomic():
        upstream, is_new = Upstream.objects.update_or_create(
            name=name,
            defaults={
                "kind": kind,
                "base_url": base_url.rstrip("/"),
                "is_simulator": is_simulator,
                "send_request_id": send_request_id,
                "is_for_all_models": models == ALL,
                "default_priority": priority,
                "is_enabled": True,
            },
        )
        if is_new and kind == Upstream.Kind.ANTHROPIC:
            upstream.has_batches = True
            upstream.save(update_fields=["has_batches"])
        if credential is not None:
            set_credential(upstream=upstream, secret=credential)
        _set_routes(upstream, models)
        touch_plane()
    return upstream


def set_enabled(*, name: str, is_enabled: bool) -> Upstream:
    """Take an upstream in or out of service; from the next request."""
    with transaction.atomic():
        upstream = Upstream.objects.select_for_update().filter(name=name).first()
        if upstream is None:
            raise NotFound(f"There is no upstream {name!r}.")
        upstream.is_enabled = is_enabled
        upstream.save()
        touch_plane()
    return upstream


def set_credential(*, upstream: Upstream, secret: str, name: str = "default") -> UpstreamCredential:
    """Seal a secret for an upstream; the same secret again changes nothing."""
    keys = env().sealing_keys
    with transaction.atomic():
        row, is_new = UpstreamCredential.objects.select_for_update().get_or_create(
            upstream=upstream, name=name, defaults={"sealed": ""}
        )
        place = credential_place(row.pk)
        if is_new or not _opens_to(row.sealed, secret, place=place):
            row.sealed = sealing.seal(secret, place=place, master_keys=keys)
            row.hint = hashing.key_hint(secret) if len(secret) > 2 * hashing.SHOWN_HEAD else ""
            row.is_enabled = True
            row.save()
            touch_plane()
    return row


def add_missing_routes() -> int:
    """Route models to the upstreams that have all of them; how many routes were added."""
    before = Route.objects.count()
    for upstream in Upstream.objects.filter(is_for_all_models=True):
        _add_routes(upstream, _models_of(upstream, ALL))
    return Route.objects.count() - before


def _set_routes(upstream: Upstream, models: AnyModels | Collection[str]) -> None:
    rows = _models_of(upstream, models)
    Route.objects.filter(upstream=upstream).exclude(model__in=rows).delete()
    _add_routes(upstream, rows)
    Route.objects.filter(upstream=upstream).update(priority=upstream.default_priority)


def _add_routes(upstream: Upstream, rows: Collection[CatalogModel]) -> None:
    Route.objects.bulk_create(
        (
            Route(
                model=row,
                upstream=upstream,
                upstream_model=row.model,
                priority=upstream.default_priority,
                weight=upstream.default_weight,
            )
            for row in rows
        ),
        ignore_conflicts=True,
    )


def _models_of(upstream: Upstream, models: AnyModels | Collection[str]) -> Collection[CatalogModel]:
    if models != ALL:
        rows = list(CatalogModel.objects.filter(model__in=models))
        missing = set(models) - {row.model for row in rows}
        if missing:
            raise NotFound(f"Not in the catalogue: {', '.join(sorted(missing))}.")
        return rows
    known = CatalogModel.objects.order_by("pk")
    if upstream.is_simulator:
        return list(known)
    if upstream.kind == Upstream.Kind.ANTHROPIC:
        lasting = known.filter(model__startswith="claude-")
        return list(lasting.exclude(lifecycle=CatalogModel.Lifecycle.RETIRED))
    return []


def _opens_to(sealed: str, secret: str, *, place: str) -> bool:
    try:
        opened = sealing.unseal(sealed, place=place, master_keys=env().sealing_keys)
    except sealing.CannotOpen:
        return False
    return opened == secret
