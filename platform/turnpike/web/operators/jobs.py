"""Jobs: what runs by time and how it went, and usage that could not be posted."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import redis
from celery import current_app
from celery.schedules import crontab
from django import forms
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from kombu.exceptions import OperationalError

from accounts.console.operators import OperatorPage, ReasonForm
from accounts.models import RetentionRun
from accounts.services.audit import record_audit
from billing.ingest.retrying import discard_letter, find_letter, retry_letter
from billing.services.letters import list_letters
from turnpike.control.job_records import JobRecord, read_job_records
from turnpike.control.pages import parse_bigint
from turnpike.kernel import clock
from turnpike.kernel.errors import Conflict, NotFound, Unavailable

LETTERS_SHOWN = 50
BODY_SHOWN = 1_200
# A task that has not run for so many of its distances is late.
LATE_FACTOR = 5
LATE_MIN = timedelta(seconds=30)

JOBS: dict[str, Any] = {
    "ingest-usage": gettext_lazy("Post usage"),
    "keep-warm": gettext_lazy("Publish where Redis lost something"),
    "refresh-wallets": gettext_lazy("Bring wallets up to date"),
    "sweep-unposted": gettext_lazy("Repair missed postings"),
    "run-batches": gettext_lazy("Run message batches"),
    "end-key-grace": gettext_lazy("End the grace of rotated keys"),
    "publish-everything": gettext_lazy("Publish everything"),
    "expire-grants": gettext_lazy("Expire granted credit"),
    "reload-credit": gettext_lazy("Reload credit by card"),
    "handle-payment-events": gettext_lazy("Act on news of payments"),
    "sweep-payments": gettext_lazy("Find payments that nobody told of"),
    "dun-invoices": gettext_lazy("Announce invoices, remind, charge cards"),
    "warn-of-low-credit": gettext_lazy("Warn of low credit"),
    "watch-budgets": gettext_lazy("Tell what budgets reached"),
    "close-periods": gettext_lazy("Close months and write invoices"),
    "deliver-webhooks": gettext_lazy("Deliver webhooks"),
    "deliver-mail": gettext_lazy("Send mail"),
    "reconcile-usage": gettext_lazy("Reconcile the books"),
    "check-audit-chains": gettext_lazy("Check the audit logs"),
    "purge-answers": gettext_lazy("Forget kept answers"),
    "build-exports": gettext_lazy("Build data exports"),
    "look-at-components": gettext_lazy("Look at the components"),
    "apply-retention": gettext_lazy("Remove what has had its time"),
    "archive-batches": gettext_lazy("Remove results of old batches"),
    "make-partitions": gettext_lazy("Make room for coming months"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One entry of the timetable and how its last run went."""

    name: str
    title: Any
    distance: timedelta | None
    record: JobRecord
    next_at: datetime | None
    is_late: bool

    @property
    def tone(self) -> str:
        """How it stands."""
        if self.record.has_failed_last:
            return "danger"
        if not self.record.runs:
            return ""
        return "warn" if self.is_late else "ok"


class LetterForm(ReasonForm):
    """What becomes of usage that could not be posted."""

    action = forms.ChoiceField(choices=[("retry", "retry"), ("discard", "discard")])


class JobsPage(OperatorPage):
    """The timetable and the dead letters."""

    def get(self, _request: HttpRequest) -> HttpResponse:
        """How everything that runs by time went."""
        jobs = list_jobs(at=clock.utc_now())
        letters = list_letters(limit=LETTERS_SHOWN)
        return self.page(
            "operator/jobs.html",
            {
                "jobs": jobs,
                "failing": sum(job.tone == "danger" for job in jobs),
                "letters": [_letter(letter) for letter in letters],
                "retention": RetentionRun.objects.order_by("-pk").first(),
            },
        )

    def post(self, request: HttpRequest) -> HttpResponse:
        """Run one now, beside its timetable."""
        name = request.POST.get("job", "")
        entry = settings.CELERY_BEAT_SCHEDULE.get(name)
        if entry is None:
            raise NotFound("There is no such job.")
        try:
            current_app.send_task(entry["task"], queue=entry["options"].get("queue"), retry=False)
        except OperationalError as error:
            raise Unavailable("The broker is away.") from error
        record_audit(actor=self.caller, tenant=None, action="job.started", target=name)
        return self.done(_("It was sent to a worker. Its row changes when it has run."))


class LetterPage(OperatorPage):
    """Deciding about one dead letter."""

    def back(self) -> str:
        """The list."""
        return reverse("operator-jobs")

    def post(self, request: HttpRequest, letter_id: str) -> HttpResponse:
        """Post it again, or close it without a charge."""
        form = LetterForm(request.POST)
        if not form.is_valid():
            return self.refused(form)
        letter = find_letter(number_of(letter_id))
        if letter is None:
            raise Conflict("It was settled before.")
        action = form.cleaned_data["action"]
        if action == "retry":
            retry_letter(letter)
        else:
            discard_letter(letter)
        record_audit(
            actor=self.caller,
            tenant=None,
            action=f"dead_letter.{action}",
            target=str(letter.request_id or letter.pk),
            after={"letter": letter.pk},
            reason=form.cleaned_data["reason"],
        )
        done = _("It was posted.") if action == "retry" else _("It was closed without a charge.")
        return self.done(done)


def number_of(text: str) -> int:
    """A row's number as an address has it; one that nothing has where it is none."""
    try:
        return parse_bigint(text)
    except ValueError:
        return 0


def list_jobs(*, at: datetime) -> list[Job]:
    """The timetable, what failed first."""
    entries = settings.CELERY_BEAT_SCHEDULE
    try:
        records = read_job_records(entry["task"] for entry in entries.values())
    except redis.RedisError as error:
        raise Unavailable("Redis is away.") from error
    jobs = [_job(name, entry, records[entry["task"]], at) for name, entry in entries.items()]
    return sorted(jobs, key=lambda job: (job.tone != "danger", job.tone != "warn"))


def _job(name: str, entry: dict[str, Any], record: JobRecord, at: datetime) -> Job:
    schedule = entry["schedule"]
    distance = None if isinstance(schedule, crontab) else schedule
    last = record.started_at
    if distance is None:
        next_at = at + schedule.remaining_estimate(at)
        is_late = False
    else:
        next_at = None if last is None else max(at, last + distance)
        is_late = last is not None and at - last > max(LATE_MIN, distance * LATE_FACTOR)
    return Job(
        name=name,
        title=JOBS.get(name, name),
        distance=distance,
        record=record,
        next_at=next_at,
        is_late=is_late,
    )


def _letter(letter: Any) -> dict[str, Any]:
    body = bytes(letter.body[:BODY_SHOWN]).decode(errors="backslashreplace")
    return {"row": letter, "body": body, "form": LetterForm(auto_id=f"letter-{letter.pk}-%s")}
