"""Dashboard: money, traffic and health of the platform at a glance."""

from django.http import HttpRequest, HttpResponse

from accounts.console.operators import OperatorPage
from accounts.models import Tenant, TenantStatus


class DashboardPage(OperatorPage):
    """What an operator sees first."""

    def get(self, _request: HttpRequest) -> HttpResponse:
        """The figures of the platform."""
        rows = Tenant.objects.exclude(status=TenantStatus.CLOSED)
        return self.page("operator/dashboard.html", {"tenants_count": rows.count()})
