"""The Celery app. turnpike/apps.py loads it when Django starts."""

from celery import Celery

app = Celery("turnpike")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.set_default()
app.autodiscover_tasks(["accounts", "billing"])
