"""post_mail, deliver_mail: one message to one address, once, after the commit.

What a message says lies sealed until it is sent, for it may hold a link that opens something; then
it is gone. A server that is away is tried again with growing distances for about a day.
"""

import json
import logging
from dataclasses import asdict, dataclass
from datetime import timedelta

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.template.loader import render_to_string
from django.utils import translation

from accounts.models import Mail
from turnpike.control.scope import platform_scope
from turnpike.control.tasks import enqueue_on_commit
from turnpike.env import env
from turnpike.kernel import clock, sealing
from turnpike.kernel.errors import Conflict

logger = logging.getLogger(__name__)

TRIES_MAX = 12
FIRST_PAUSE = timedelta(seconds=30)
PAUSE_MAX = timedelta(hours=3)
# Longer than a server may take: who took a message and died is followed by somebody else.
CLAIM = timedelta(minutes=5)
AT_ONCE_MAX = 100
TENANT_DAY_MAX = 500
ADDRESS_DAY_MAX = 20
DAY = timedelta(days=1)
PLACE = "accounts_mail.sealed"
DELIVER = "accounts.tasks.deliver_mail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """What a message says, in the reader's language: paragraphs, and at most one thing to do."""

    subject: str
    paragraphs: tuple[str, ...]
    action: str = ""
    address: str = ""
    note: str = ""


def post_mail(
    *, key: str, kind: str, to: str, letter: Letter, tenant: int | None, language: str = ""
) -> bool:
    """Take a message; it leaves after the commit. False where the key was taken before.

    Raises Conflict beyond what a tenant or an address may get in a day.
    """
    now = clock.utc_now()
    _check_bounds(to=to, tenant=tenant)
    _mail, is_new = Mail.objects.get_or_create(
        key=key,
        defaults={
            "tenant_id": tenant,
            "kind": kind,
            "recipient": to,
            "language": language or translation.get_language() or settings.LANGUAGE_CODE,
            "subject": letter.subject[:200],
            "sealed": _seal(letter),
            "next_try_at": now,
        },
    )
    if is_new:
        enqueue_on_commit(DELIVER)
    return is_new


def deliver_mail() -> int:
    """Send what is due, each message in a transaction of its own; returns how many were sent."""
    sent = 0
    for _ in range(AT_ONCE_MAX):
        mail = _claim()
        if mail is None:
            return sent
        sent += _send(mail)
    return sent


def retry_mail(*, mail: int) -> bool:
    """Try a waiting message at once; False where it is not waiting."""
    with platform_scope("accounts.retry_mail"):
        rows = Mail.objects.filter(pk=mail, state=Mail.State.WAITING)
        found = rows.update(next_try_at=clock.utc_now())
        if found:
            enqueue_on_commit(DELIVER)
    return found == 1


def _claim() -> Mail | None:
    now = clock.utc_now()
    with platform_scope("accounts.deliver_mail"):
        due = Mail.objects.select_for_update(skip_locked=True)
        mail = due.filter(state=Mail.State.WAITING, next_try_at__lte=now).order_by("pk").first()
        if mail is not None:
            mail.tries += 1
            mail.next_try_at = now + CLAIM
            mail.save(update_fields=["tries", "next_try_at"])
    return mail


def _send(mail: Mail) -> bool:
    try:
        _message(mail).send()
    except (OSError, sealing.CannotOpen) as error:
        _note_failure(mail, error)
        return False
    with platform_scope("accounts.deliver_mail"):
        Mail.objects.filter(pk=mail.pk).update(
            state=Mail.State.SENT, sealed="", sent_at=clock.utc_now(), error=""
        )
    return True


def _note_failure(mail: Mail, error: Exception) -> None:
    is_over = mail.tries >= TRIES_MAX or isinstance(error, sealing.CannotOpen)
    pause = min(PAUSE_MAX, FIRST_PAUSE * 2 ** (mail.tries - 1))
    logger.warning("mail.failed", extra={"mail": mail.pk, "tries": mail.tries, "over": is_over})
    changes = {"error": f"{type(error).__name__}: {error}"[:300]}
    if is_over:
        changes |= {"state": Mail.State.FAILED, "sealed": ""}
    with platform_scope("accounts.deliver_mail"):
        Mail.objects.filter(pk=mail.pk).update(next_try_at=clock.utc_now() + pause, **changes)


def _message(mail: Mail) -> EmailMultiAlternatives:
    opened = sealing.unseal(mail.sealed, place=PLACE, master_keys=env().sealing_keys)
    letter = Letter(**json.loads(opened))
    host = settings.PUBLIC_BASE_URL.partition("://")[2].partition(":")[0]
    with translation.override(mail.language):
        context = {"letter": letter, "base_url": settings.PUBLIC_BASE_URL}
        message = EmailMultiAlternatives(
            subject=letter.subject,
            body=render_to_string("accounts/mail/letter.txt", context),
            to=[mail.recipient],
            # The same at each try, so that a server that took it twice can tell.
            headers={"Message-ID": f"<mail-{mail.pk}@{host}>", "Content-Language": mail.language},
        )
        message.attach_alternative(
            render_to_string("accounts/mail/letter.html", context), "text/html"
        )
    return message


def _seal(letter: Letter) -> str:
    text = json.dumps(asdict(letter))
    return sealing.seal(text, place=PLACE, master_keys=env().sealing_keys)


def _check_bounds(*, to: str, tenant: int | None) -> None:
    since = clock.utc_now() - DAY
    recent = Mail.objects.filter(created_at__gte=since)
    if recent.filter(recipient=to).count() >= ADDRESS_DAY_MAX:
        raise Conflict(f"An address gets at most {ADDRESS_DAY_MAX} messages a day.")
    if tenant is not None and recent.filter(tenant_id=tenant).count() >= TENANT_DAY_MAX:
        raise Conflict(f"An organization sends at most {TENANT_DAY_MAX} messages a day.")
