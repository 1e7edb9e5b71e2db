"""Mounts the control plane's APIs and pages."""

from django.urls import URLPattern, URLResolver, include, path
from drf_spectacular.views import SpectacularAPIView

from turnpike.web import health
from turnpike.web.start import start

handler400 = "turnpike.web.errors.bad_request"
handler404 = "turnpike.web.errors.not_found"
handler500 = "turnpike.web.errors.server_error"

urlpatterns: list[URLPattern | URLResolver] = [
    path("", start, name="start"),
    path("livez", health.livez, name="livez"),
    path("readyz", health.readyz, name="readyz"),
    path(
        "api/schema",
        SpectacularAPIView.as_view(authentication_classes=[], permission_classes=[]),
        name="schema",
    ),
    path("", include("accounts.urls")),
    path("", include("billing.urls")),
]
