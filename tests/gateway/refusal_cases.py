"""What it takes to be refused, for every sentence with which the data plane refuses."""

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

from tests.gateway.conftest import HELLO, SONNET, TENANT, prices_of
from turnpike.contracts.snapshots import (
    Budget,
    Candidate,
    Limits,
    ModelSnapshot,
    Switches,
)
from turnpike.kernel import clock, keyspace

MESSAGES, CHAT, COUNT = "/v1/messages", "/v1/chat/completions", "/v1/messages/count_tokens"
STREAM = {**HELLO, "stream": True}
# Nobody can ask for these here: what we got wrong, what no client is left to hear, what takes half
# a minute, what needs two changes within a millisecond, what our own server refuses before us.
NOT_ASKED_FOR = {
    "content-length and transfer-encoding exclude each other",
    "Something went wrong on our side.",
    "The request was given up.",
    "The request body did not arrive in time. Nothing was charged.",
    "Your account is being changed. Try again shortly.",
}
Set = Callable[[Any, Any], object]
Case = tuple[str, dict[str, Any]]


def case(sentence: str, **asked: Any) -> Case:
    """A sentence and what it takes: body, path, headers, and what is set up before."""
    return sentence, asked


def hello(**fields: Any) -> dict[str, Any]:
    return {**HELLO, **fields}


def said(content: Any, role: str = "user") -> dict[str, Any]:
    return hello(messages=[{"role": role, "content": content}])


def publish(**changes: Any) -> Set:
    return lambda _, world: world.publish(**changes)


def tier(**changes: Any) -> Set:
    def change(_: Any, world: Any) -> None:
        changed = dataclasses.replace(world.plane.tiers["pro"], **changes)
        world.publish_plane(tiers={"pro": changed})

    return change


def upstream(**changes: Any) -> Set:
    def change(_: Any, world: Any) -> None:
        changed = dataclasses.replace(world.plane.upstreams["9"], **changes)
        world.publish_plane(upstreams={"9": changed})

    return change


openai = upstream(kind="openai")


def workspace_archived(_: Any, world: Any) -> None:
    spaces = {
        name: dataclasses.replace(space, is_active=False)
        for name, space in world.who.workspaces.items()
    }
    world.publish(workspaces=spaces)


def slot_taken(_: Any, world: Any) -> None:
    world.set_tier_limits(concurrency=1)
    world.redis.zadd(keyspace.slots(TENANT, "t"), {"other": clock.now_ms() + 20_000})


def budget_spent(_: Any, world: Any) -> None:
    world.publish(budgets=(Budget(period="month", limit_micro=1),))
    world.redis.hset(keyspace.budgets(TENANT), mapping={"ver": 1})


def unpriced_searches(_: Any, world: Any) -> None:
    (prices,) = world.plane.prices
    rows = {name: row for name, row in prices.prices.items() if name != "*"}
    world.publish_plane(prices=(dataclasses.replace(prices, prices=rows),))


def claude_only(_: Any, world: Any) -> None:
    (prices,) = world.plane.prices
    world.publish_plane(
        models={**world.plane.models, "gpt-oss": ModelSnapshot(model="gpt-oss", display_name="O")},
        prices=(
            dataclasses.replace(
                prices, prices={**prices.prices, "gpt-oss": prices_of({"input": 1, "output": 1})}
            ),
        ),
        routes={**world.plane.routes, "gpt-oss": (Candidate(upstream=9, upstream_model="x"),)},
        switches=Switches(is_claude_only=True),
    )


async def asked_before(gateway: Any, _: Any) -> None:
    await gateway.post(hello(max_tokens=9), idempotency_key="k")


async def one_before(gateway: Any, world: Any) -> None:
    world.set_tier_limits(requests_per_minute=1)
    await gateway.post()


async def streamed_before(gateway: Any, _: Any) -> None:
    await gateway.post(STREAM, idempotency_key="k")


async def key_in_use(gateway: Any, world: Any) -> None:
    await streamed_before(gateway, world)
    (name,) = world.redis.scan_iter(match="*:once:*")
    until = clock.now_ms() + 20_000
    world.redis.hset(name, mapping={"st": "running", "until": until})


async def redis_away(gateway: Any, _: Any) -> None:
    await gateway.app._gateway._pipe.stop()


async def redis_lost(gateway: Any, world: Any) -> None:
    await gateway.post()
    await redis_away(gateway, world)


