"""The address that a page's menu of languages sends its choice to."""

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.views.i18n import LANGUAGE_QUERY_PARAMETER, set_language

from accounts.models import User


def choose_language(request: HttpRequest) -> HttpResponseBase:
    """Show pages in a language from now on, and write to whoever is signed in in it, too."""
    answer = set_language(request)
    chosen = request.POST.get(LANGUAGE_QUERY_PARAMETER, "")
    if request.user.is_authenticated and chosen in dict(settings.LANGUAGES):
        User.objects.filter(pk=request.user.pk).exclude(language=chosen).update(language=chosen)
    return answer
