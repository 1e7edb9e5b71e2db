"""Routes of the operator console. A page that does not exist yet has none."""

from django.urls import URLPattern, path

from turnpike.web.operators import viewing
from turnpike.web.operators.dashboard import DashboardPage

# What is sold, to whom, and who answers.
selling: list[URLPattern] = [
    path("", DashboardPage.as_view(), name="operator"),
    path("viewing/end", viewing.EndViewingPage.as_view(), name="operator-viewing-end"),
]
# What keeps the platform running.
running: list[URLPattern] = []

operator = [*selling, *running]
