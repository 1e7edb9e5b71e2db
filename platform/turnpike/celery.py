"""The Celery app. turnpike/apps.py loads it when Django starts."""

from celery import Celery

from turnpike.control import job_records

app = Celery("turnpike")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.set_default()
app.autodiscover_tasks(["accounts", "billing"])
job_records.watch()