def wallet_lost(_: Any, world: Any) -> None:
    world.redis.delete(keyspace.wallet(TENANT))


def journal_lost(gateway: Any, _: Any) -> None:
    gateway.app._gateway._journal.is_writable = False


def drained_at_once(gateway: Any, _: Any) -> None:
    keeper = gateway.app._gateway.keeper
    keeper._drain_seconds = 0.3
    keeper.begin_drain()


def revoked_meanwhile(gateway: Any, world: Any) -> None:
    gateway.app._gateway.keeper._beat_seconds = 0.1
    asyncio.get_running_loop().call_later(0.3, world.revoke_key)


def named_files(count: int) -> dict[str, Any]:
    return said([{"type": "container_upload", "file_id": f"file_{n}"} for n in range(count)])


SEARCH = {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}
FEW = b'{"model":"claude-sonnet-4-6","max_tokens":5,"messages":[{"role":"user","content":"x"}]'

ASKED: list[Case] = [
    case("x-api-key header is required", x_api_key=""),
    case("invalid x-api-key", x_api_key="nobody's"),
    case("x-api-key and Authorization carry different keys", authorization="Bearer other"),
    case("anthropic-version: header is required", anthropic_version=""),
    case(
        "Compressed request bodies are not accepted. Send the body as it is.",
        content_encoding="gzip",
    ),
    case("Method … is not allowed here; use ….", method="GET"),
    case("There is nothing at ….", path="/v1/nothing"),
    case("The request body is not valid JSON: …", body=b"{"),
    case("Request body: Input should be an object", body=b"[]"),
    case("The request body is nested too deeply", body=b'{"a":' + b"[" * 200_000),
    case(
        "Request body: at most … fields are accepted",
        body=FEW + b"".join(b',"f%d":1' % n for n in range(200)) + b"}",
    ),
    case("The request body exceeds … MiB. Nothing was charged.", body=b" " * (32 * 2**20 + 1)),
    case("…: Duplicate key", body=FEW + b',"model":"x"}'),
    case("…: Field required", body=b'{"max_tokens":5}'),
    case("…: Input should be a valid …", body=hello(max_tokens="5")),
    case("messages: Field required", body={"model": SONNET, "max_tokens": 5}),
    case("messages: Input should be a valid list", body=hello(messages="x")),
    case("messages: at least one message is required", body=hello(messages=[])),
    case("max_tokens: Input should be greater than or equal to 0", body=hello(max_tokens=-1)),
    case("max_tokens: Input should be less than or equal to …", body=hello(max_tokens=10**9)),
    case("model: String should have 1 to … characters", body=hello(model="")),
    case("model: …", body=hello(model="claude-nobody")),
    case("model: … has no price for this request", body=hello(**SEARCH), before=unpriced_searches),
    case("This API key may not use the model ….", before=publish(models=("other",))),
    case("This API key does not have the scope `…`.", before=publish(scopes=())),
    case("This API key has expired.", before=publish(expires_at_us=1)),
    case("This API key may not be used from your address.", before=publish(ip_ranges=("9.9.9.9",))),
    case("A management key cannot call models. Use an API key.", before=publish(kind="management")),
    case("This account is suspended. Contact your provider.", before=publish(status="suspended")),
    case("The workspace of this API key is archived.", before=workspace_archived),
    case(
        "Unexpected value(s) … for the `anthropic-beta` header",
        before=tier(denied_betas=("fast",)),
        anthropic_beta="fast",
    ),
    case(
        "This request would exceed the limit of … … per minute of …. Try again in … s.",
        before=one_before,
    ),
    case(
        "This request alone exceeds the limit of … … per minute of ….… Waiting does not help;"
        " send less.",
        before=tier(limits=Limits(tokens_per_minute=1)),
    ),
    case("The limit of … concurrent requests of … is reached.", before=slot_taken),
    case(
        "Your credit balance is too low: this request may cost up to …, and … is available. Add"
        " credit, or ask for fewer output tokens.",
        before=lambda _, world: world.set_wallet(posted_micro=0),
    ),
    case(
        "The budget of … of … for the … … does not cover this request: it may cost up to …, and"
        " … is left.",
        before=budget_spent,
    ),
    case("The service is overloaded or starting. Try again in a moment.", before=redis_lost),
    case("The service is starting. Try again shortly.", before=wallet_lost),
    case("The service is recovering. Nothing was charged; try again shortly.", before=redis_away),
    case("The service cannot record usage at the moment.", before=journal_lost),
    case("No upstream serves this model at the moment.", before=upstream(is_enabled=False)),
    case(
        "No upstream can serve this model at the moment. Nothing was charged; try again shortly.",
        before=upstream(is_draining=True),
    ),
    case(
        "The model cannot be reached at the moment. Nothing was charged; try again shortly.",
        before=upstream(base_url="http://127.0.0.1:1"),
    ),
    case(
        "The model is overloaded at the moment. Nothing was charged; try again shortly.",
        x_simulator="status=529",
    ),
    case(
        "The model is overloaded at the moment. Nothing was charged.",
        body=STREAM,
        x_simulator="error_after_events=0",
    ),
    case(
        "The model took too long to answer. Nothing was charged.",
        before=upstream(answer_timeout_seconds=0.2),
        x_simulator="hang",
    ),
    case("The model's answer could not be read. Nothing was charged.", x_simulator="bad_json"),
    case(
        "The model fell silent. What it wrote is charged.",
        body=STREAM,
        before=upstream(silence_timeout_seconds=0.2),
        x_simulator="hang_after_events=5",
    ),
    case(
        "The model's answer broke off. What it wrote is charged.",
        body=STREAM,
        x_simulator="cut_after_events=5",
    ),
    case(
        "The model took too long. What it wrote is charged.",
        body={**STREAM, "max_tokens": 1},
        before=upstream(answer_timeout_seconds=0.4),
        x_simulator="hang_after_events=2",
    ),
    case(
        "The server restarts. Try again shortly.",
        body=STREAM,
        before=drained_at_once,
        x_simulator="hang_after_events=5",
    ),
    case(
        "This API key may not be used any more. The answer ends here.",
        body=STREAM,
        before=revoked_meanwhile,
        x_simulator="hang_after_events=5",
    ),
    case("limit: Input should be between 1 and …", path="/v1/models?limit=0", method="GET"),
    case(
        "lifecycle: Input should be 'active', 'deprecated' or 'retired'",
        path="/v1/models?lifecycle[]=new",
        method="GET",
    ),
    case("…: no such model in this list", path="/v1/models?after_id=x", method="GET"),
    case("The query is too long", path="/v1/models?after_id=" + "x" * 20_000, method="GET"),
    # Features, objects, repeated requests.
    case("`…` is not enabled for this account: ….", body=hello(fallbacks="default")),
    case(
        "billing_policy: who pays is decided by this platform, not by a request",
        body=hello(billing_policy={"type": "x"}),
    ),
    case("fallbacks.….model: Field required", body=hello(fallbacks=[5])),
    case("fallbacks: at most … models may be named", body=hello(fallbacks=[SONNET] * 11)),
    case("inference_geo: Input should be 'global' or 'us'", body=hello(inference_geo="eu")),
    case("speed: Input should be 'standard' or 'fast'", body=hello(speed="warp")),
    case(
        "tools.advisor.model: Field required",
        body=hello(tools=[{"type": "advisor_20260301", "name": "advisor"}]),
    ),
    case("messages: at most … files may be named", body=named_files(1_001)),
    case("…: Input should be valid JSON", body=FEW + b',"container":' + b"1" * 5_000 + b"}"),
    case("…: … was not found", body=named_files(1)),
    case(
        "model: … is served on /v1/chat/completions; /v1/messages serves Claude models alone",
        body=hello(model="gpt-oss"),
        before=claude_only,
    ),
    case("Idempotency-Key: 1 to … printable characters", idempotency_key="x" * 256),
    case(
        "Idempotency-Key: this key came before with another request",
        before=asked_before,
        idempotency_key="k",
    ),
    case(
        "A request with this Idempotency-Key is being served. Try again shortly.",
        body=STREAM,
        before=key_in_use,
        idempotency_key="k",
    ),
    case(
        "This Idempotency-Key is spent: … was charged, and …. Use another key.",
        body=STREAM,
        before=streamed_before,
        idempotency_key="k",
    ),
    case(
        "A request with an Idempotency-Key cannot be served at the moment. Nothing was charged;"
        " try again shortly.",
        before=redis_lost,
        idempotency_key="k",
    ),
]


