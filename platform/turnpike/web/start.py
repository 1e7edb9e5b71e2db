"""The page at `/`: what this is, what answers, and where to go on."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from turnpike.web import upstreams


@require_safe
def start(request: HttpRequest) -> HttpResponse:
    """Say what this is to whoever opens the address in a browser."""
    context = {
        "base_url": settings.PUBLIC_BASE_URL,
        "is_simulated": upstreams.is_simulated(),
    }
    return render(request, "turnpike/start.html", context)
