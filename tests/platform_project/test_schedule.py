"""Every entry of the beat table names a task that exists, and has a name that people read."""

from celery import current_app

from turnpike.schedule import BEAT_SCHEDULE, USAGE_QUEUE
from turnpike.web.operators.jobs import JOBS


def test_each_scheduled_task_exists() -> None:
    current_app.loader.import_default_modules()

    missing = {entry["task"] for entry in BEAT_SCHEDULE.values()} - set(current_app.tasks)

    assert missing == set()


def test_each_scheduled_task_has_a_name_for_people() -> None:
    assert list(JOBS) == list(BEAT_SCHEDULE)


def test_ingest_has_a_queue_of_its_own_and_does_not_pile_up() -> None:
    entry = BEAT_SCHEDULE["ingest-usage"]

    assert entry["options"] == {"queue": USAGE_QUEUE, "expires": 1}
    assert entry["schedule"].total_seconds() == 1


def test_every_entry_expires() -> None:
    assert all(entry["options"]["expires"] > 0 for entry in BEAT_SCHEDULE.values())
