"""mail_about_money, notify_about_money: tell the people who look after a tenant's money."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from django.conf import settings
from django.utils import translation
from django.utils.translation import gettext as _

from accounts.models import Member, Role, Tenant
from accounts.services.mail import Letter, post_mail
from accounts.services.notices import notify_members
from billing.models.invoices import BillingDetails
from turnpike.kernel.errors import Conflict

logger = logging.getLogger(__name__)

BILLING_PATH = "/console/billing"
RECIPIENTS_MAX = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What a message says."""

    subject: str
    paragraphs: tuple[str, ...]


def mail_about_money(*, tenant: Tenant, key: str, kind: str, words: Callable[[], Words]) -> None:
    """Write to the address for invoices, else to the owners, once for the key, after the commit."""
    details = BillingDetails.objects.filter(tenant_id=tenant.pk).first()
    language = details.language if details is not None else settings.LANGUAGE_CODE
    for number, (address, chosen) in enumerate(_recipients(tenant, details)):
        with translation.override(chosen or language):
            letter = _letter(words())
        try:
            post_mail(
                key=f"{key}:{number}",
                kind=kind,
                to=address,
                letter=letter,
                tenant=tenant.pk,
                language=chosen or language,
            )
        except Conflict:
            # Whoever got so many messages today does not lack this one; the money moves anyway.
            logger.warning("mail.too_many", extra={"kind": kind, "tenant": tenant.pk})


def notify_about_money(
    *, tenant: Tenant, notice: str, key: str, kind: str, words: Callable[[], Words]
) -> None:
    """Write to the address for invoices, which always hears, and to the members who want to."""
    details = BillingDetails.objects.filter(tenant_id=tenant.pk).first()
    language = details.language if details is not None else settings.LANGUAGE_CODE
    address = details.email if details is not None else ""
    notify_members(
        tenant=tenant.pk,
        notice=notice,
        key=key,
        language=language,
        write=lambda: _letter(words()),
    )
    members = Member.objects.filter(tenant=tenant, user__email=address.lower())
    if not address or members.exists():
        return
    try:
        with translation.override(language):
            post_mail(
                key=f"{key}:contact",
                kind=kind,
                to=address,
                letter=_letter(words()),
                tenant=tenant.pk,
                language=language,
            )
    except Conflict:
        logger.warning("mail.too_many", extra={"kind": kind, "tenant": tenant.pk})


def _letter(said: Words) -> Letter:
    return Letter(
        subject=said.subject,
        paragraphs=said.paragraphs,
        action=_("Open billing"),
        address=f"{settings.PUBLIC_BASE_URL}{BILLING_PATH}",
    )


def _recipients(tenant: Tenant, details: BillingDetails | None) -> Iterator[tuple[str, str]]:
    """Addresses, each with the language that its person chose."""
    if details is not None and details.email:
        yield details.email, ""
        return
    owners = Member.objects.filter(tenant=tenant, role=Role.OWNER, user__is_active=True)
    yield from owners.order_by("pk").values_list("user__email", "user__language")[:RECIPIENTS_MAX]
