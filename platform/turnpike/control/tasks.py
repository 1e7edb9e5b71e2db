"""enqueue_on_commit(name, ...): how a service asks for work without importing tasks.

The broker may be away: what is asked for here is also found by a periodic task, so that nobody is
told that a change failed which was made.
"""

import logging
from functools import partial
from typing import Any

from celery import current_app
from django.db import transaction
from kombu.exceptions import OperationalError

logger = logging.getLogger(__name__)


def enqueue_on_commit(task_name: str, **arguments: Any) -> None:
    """Send a task by name once the transaction has committed; at once outside of one."""
    transaction.on_commit(partial(_send, task_name, arguments))


def _send(task_name: str, arguments: dict[str, Any]) -> None:
    try:
        current_app.send_task(task_name, kwargs=arguments, retry=False)
    except OperationalError:
        logger.warning("task.not_sent", extra={"task": task_name})
