"""announce, end_announcement, withdraw_announcement, list_current: what all tenants should know."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q, QuerySet
from django.utils import translation

from accounts.services.audit import record_audit
from billing.models.upkeep import TEXT_LENGTH_MAX, TITLE_LENGTH_MAX, Announcement
from turnpike.control.caller import Caller
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock
from turnpike.kernel.errors import Conflict, InvalidInput

DEFAULT_LANGUAGE = "en"
LANGUAGES = (DEFAULT_LANGUAGE, "zh-hans", "ru")
CURRENT_MAX = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """An announcement in one language."""

    title: str
    text: str


def announce(
    *,
    caller: Caller,
    kind: str,
    severity: str,
    words: Mapping[str, Words],
    starts_at: datetime,
    ends_at: datetime | None,
    component: str = "",
) -> Announcement:
    """Tell all tenants something between two times; English is needed, other languages fall back.

    Raises InvalidInput for what nobody could read, or an end before the start.
    """
    if kind not in Announcement.Kind.values or severity not in Announcement.Severity.values:
        raise InvalidInput("The kind or severity is not known.", field="kind")
    if ends_at is not None and ends_at <= starts_at:
        raise InvalidInput("It ends before it starts.", field="ends_at")
    texts = {language: _check(words[language]) for language in LANGUAGES if language in words}
    if not texts.get(DEFAULT_LANGUAGE, {}).get("title"):
        raise InvalidInput("A title in English is needed.", field="title_en")
    with platform_scope("billing.announce"):
        row = Announcement.objects.create(
            kind=kind,
            severity=severity,
            component=component,
            texts={language: text for language, text in texts.items() if text["title"]},
            starts_at=starts_at,
            ends_at=ends_at,
            actor=caller.actor,
        )
        _record(caller, row, "announcement.created", after={"kind": kind, "texts": row.texts})
    return row


def end_announcement(*, caller: Caller, row: Announcement) -> None:
    """End it now: an incident is over, and stays on the status page."""
    now = clock.utc_now()
    with platform_scope("billing.end_announcement"):
        found = Announcement.objects.select_for_update().get(pk=row.pk)
        if found.withdrawn_at is not None or (found.ends_at and found.ends_at <= now):
            raise Conflict("It is over already.")
        if found.starts_at >= now:
            raise Conflict("It has not begun; withdraw it.")
        found.ends_at = now
        found.save(update_fields=["ends_at"])
        _record(caller, found, "announcement.ended", after={"ends_at": clock.rfc3339(now)})


def withdraw_announcement(*, caller: Caller, row: Announcement, reason: str) -> None:
    """Take it back as if it had not been said; the audit log keeps it."""
    with platform_scope("billing.withdraw_announcement"):
        found = Announcement.objects.select_for_update().get(pk=row.pk)
        if found.withdrawn_at is not None:
            raise Conflict("It was withdrawn already.")
        found.withdrawn_at = clock.utc_now()
        found.save(update_fields=["withdrawn_at"])
        _record(caller, found, "announcement.withdrawn", reason=reason)


def list_current(*, at: datetime) -> list[Announcement]:
    """What holds at a time, the newest first."""
    return list(_standing().filter(_holds(at)).order_by("-starts_at")[:CURRENT_MAX])


def words_of(row: Announcement) -> Words:
    """An announcement in the reader's language, else in English."""
    language = translation.get_language() or DEFAULT_LANGUAGE
    found = row.texts.get(language) or row.texts[DEFAULT_LANGUAGE]
    return Words(title=found["title"], text=found["text"])


def _standing() -> QuerySet[Announcement]:
    return Announcement.objects.filter(withdrawn_at=None)


def _holds(at: datetime) -> Q:
    return Q(starts_at__lte=at) & (Q(ends_at=None) | Q(ends_at__gt=at))


def _check(words: Words) -> dict[str, str]:
    title, text = words.title.strip(), words.text.strip()
    if len(title) > TITLE_LENGTH_MAX or len(text) > TEXT_LENGTH_MAX:
        raise InvalidInput(
            f"A title has at most {TITLE_LENGTH_MAX} characters, a text {TEXT_LENGTH_MAX}.",
            field="title_en",
        )
    return {"title": title, "text": text}


def _record(
    caller: Caller,
    row: Announcement,
    action: str,
    *,
    after: Mapping[str, object] | None = None,
    reason: str = "",
) -> None:
    record_audit(
        actor=caller, tenant=None, action=action, target=row.public_id, after=after, reason=reason
    )
