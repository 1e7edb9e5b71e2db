"""enqueue_on_commit(name, ...): how a service asks for work without importing tasks."""

from functools import partial
from typing import Any

from celery import current_app
from django.db import transaction


def enqueue_on_commit(task_name: str, **arguments: Any) -> None:
    """Send a task by name once the transaction has committed; at once outside of one."""
    transaction.on_commit(partial(_send, task_name, arguments))


def _send(task_name: str, arguments: dict[str, Any]) -> None:
    current_app.send_task(task_name, kwargs=arguments)