def image(url: str) -> list[Any]:
    return [{"type": "image_url", "image_url": {"url": url}}]


def call(**changes: Any) -> dict[str, Any]:
    made = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turns = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "tool_calls": [made | changes]},
    ]
    return hello(messages=turns)


def document(**fields: Any) -> list[Any]:
    source = {"type": "base64", "media_type": "application/pdf", "data": "QQ=="}
    return [{"type": "document", "source": source, **fields}]


PDF = {"type": "file", "file": {"file_data": "data:application/pdf;base64,QQ=="}}
RESULT = {"role": "tool", "tool_call_id": "c", "content": [PDF]}

CONVERTED: list[Case] = [
    case("…The request body is not valid JSON.", path=CHAT, body=b"{"),
    case("…: Input should be an object", path=CHAT, body=b"[]"),
    case("The request body is not valid JSON: …", path=CHAT, body=b'{"model":"\xff"}'),
    case("model: Input should be a valid string", path=CHAT, body=hello(model=5)),
    case("Field required", path=CHAT, body=b"{}"),
    case("Input should be a valid …", path=CHAT, body=hello(max_tokens="x")),
    case("Input should be a valid number", path=CHAT, body=hello(temperature="x")),
    case("Input should be a valid list", path=CHAT, body=hello(messages=5)),
    case("'…' is not supported", path=CHAT, body=hello(response_format={"type": "xml"})),
    case("Input should be one of …", path=CHAT, body=hello(reasoning_effort="wild")),
    case(
        "'…' tools are not supported; use functions",
        path=CHAT,
        body=hello(tools=[{"type": "custom", "custom": {"name": "x"}}]),
    ),
    case("Input should be one of …, or an object", path=CHAT, body=hello(tool_choice="maybe")),
    case(
        "Input should be one of 'auto', 'required'",
        path=CHAT,
        body=hello(tool_choice={"type": "allowed_tools", "allowed_tools": {"mode": "no"}}),
    ),
    case(
        "messages: at least one message of a user is required",
        path=CHAT,
        body=said("x", "system"),
    ),
    case("only text is possible here", path=CHAT, body=said(image("https://a.b/c"), "system")),
    case("must not be empty", path=CHAT, body=said("")),
    case(
        "'…' calls are not supported; use functions",
        path=CHAT,
        body=call(type="custom"),
    ),
    case(
        "Input should be a JSON object as a string",
        path=CHAT,
        body=call(function={"name": "f", "arguments": "[]"}),
    ),
    case(
        "only text and images are possible here",
        path=CHAT,
        body=hello(messages=[*call()["messages"], RESULT]),
    ),
    case(
        "'…' parts are not supported; use text, image_url or file",
        path=CHAT,
        body=said([{"type": "input_audio", "input_audio": {}}]),
    ),
    case(
        "Input should be an http(s) URL or a base64 data URL",
        path=CHAT,
        body=said(image("ftp://a")),
    ),
    case(
        "uploaded files are not supported; send file_data",
        path=CHAT,
        body=said([{"type": "file", "file": {"file_id": "file-1"}}]),
    ),
    case(
        "Input should be a PDF as a base64 data URL",
        path=CHAT,
        body=said([{"type": "file", "file": {"file_data": "data:text/plain;base64,QQ=="}}]),
    ),
    # Messages to an OpenAI-compatible upstream.
    case(
        "the upstream of this model cannot do this",
        body=hello(mcp_servers=[{"type": "url", "url": "https://a.b", "name": "n"}]),
        before=openai,
    ),
    case(
        "the upstream of this model cannot promise this",
        body=hello(inference_geo="us"),
        before=openai,
    ),
    case(
        "Input should be 'auto', 'any', 'tool' or 'none'",
        body=hello(tool_choice={"type": "maybe"}),
        before=openai,
    ),
    case("the upstream of this model has no tool `…`", body=hello(**SEARCH), before=openai),
    case(
        "Input should be 'json_schema'",
        body=hello(output_config={"format": {"type": "xml"}}),
        before=openai,
    ),
    case("Input should be 'user', 'assistant' or 'system'", body=said("x", "robot"), before=openai),
    case(
        "the upstream of this model cannot cite documents",
        body=said(document(citations={"enabled": True})),
        before=openai,
    ),
    case(
        "the upstream of this model cannot take `…`; no other one serves it",
        body=said([{"type": "search_result", "source": "s", "title": "t", "content": []}]),
        before=openai,
    ),
    case(
        "Input should be '…'",
        body=said(document(source={"type": "base64", "media_type": "image/png", "data": "QQ=="})),
        before=openai,
    ),
]
