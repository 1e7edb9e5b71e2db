"""reseal_credentials: brings credentials and webhook secrets under the first master key."""

from dataclasses import dataclass

from django.db import transaction

from accounts.services.audit import record_audit
from accounts.services.webhooks import reseal_webhooks
from billing.models.batches import MessageBatch
from billing.models.upstreams import UpstreamCredential
from billing.services.batch_content import reseal_batch_key
from billing.services.publication import touch_plane
from turnpike.contracts.snapshots import credential_place
from turnpike.control.caller import SYSTEM
from turnpike.control.scope import platform_scope
from turnpike.env import env
from turnpike.kernel import sealing


@dataclass(frozen=True, slots=True, kw_only=True)
class Resealing:
    """What became of the credentials; `unopened` names those that no known key opens."""

    master_key: str
    resealed: int
    current: int
    unopened: tuple[str, ...]


def reseal_credentials(*, is_dry_run: bool = False) -> Resealing:
    """Seal again what another master key sealed; repeatable, and each row by itself.

    The gateways open both until the old key leaves MASTER_KEYS, which is safe once nothing is left.
    """
    keys = env().sealing_keys
    first = next(iter(keys))
    resealed = current = 0
    unopened: list[str] = []
    numbers = UpstreamCredential.objects.exclude(sealed="").order_by("pk").values_list("pk")
    for (number,) in list(numbers):
        with transaction.atomic():
            row = UpstreamCredential.objects.select_for_update().get(pk=number)
            if row.sealed.startswith(f"v1:{first}:"):
                current += 1
                continue
            place = credential_place(row.pk)
            try:
                secret = sealing.unseal(row.sealed, place=place, master_keys=keys)
            except sealing.CannotOpen:
                unopened.append(f"{row.upstream_id}/{row.name}")
                continue
            resealed += 1
            if not is_dry_run:
                row.sealed = sealing.seal(secret, place=place, master_keys=keys)
                row.save()
    resealed += _reseal_batches(first, unopened, is_dry_run=is_dry_run)
    with platform_scope("billing.reseal_credentials"):
        webhooks, closed = reseal_webhooks(is_dry_run=is_dry_run)
    resealed += webhooks
    unopened.extend(closed)
    if resealed and not is_dry_run:
        _record(first, resealed)
    return Resealing(master_key=first, resealed=resealed, current=current, unopened=tuple(unopened))


def _reseal_batches(first: str, unopened: list[str], *, is_dry_run: bool) -> int:
    """The keys of message batches, each row by itself; they end with their batches."""
    with platform_scope("list batch keys"):
        rows = MessageBatch.objects.exclude(sealed_key="")
        old = list(rows.exclude(sealed_key__startswith=f"v1:{first}:").values_list("pk", flat=True))
    resealed = 0
    for number in old:
        with platform_scope("reseal batch key"):
            batch = MessageBatch.objects.select_for_update().filter(pk=number).first()
            if batch is None or not batch.sealed_key:
                continue
            try:
                sealed_key = reseal_batch_key(batch)
            except sealing.CannotOpen:
                unopened.append(batch.public_id)
                continue
            resealed += 1
            if not is_dry_run:
                MessageBatch.objects.filter(pk=number).update(sealed_key=sealed_key)
    return resealed


def _record(master_key: str, count: int) -> None:
    with transaction.atomic():
        record_audit(
            actor=SYSTEM,
            tenant=None,
            action="master_key.rotated",
            target="upstream_credentials",
            after={"master_key": master_key, "credentials": count},
        )
        touch_plane()
