"""Get started: from a key to the first request, with this installation's own address and models."""

import json
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from accounts.access import access_keys
from accounts.console.pages import TenantPage
from accounts.models import ApiKey
from billing.console.logs import rows_of
from billing.queries.requests import RequestFilter, list_requests
from turnpike.control.caller import Power
from turnpike.control.polling import is_polled, stop_polling
from turnpike.web.keys import example_model

EXAMPLE = "Say hello in one sentence."


class StartPage(TenantPage):
    """Numbered steps, and a box that waits for the first request."""

    powers = {"GET": Power.KEYS_READ}

    def get(self, request: HttpRequest) -> HttpResponse:
        """The page; for its own refreshing, the waiting box alone."""
        rows = list_requests(tenant=self.tenant, chosen=RequestFilter(), after=None, limit=1)
        keys = {
            key.pk: key for key in ApiKey.objects.filter(pk__in=[r["api_key_id"] for r in rows])
        }
        context: dict[str, Any] = {"first": next(iter(rows_of(rows, keys)), None)}
        if is_polled(request):
            response = self.page("turnpike/get_started.html#first", context)
            if rows:
                stop_polling(response)
            return response
        own = access_keys(self.caller, power=Power.KEYS_READ)
        return self.page(
            "turnpike/get_started.html",
            {
                **context,
                "has_key": own.filter(kind=ApiKey.Kind.API, revoked_at=None).exists(),
                "tabs": examples(settings.PUBLIC_BASE_URL, example_model()),
                "model": example_model(),
            },
        )


def examples(base_url: str, model: str) -> list[dict[str, str]]:
    """The first request in four ways; the key is read from the environment."""
    messages = json.dumps([{"role": "user", "content": EXAMPLE}])
    python = f"""import anthropic

client = anthropic.Anthropic()  # reads ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY
message = client.messages.create(
    model="{model}",
    max_tokens=256,
    messages={messages},
)
print(message.content[0].text)"""
    typescript = f"""import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic();  // reads ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY
const message = await client.messages.create({{
  model: "{model}",
  max_tokens: 256,
  messages: {messages},
}});
console.log(message.content);"""
    curl = f"""curl {base_url}/v1/messages \\
  -H "x-api-key: $ANTHROPIC_API_KEY" \\
  -H "anthropic-version: 2023-06-01" \\
  -H "content-type: application/json" \\
  -d '{{"model": "{model}", "max_tokens": 256, "messages": {messages}}}'"""
    claude_code = f"""export ANTHROPIC_BASE_URL={base_url}
export ANTHROPIC_AUTH_TOKEN=$ANTHROPIC_API_KEY
claude --model {model}"""
    return [
        {"id": "python", "title": "Python", "code": python},
        {"id": "typescript", "title": "TypeScript", "code": typescript},
        {"id": "curl", "title": "curl", "code": curl},
        {"id": "claude-code", "title": "Claude Code", "code": claude_code},
    ]
