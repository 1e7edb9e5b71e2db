"""System health: servers, gateways, the flow of usage and the books, each with what can be done."""

from typing import Any

import redis
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from accounts.console.operators import OperatorPage
from accounts.services.audit import record_audit
from billing.services import publication, upkeep
from turnpike.kernel import clock
from turnpike.kernel.errors import InvalidInput, Unavailable
from turnpike.web.operators.health_checks import (
    DANGER,
    WARN,
    gateways_or_none,
    look_at_books,
    look_at_flow,
    look_at_servers,
)

PUBLISH, SWEEP = "publish", "sweep"


class HealthPage(OperatorPage):
    """How the platform stands now."""

    def get(self, _request: HttpRequest) -> HttpResponse:
        """Every check, what is wrong first."""
        now = clock.utc_now()
        gateways = gateways_or_none(at=now)
        parts = [
            (_("Flow"), look_at_flow(at=now, gateways=gateways or [])),
            (_("Books"), look_at_books(at=now)),
            (_("Servers"), look_at_servers(at=now)),
        ]
        tones = [check.tone for _title, checks in parts for check in checks]
        context: dict[str, Any] = {
            "parts": parts,
            "wrong": tones.count(DANGER),
            "odd": tones.count(WARN),
            "gateways": gateways or [],
            "at": now,
        }
        return self.page("operator/health.html", context)

    def post(self, request: HttpRequest) -> HttpResponse:
        """Repair what a button stands beside; both may run at any time."""
        action = request.POST.get("action", "")
        try:
            done = self._act(action)
        except redis.RedisError as error:
            raise Unavailable("Redis is away.") from error
        record_audit(actor=self.caller, tenant=None, action=f"health.{action}", target="platform")
        return self.done(done)

    def _act(self, action: str) -> str:
        if action == PUBLISH:
            found = publication.publish_everything()
            return _("Everything was published.") if found else _("Somebody is publishing already.")
        if action == SWEEP:
            swept = upkeep.sweep_unposted()
            return _("%(count)s requests were repaired.") % {
                "count": swept.published + swept.appended
            }
        raise InvalidInput("There is no such action.")
