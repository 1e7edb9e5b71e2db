"""How periodic tasks went: written by the workers to Redis, read by the operator's console.

These are facts of the moment: whoever loses Redis learns them anew with the next runs.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import redis
from celery import signals

from turnpike.control.redis import redis_client, text_of
from turnpike.kernel import clock, keyspace

logger = logging.getLogger(__name__)

ERROR_LENGTH_MAX = 300
NAMES_MAX = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """What is known of one task's runs."""

    task: str
    runs: int = 0
    failures: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    took_us: int | None = None
    failed_at: datetime | None = None
    error: str = ""

    @property
    def has_failed_last(self) -> bool:
        """Whether nothing has gone well since the last failure."""
        return self.failed_at is not None and (
            self.ended_at is None or self.failed_at >= self.ended_at
        )


def watch() -> None:
    """Note every run of this process's tasks from now on."""
    signals.task_prerun.connect(_note_start, weak=False, dispatch_uid="job_records.start")
    signals.task_success.connect(_note_success, weak=False, dispatch_uid="job_records.success")
    signals.task_failure.connect(_note_failure, weak=False, dispatch_uid="job_records.failure")


def read_job_records(tasks: Iterable[str]) -> Mapping[str, JobRecord]:
    """What is known of these tasks. Raises redis.RedisError where Redis is away."""
    names = list(tasks)[:NAMES_MAX]
    pipeline = redis_client().pipeline(transaction=False)
    for task in names:
        pipeline.hgetall(keyspace.job_record(task))
    return {
        task: _record(task, {text_of(key): text_of(value) for key, value in fields.items()})
        for task, fields in zip(names, pipeline.execute(), strict=True)
    }


def note_start(task: str, *, at_us: int) -> None:
    """A run begins."""
    pipeline = redis_client().pipeline(transaction=False)
    pipeline.hset(keyspace.job_record(task), "started_us", at_us)
    pipeline.hincrby(keyspace.job_record(task), "runs", 1)
    pipeline.execute()


def note_end(task: str, *, at_us: int, error: str = "") -> None:
    """A run ended, well or with an error."""
    key = keyspace.job_record(task)
    pipeline = redis_client().pipeline(transaction=False)
    if error:
        pipeline.hset(key, mapping={"failed_us": at_us, "error": error[:ERROR_LENGTH_MAX]})
        pipeline.hincrby(key, "failures", 1)
    else:
        pipeline.hset(key, mapping={"ended_us": at_us})
    pipeline.execute()


def _note_start(sender: Any, **_ignored: Any) -> None:
    _quietly(lambda: note_start(sender.name, at_us=clock.now_us()))


def _note_success(sender: Any, **_ignored: Any) -> None:
    _quietly(lambda: note_end(sender.name, at_us=clock.now_us()))


def _note_failure(sender: Any, exception: BaseException, **_ignored: Any) -> None:
    error = f"{type(exception).__name__}: {exception}"
    _quietly(lambda: note_end(sender.name, at_us=clock.now_us(), error=error))


def _quietly(act: Any) -> None:
    try:
        act()
    except redis.RedisError:
        logger.debug("job_records.redis_away")


def _record(task: str, fields: Mapping[str, str]) -> JobRecord:
    def at(name: str) -> datetime | None:
        return clock.datetime_of_us(int(fields[name])) if name in fields else None

    started, ended = fields.get("started_us"), fields.get("ended_us")
    has_both = started is not None and ended is not None and int(ended) >= int(started)
    return JobRecord(
        task=task,
        runs=int(fields.get("runs", 0)),
        failures=int(fields.get("failures", 0)),
        started_at=at("started_us"),
        ended_at=at("ended_us"),
        took_us=int(ended or 0) - int(started or 0) if has_both else None,
        failed_at=at("failed_us"),
        error=fields.get("error", ""),
    )
