"""Mail: what was sent, waits or was given up; and the messages that lie in the folder."""

from pathlib import Path

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.console.operators import OperatorPage
from accounts.models import Mail
from accounts.services.audit import record_audit
from accounts.services.mail import retry_mail
from turnpike.control.mail_backend import FOLDER_BACKEND, find_message, list_messages
from turnpike.kernel.errors import Conflict, NotFound

SHOWN = 50
STATES = {
    Mail.State.WAITING: (gettext_lazy("Waiting"), "warn"),
    Mail.State.SENT: (gettext_lazy("Sent"), "ok"),
    Mail.State.FAILED: (gettext_lazy("Given up"), "danger"),
}
KINDS = {
    "invitation": gettext_lazy("Invitation"),
    "closing": gettext_lazy("Organization closed"),
    "export": gettext_lazy("Data export"),
    "notice.budgets": gettext_lazy("Budget reached a threshold"),
    "notice.balance": gettext_lazy("Credit runs low"),
    "notice.webhooks": gettext_lazy("Webhook endpoint switched off"),
    "low_balance": gettext_lazy("Credit runs low"),
    "invoice": gettext_lazy("Invoice or reminder"),
    "invoice_declined": gettext_lazy("Card declined for an invoice"),
    "auto_reload_cap": gettext_lazy("Auto-reload reached its cap"),
    "auto_reload_off": gettext_lazy("Auto-reload switched off"),
}


class MailPage(OperatorPage):
    """The newest messages."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Envelopes; what they said is not kept once it was sent."""
        rows = Mail.objects.select_related("tenant").order_by("-pk")
        state = request.GET.get("state", "")
        if state in Mail.State.values:
            rows = rows.filter(state=state)
        has_folder = settings.EMAIL_BACKEND == FOLDER_BACKEND
        folder = Path(settings.EMAIL_FILE_PATH)
        return self.page(
            "operator/mail.html",
            {
                "mails": [
                    {
                        "row": row,
                        "kind": KINDS.get(row.kind, row.kind),
                        "state": STATES[Mail.State(row.state)],
                    }
                    for row in rows[:SHOWN]
                ],
                "states": [(name, title) for name, (title, _tone) in STATES.items()],
                "chosen": state,
                "has_folder": has_folder,
                "messages_kept": list_messages(folder, limit=SHOWN) if has_folder else [],
                "server": settings.EMAIL_HOST,
                "sender": settings.DEFAULT_FROM_EMAIL,
            },
        )

    def post(self, request: HttpRequest) -> HttpResponse:
        """Try a waiting message at once."""
        number = request.POST.get("mail", "")
        if not number.isdecimal() or not retry_mail(mail=int(number[:18])):
            raise Conflict("It does not wait any more.")
        record_audit(actor=self.caller, tenant=None, action="mail.retried", target=number)
        return self.done(_("It will be tried at once."))


class MessagePage(OperatorPage):
    """One message in the folder. It may hold a link that opens something: a proof is asked for."""

    proved = frozenset({"GET", "POST"})

    def back(self) -> str:
        """The list."""
        return reverse("operator-mail")

    def get(self, _request: HttpRequest, name: str) -> HttpResponse:
        """Read it."""
        is_kept = settings.EMAIL_BACKEND == FOLDER_BACKEND
        message = find_message(Path(settings.EMAIL_FILE_PATH), name) if is_kept else None
        if message is None:
            raise NotFound("There is no such message.")
        context = {"mail": message, "section": "operator-mail"}
        return self.page("operator/message.html", context)
