"""Abstract bases: created_at, public ids, tenant-owned rows."""

from typing import ClassVar
from uuid import UUID

from django.db import models

from turnpike.kernel import clock, ids


class TimestampedModel(models.Model):
    """A row that knows when it was made."""

    created_at = models.DateTimeField(default=clock.utc_now, editable=False)

    class Meta:
        abstract = True


class PublicModel(TimestampedModel):
    """A row with a bigint id inside and a prefixed UUIDv7 outside."""

    public_prefix: ClassVar[str]

    uuid = models.UUIDField(default=ids.uuid7, unique=True, editable=False)

    class Meta:
        abstract = True

    @property
    def public_id(self) -> str:
        """The id as people and programs see it."""
        return ids.public_id(self.public_prefix, self.uuid)

    @classmethod
    def parse_public_id(cls, text: str) -> UUID:
        """The UUID behind a public id of this kind. Raises ValueError."""
        return ids.parse_public_id(cls.public_prefix, text)
