"""What states and events are called in the operator console."""

from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext_lazy as _

from accounts.models import TenantStatus
from billing.models.catalog import CatalogModel
from billing.models.ledger import Wallet
from billing.queries import risks

STATES: Mapping[str, tuple[Any, str]] = {
    TenantStatus.ACTIVE: (_("Active"), "ok"),
    TenantStatus.SUSPENDED: (_("Suspended"), "danger"),
    TenantStatus.CLOSED: (_("Closed"), ""),
}
MODES: Mapping[str, Any] = {
    Wallet.Mode.PREPAID: _("Prepaid"),
    Wallet.Mode.POSTPAID: _("By invoice"),
}
LIFECYCLES: Mapping[str, tuple[Any, str]] = {
    CatalogModel.Lifecycle.ACTIVE: (_("Current"), "ok"),
    CatalogModel.Lifecycle.DEPRECATED: (_("Deprecated"), "warn"),
    CatalogModel.Lifecycle.RETIRED: (_("Retired"), ""),
}
BREAKERS: Mapping[str, tuple[Any, str]] = {
    "closed": (_("Healthy"), "ok"),
    "half_open": (_("Being tried again"), "warn"),
    "open": (_("Circuit open"), "danger"),
}
UPSTREAM_STATES: Mapping[str, tuple[Any, str]] = {
    "enabled": (_("In service"), "ok"),
    "draining": (_("Draining"), "warn"),
    "disabled": (_("Out of service"), ""),
}
# How the data plane counts what came of a tenant's requests at its door.
ADMISSIONS: Mapping[str, Any] = {
    "accepted": _("Accepted"),
    "rate_limited": _("Over a limit"),
    "no_credit": _("Without credit"),
    "overloaded": _("Overloaded"),
    "invalid": _("Invalid"),
    "unauthorized": _("With an unknown key"),
    "forbidden": _("Not permitted"),
    "not_found": _("Not found"),
    "failed": _("Failed"),
}
LIMITS: Mapping[str, Any] = {
    "requests_per_minute": _("Requests per minute"),
    "tokens_per_minute": _("Tokens per minute"),
    "input_tokens_per_minute": _("Input tokens per minute"),
    "output_tokens_per_minute": _("Output tokens per minute"),
    "concurrency": _("Requests at once"),
    "burst_seconds": _("Burst in seconds"),
}
RISKS: Mapping[str, tuple[Any, str]] = {
    risks.NO_CREDIT: (_("No credit left"), "danger"),
    risks.LOW_CREDIT: (_("Credit runs out"), "warn"),
    risks.BUDGET: (_("Near its budget"), "warn"),
    risks.LIMITS: (_("At its limits"), "info"),
    risks.SUSPENDED: (_("Suspended"), ""),
}
COMPONENTS: Mapping[str, Any] = {
    "input": _("Input"),
    "output": _("Output"),
    "cache_write_5m": _("Cache write, 5 min"),
    "cache_write_1h": _("Cache write, 1 h"),
    "cache_read": _("Cache read"),
    "web_search": _("Web search"),
}
