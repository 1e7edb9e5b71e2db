"""What the command palette finds beyond the pages: keys, one request by its id, docs."""

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from accounts.access import access_keys
from accounts.console.pages import TenantPage
from accounts.models import ApiKey
from turnpike.control.caller import Power
from turnpike.kernel import ids
from turnpike.web.docs_pages import language, own_filling
from turnpike.web.handbook import list_pages, search

WORDS_LENGTH_MAX = 100
KEYS_MAX, DOCS_MAX = 6, 4


class FindPage(TenantPage):
    """Answers as JSON what was typed into the palette."""

    powers = {"GET": Power.TENANT_READ}

    def get(self, request: HttpRequest) -> HttpResponse:
        """At most a dozen places, each with its address."""
        words = request.GET.get("q", "").strip()[:WORDS_LENGTH_MAX]
        found = [*self._request(words), *self._keys(words), *self._docs(words)] if words else []
        answer = JsonResponse({"items": found})
        answer["cache-control"] = "no-store"
        return answer

    def _request(self, words: str) -> list[dict[str, str]]:
        if not self.caller.has_power(Power.REQUESTS_READ):
            return []
        try:
            ids.parse_public_id(ids.REQUEST, words)
        except ValueError:
            return []
        return [_item(words, _("Request"), "scroll-text", reverse("console-log", args=[words]))]

    def _keys(self, words: str) -> list[dict[str, str]]:
        if not self.caller.has_power(Power.KEYS_READ):
            return []
        rows = access_keys(self.caller, power=Power.KEYS_READ)
        try:
            rows = rows.filter(uuid=ApiKey.parse_public_id(words))
        except ValueError:
            rows = rows.filter(name__icontains=words, revoked_at=None)
        return [
            _item(key.name, key.hint, "key-round", reverse("console-key", args=[key.public_id]))
            for key in rows.order_by("name", "pk")[:KEYS_MAX]
        ]

    def _docs(self, words: str) -> list[dict[str, str]]:
        pages = list_pages(language=language(), filling=own_filling(self.tenant))
        return [
            _item(item.page.title, _("Docs"), "book-open", _doc(item.page.slug))
            for item in search(pages, words)[:DOCS_MAX]
        ]


def _doc(slug: str) -> str:
    return reverse("console-doc", args=[slug])


def _item(title: str, note: str, icon: str, address: str) -> dict[str, str]:
    return {"title": title, "note": note, "icon": icon, "href": address}
