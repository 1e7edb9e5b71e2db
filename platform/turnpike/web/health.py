"""Whether the control plane lives, and whether its servers answer."""

import logging

from django.db import Error, connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe
from redis import RedisError

from turnpike.control.redis import redis_client

logger = logging.getLogger(__name__)


@require_safe
def livez(_request: HttpRequest) -> JsonResponse:
    """The process answers; says nothing about what it needs."""
    return JsonResponse({"status": "ok"})


@require_safe
def readyz(_request: HttpRequest) -> JsonResponse:
    """Whether PostgreSQL and Redis answer too."""
    parts = {"postgres": _postgres_answers(), "redis": _redis_answers()}
    is_ready = all(parts.values())
    return JsonResponse(
        {
            "status": "ok" if is_ready else "unavailable",
            "parts": {name: "ok" if is_up else "unavailable" for name, is_up in parts.items()},
        },
        status=200 if is_ready else 503,
    )


def _postgres_answers() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except Error:
        logger.warning("ready.postgres_away")
        return False
    return True


def _redis_answers() -> bool:
    try:
        return bool(redis_client().ping())
    except RedisError:
        logger.warning("ready.redis_away")
        return False
