"""mail_invite: an invitation's link goes to the address that was invited."""

from urllib.parse import urlencode

from django.conf import settings
from django.utils.translation import gettext as _

from accounts.models import Invite
from accounts.services.mail import Letter, post_mail

INVITATION_PATH = "/accounts/invite"


def invitation_address(token: str) -> str:
    """Where an invitation is accepted."""
    return f"{settings.PUBLIC_BASE_URL}{INVITATION_PATH}?{urlencode({'token': token})}"


def mail_invite(invite: Invite, *, token: str) -> None:
    """Send the link; a link of the same invitation that went out before works no more."""
    name = invite.tenant.name
    inviter = invite.invited_by
    letter = Letter(
        subject=_("Join %(name)s") % {"name": name},
        paragraphs=(
            _("%(person)s invites you to %(name)s, where programs call language models.")
            % {"person": inviter.email if inviter else name, "name": name},
            _("The link works once, for seven days, and for this address alone."),
        ),
        action=_("Accept the invitation"),
        address=invitation_address(token),
        note=_("If you do not know why you get this, nothing needs to be done."),
    )
    post_mail(
        key=f"invite:{invite.public_id}:{invite.token_hash[:16]}",
        kind="invitation",
        to=invite.email,
        letter=letter,
        tenant=invite.tenant_id,
    )
