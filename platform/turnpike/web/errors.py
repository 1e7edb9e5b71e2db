"""Answers where no view of an app is reached: in the shape of the API that the path belongs to."""

from django.http import HttpRequest, HttpResponse, JsonResponse

from turnpike.kernel import ids

PROBLEM = "application/problem+json"


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """404: no such path."""
    return _answer(request, status=404, kind="not_found_error", title="There is nothing here.")


def server_error(request: HttpRequest) -> HttpResponse:
    """500: our fault."""
    return _answer(request, status=500, kind="api_error", title="Something went wrong on our side.")


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """400: the request is malformed, or its host is not one of ours."""
    return _answer(
        request, status=400, kind="invalid_request_error", title="The request is malformed."
    )


def csrf_refused(request: HttpRequest, reason: str = "") -> HttpResponse:
    """403: a form without the token of its session, or from another site."""
    return _answer(
        request,
        status=403,
        kind="permission_error",
        title="This form is out of date. Load the page again and send it once more.",
    )


def _answer(request: HttpRequest, *, status: int, kind: str, title: str) -> HttpResponse:
    if request.path.startswith("/v1/"):
        request_id = ids.public_id(ids.REQUEST, ids.uuid7())
        error = {"type": "error", "error": {"type": kind, "message": title}}
        return JsonResponse(
            {**error, "request_id": request_id}, status=status, headers={"request-id": request_id}
        )
    if request.path.startswith("/api/"):
        code = kind.removesuffix("_error")
        problem = {"type": "about:blank", "title": title, "status": status, "code": code}
        return JsonResponse(problem, status=status, content_type=PROBLEM)
    return HttpResponse(f"{title}\n", status=status, content_type="text/plain; charset=utf-8")
