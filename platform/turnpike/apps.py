"""The project as a Django app: loads Celery, the system checks and the shared commands."""

from django.apps import AppConfig


class TurnpikeConfig(AppConfig):
    """Registers what crosses the apps when Django starts."""

    name = "turnpike"
    verbose_name = "Turnpike"

    def ready(self) -> None:
        """Load the Celery app, so that shared tasks find it."""
        from turnpike import celery  # noqa: F401, PLC0415
