"""Parts of pages that refresh themselves: their module asks with a header, and is told to stop."""

from django.http import HttpRequest, HttpResponse

HEADER = "x-poll"


def is_polled(request: HttpRequest) -> bool:
    """Whether a page's module asks for the part that it refreshes, and not for the page."""
    return HEADER in request.headers


def stop_polling(response: HttpResponse) -> None:
    """Say that there is nothing more to wait for."""
    response[HEADER] = "stop"
