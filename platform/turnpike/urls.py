"""Mounts the control plane's APIs and pages."""

from django.urls import URLPattern, URLResolver, include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView

from turnpike.web import console_urls, health, operator_urls, raw, sign_in_urls
from turnpike.web.language import choose_language
from turnpike.web.metrics import metrics
from turnpike.web.start import start
from turnpike.web.status import status

handler400 = "turnpike.web.errors.bad_request"
handler404 = "turnpike.web.errors.not_found"
handler500 = "turnpike.web.errors.server_error"

urlpatterns: list[URLPattern | URLResolver] = [
    path("", start, name="start"),
    path("livez", health.livez, name="livez"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", metrics, name="metrics"),
    path(
        "api/schema",
        SpectacularAPIView.as_view(authentication_classes=[], permission_classes=[]),
        name="schema",
    ),
    path("status", status, name="status"),
    path("admin/", raw.site.urls),
    path("language", choose_language, name="set_language"),
    console_urls.invitation,
    *console_urls.public,
    path("accounts/", include(sign_in_urls)),
    path("console/", include(console_urls.console)),
    path("console", RedirectView.as_view(pattern_name="console")),
    path("operator/", include(operator_urls.operator)),
    path("operator", RedirectView.as_view(pattern_name="operator")),
    path("", include("accounts.urls")),
    path("", include("billing.urls")),
]
