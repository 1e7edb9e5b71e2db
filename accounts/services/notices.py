"""notify_members: mail to the members whom something concerns and who did not opt out."""

import logging
from collections.abc import Callable, Sequence

from django.utils import translation
from django.utils.translation import gettext_lazy as _

from accounts.access import ROLE_POWERS
from accounts.models import Member, NoticePreference
from accounts.services.mail import Letter, post_mail
from turnpike.control.caller import Power
from turnpike.kernel.errors import Conflict, InvalidInput

logger = logging.getLogger(__name__)

BUDGETS = "budgets"
BALANCE = "balance"
WEBHOOKS = "webhooks"
# What each notice is called, and the power without which it concerns nobody.
NOTICES = {
    BUDGETS: (_("Budgets: 50, 80, 95 and 100 % are reached"), Power.BILLING_READ),
    BALANCE: (_("Credit runs low"), Power.BILLING_READ),
    WEBHOOKS: (_("A webhook endpoint was switched off"), Power.WEBHOOKS_WRITE),
}


def notify_members(
    *, tenant: int, notice: str, key: str, language: str, write: Callable[[], Letter]
) -> int:
    """Post a letter to each member whom a notice reaches; how many. Again: none.

    `write` is called in the language that the member chose, or else in `language`.
    """
    power, posted = NOTICES[notice][1], 0
    members = Member.objects.filter(tenant_id=tenant).select_related("user", "notices")
    for member in members.order_by("pk"):
        if power not in ROLE_POWERS[member.role] or notice in muted_of(member):
            continue
        chosen = member.user.language or language
        try:
            with translation.override(chosen):
                posted += post_mail(
                    key=f"{key}:{member.pk}",
                    kind=f"notice.{notice}",
                    to=member.user.email,
                    letter=write(),
                    tenant=tenant,
                    language=chosen,
                )
        except Conflict:
            # The day's mail is used up; the page and the webhook tell of it all the same.
            logger.warning("notices.not_mailed", extra={"tenant": tenant, "notice": notice})
    return posted


def muted_of(member: Member) -> Sequence[str]:
    """The notices that a member does not want."""
    found = getattr(member, "notices", None)
    return found.muted if found else ()


def notices_for(role: str) -> tuple[str, ...]:
    """The notices that concern a role."""
    return tuple(name for name, (_title, power) in NOTICES.items() if power in ROLE_POWERS[role])


def choose_notices(*, member: Member, wanted: Sequence[str]) -> None:
    """Keep which notices of their role a member wants by mail; others stay as they are."""
    offered = notices_for(member.role)
    unknown = sorted(set(wanted) - set(offered))
    if unknown:
        raise InvalidInput(f"wanted must be some of: {', '.join(offered)}.", field="wanted")
    kept = [name for name in muted_of(member) if name not in offered]
    muted = sorted({*kept, *(name for name in offered if name not in wanted)})
    NoticePreference.objects.update_or_create(
        member=member, defaults={"tenant_id": member.tenant_id, "muted": muted}
    )
