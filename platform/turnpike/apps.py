"""The project as a Django app: loads Celery, the system checks and the shared commands."""

import gc
from typing import Any

from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate


class TurnpikeConfig(AppConfig):
    """Registers what crosses the apps when Django starts."""

    name = "turnpike"
    verbose_name = "Turnpike"

    def ready(self) -> None:
        """Load the Celery app, so that shared tasks find it, and what runs after migrations."""
        from turnpike import celery, checks  # noqa: F401

        # Signals come once for each app; one is enough, and billing's tables must be there.
        post_migrate.connect(_grant_after_migrate, sender=apps.get_app_config("billing"))
        # The settings switched it off. What was loaded stays: nobody need look at it again.
        gc.freeze()
        gc.enable()


def _grant_after_migrate(using: str, **_arguments: Any) -> None:
    from turnpike.control.grants import grant_to_app

    grant_to_app(using=using)
