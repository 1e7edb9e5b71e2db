"""ControlSchema: how the schema describes views of the management API."""

from typing import Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter

IDEMPOTENCY_KEY = "Idempotency-Key"


class ControlSchema(AutoSchema):
    """Every POST names the header that makes it safe to send again; those of money need it."""

    def get_override_parameters(self) -> list[Any]:
        """What the view declares, and that header."""
        declared = super().get_override_parameters()
        moves_money = getattr(self.view, "moves_money", None)
        if self.method != "POST" or moves_money is None:
            return declared
        header = OpenApiParameter(
            IDEMPOTENCY_KEY,
            str,
            OpenApiParameter.HEADER,
            required=moves_money,
            description="The same key and body again: the first answer again, and nothing more.",
        )
        return [*declared, header]
