"""Stores the first answer to an Idempotency-Key and replays it.

The record is written in the transaction of the change itself: both exist or neither does. A second
request with the same key waits for the first one's commit at the unique constraint. Secrets are
blanked before an answer is stored, so that no secret is kept or shown twice.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import models
from django.db.models import Q

from turnpike.control.models import TimestampedModel
from turnpike.kernel import clock
from turnpike.kernel.errors import Conflict, InvalidInput

KEY_LENGTH_MAX = 255
# What moves money keeps the key for good, beside words of its own.
MONEY_KEY_LENGTH_MAX = 100
KEPT_FOR = timedelta(hours=24)
# Fields of answers that hold a secret; a replay has null there.
SECRET_FIELDS = frozenset({"secret", "token"})


class IdempotentAnswer(TimestampedModel):
    """The answer to one Idempotency-Key of one caller."""

    tenant = models.ForeignKey(
        "accounts.Tenant", null=True, blank=True, on_delete=models.CASCADE, related_name="+"
    )
    actor = models.CharField(max_length=64)
    key = models.CharField(max_length=KEY_LENGTH_MAX)
    request_digest = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField(null=True, blank=True)
    body = models.JSONField(null=True, blank=True)

    class Meta:
        app_label = "accounts"
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "actor", "key"],
                name="idempotentanswer_once",
                nulls_distinct=False,
            ),
            models.CheckConstraint(condition=~Q(key=""), name="idempotentanswer_has_a_key"),
        ]
        indexes = [models.Index(fields=["created_at"], name="idempotentanswer_by_age")]

    def __str__(self) -> str:
        return f"{self.actor} {self.key}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """An answer that was given before."""

    status: int
    body: Any


def digest_request(*, method: str, path: str, body: bytes) -> str:
    """What tells whether two requests with one key are the same request."""
    return hashlib.sha256(b"\n".join((method.encode(), path.encode(), body))).hexdigest()


def claim_key(
    *, tenant: int | None, actor: str, key: str, request_digest: str
) -> IdempotentAnswer | Replay:
    """Claim a key for this transaction, or find the answer that it got before.

    Raises InvalidInput for a malformed key, Conflict when the key came with another request.
    """
    if not 0 < len(key) <= KEY_LENGTH_MAX or not key.isprintable():
        raise InvalidInput(
            f"Idempotency-Key must have 1 to {KEY_LENGTH_MAX} printable characters.",
            field="Idempotency-Key",
        )
    fields = {"tenant_id": tenant, "actor": actor, "key": key}
    answer, is_new = IdempotentAnswer.objects.get_or_create(
        **fields, defaults={"request_digest": request_digest}
    )
    if is_new:
        return answer
    if answer.created_at + KEPT_FOR < clock.utc_now():
        answer.delete()
        return IdempotentAnswer.objects.create(**fields, request_digest=request_digest)
    if answer.request_digest != request_digest:
        raise Conflict("This Idempotency-Key was used before with another request.")
    assert answer.status is not None
    return Replay(status=answer.status, body=answer.body)


def check_money_key(key: str) -> str:
    """The key of a call that moves money, which must have one. Raises InvalidInput."""
    if not 0 < len(key) <= MONEY_KEY_LENGTH_MAX or not key.isprintable():
        raise InvalidInput(
            f"Send an Idempotency-Key of 1 to {MONEY_KEY_LENGTH_MAX} printable characters.",
            field="Idempotency-Key",
        )
    return key


def keep_answer(answer: IdempotentAnswer, *, status: int, body: Any) -> None:
    """Store the answer of a claimed key, its secrets blanked."""
    answer.status = status
    answer.body = json.loads(json.dumps(_without_secrets(body), default=str))
    answer.save(update_fields=["status", "body"])


def purge_answers(*, before_seconds: int = int(KEPT_FOR.total_seconds())) -> int:
    """Delete answers that are older than they are kept; returns how many."""
    oldest = clock.utc_now() - timedelta(seconds=before_seconds)
    deleted, _ = IdempotentAnswer.objects.filter(created_at__lt=oldest).delete()
    return deleted


def _without_secrets(body: Any) -> Any:
    if isinstance(body, Mapping):
        return {
            key: None if key in SECRET_FIELDS else _without_secrets(value)
            for key, value in body.items()
        }
    if isinstance(body, list | tuple):
        return [_without_secrets(item) for item in body]
    return body
