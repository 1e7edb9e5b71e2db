"""What hides usage is held and billed in full, or refused: nothing is free by accident."""

import dataclasses
import json
from typing import Any

import pytest

from proxy.metrics import METRICS
from tests.gateway.conftest import SONNET, SONNET_PRICES, billed, prices_of
from turnpike.contracts import rating
from turnpike.contracts.features import FEATURES
from turnpike.contracts.snapshots import Candidate, ModelSnapshot, Switches

DEAR = "claude-opus-5"
DEAR_PRICES = {name: 10 * value for name, value in SONNET_PRICES.items()}
BETAS = "server-side-fallback-2026-07-01,compact-2026-09-04,message-threads-2026-08-12"


@pytest.fixture(autouse=True)
def dear_model(world: Any) -> None:
    """A second model, ten times as dear, and prices of variants for both."""
    plane = world.plane
    (prices,) = plane.prices
    rows = {
        **prices.prices,
        DEAR: prices_of(DEAR_PRICES),
        SONNET: (
            *prices_of(SONNET_PRICES),
            *prices_of({name: 2 * value for name, value in SONNET_PRICES.items()}, "fast"),
            *prices_of({name: 1.1 * value for name, value in SONNET_PRICES.items()}, "us"),
        ),
    }
    world.publish_plane(
        prices=(dataclasses.replace(prices, prices=rows),),
        models={**plane.models, DEAR: ModelSnapshot(model=DEAR, display_name="Opus 5")},
        routes={**plane.routes, DEAR: (Candidate(upstream=9, upstream_model=DEAR),)},
    )


def ask(text: str, **fields: Any) -> dict[str, Any]:
    usual = {"model": SONNET, "max_tokens": 100, "messages": [{"role": "user", "content": text}]}
    return usual | fields


def amount_of(event: Any, world: Any) -> int:
    """What an event is charged, in nanos."""
    rated = rating.rate(event.usage, model=event.model, price_set=world.plane.prices[0])
    assert rated.is_complete
    return int(rated.nanos)


def allow(world: Any, *features: str) -> None:
    world.publish_plane(switches=Switches(allowed_features=features))


async def served(gateway: Any, body: dict[str, Any], **headers: str) -> tuple[Any, Any, Any]:
    """Send it; the answer, its event, and the upstream's own bill for it."""
    answer = await gateway.post(body, anthropic_beta=BETAS, **headers)
    assert answer.status_code == 200, answer.text
    await gateway.until(lambda: len(gateway.world.events()) == 1)
    (row,) = await billed(int(gateway.world.plane.upstreams["9"].base_url.rsplit(":", 1)[1]))
    return answer, gateway.world.events()[0], row


FALLBACK = {"fallbacks": [{"model": DEAR}]}
ADVISOR = {"tools": [{"type": "advisor_20260301", "name": "advisor", "model": DEAR, "max_uses": 1}]}
SEARCH = {"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 2}]}
FETCH = {"tools": [{"type": "web_fetch_20250910", "name": "web_fetch", "max_uses": 2}]}
EDITS = {"context_management": {"edits": [{"type": "compact_20260112"}]}}


@pytest.mark.parametrize("is_stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("[[decline]] Hello", FALLBACK),
        ("[[decline=40]] Hello", FALLBACK),
        ("[[advice]] Hello", ADVISOR),
        ("[[compact]] Hello", {"compaction": {"type": "summarize"}}),
        ("[[compact]] Hello", EDITS),
        ("Please search this", SEARCH),
        ("[[fetch]] Hello", FETCH),
        ("Hello", {"speed": "fast"}),
        ("Hello", {"inference_geo": "us"}),
    ],
    ids=[
        "declined",
        "declined-late",
        "advisor",
        "compaction",
        "compacting-edit",
        "web-search",
        "web-fetch",
        "fast",
        "us",
    ],
)
async def test_feature_is_held_and_billed_in_full(
    gateway: Any, world: Any, text: str, fields: dict[str, Any], is_stream: bool
) -> None:
    plain = 1_000 * amount_floor(world)
    _, event, row = await served(gateway, ask(text, stream=is_stream, **fields))

    expected = rating.rate(row["usage"], model=event.model, price_set=world.plane.prices[0])
    assert expected.is_complete
    assert amount_of(event, world) == expected.nanos > 0
    assert event.hold_micro * 1_000 >= expected.nanos
    assert event.hold_micro * 1_000 > plain
    assert event.status == "reported"
    has_calls = any(name in text for name in ("decline", "advice", "compact"))
    assert ("iterations" in event.usage) is has_calls


def amount_floor(world: Any) -> int:
    """What a hundred tokens of output cost at least, in micros."""
    (prices,) = world.plane.prices
    row = next(row for row in prices.prices[SONNET] if row.component == "output")
    rate: int = row.nano_per_mtok
    return 100 * rate // 1_000_000_000


async def test_a_model_that_is_called_beside_is_billed_at_its_own_price(
    gateway: Any, world: Any
) -> None:
    _, event, row = await served(gateway, ask("[[advice]] Hello", **ADVISOR))

    advice = next(call for call in row["usage"]["iterations"] if "advisor" in call["type"])
    alone = advice["input_tokens"] * 30_000 + advice["output_tokens"] * 150_000
    assert alone < amount_of(event, world) < alone * 1.5


async def test_the_upstreams_own_names_of_models_have_their_prices_too(
    gateway: Any, world: Any
) -> None:
    routes = {**world.plane.routes, SONNET: (Candidate(upstream=9, upstream_model="claude-inner"),)}
    world.publish_plane(routes=routes)

    _, event, row = await served(gateway, ask("[[compact]] Hello", compaction={"type": "x"}))

    assert [call.get("model") for call in row["usage"]["iterations"]] == [None, "claude-inner"]
    assert [call.get("model") for call in event.usage["iterations"]] == [None, SONNET]
    assert amount_of(event, world) > 0


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"fallbacks": [{"model": "claude-unpriced-1"}]}, 404, "model: claude-unpriced-1"),
        ({"fallbacks": [{"model": "claude-nobody"}]}, 404, "model: claude-nobody"),
        ({"fallbacks": [{}]}, 400, "fallbacks.0.model: Field required"),
        ({"fallbacks": [{"model": SONNET}] * 11}, 400, "at most 10"),
        ({"tools": [{"type": "advisor_20260301", "name": "a"}]}, 400, "model: Field required"),
        ({"inference_geo": "moon"}, 400, "inference_geo: "),
        ({"speed": "warp"}, 400, "speed: "),
        ({"billing_policy": {"type": "x"}}, 400, "billing_policy: "),
        ({"container": {"id": 5, "skills": [{"type": "custom"}]}}, 400, "custom_skills"),
    ],
)
async def test_what_cannot_be_priced_is_refused_before_it_costs(
    gateway: Any, world: Any, fields: dict[str, Any], status: int, words: str
) -> None:
    answer = await gateway.post(ask("Hello", **fields), anthropic_beta=BETAS)

    assert answer.status_code == status
    assert words in answer.json()["error"]["message"]
    assert world.held_micro() == 0
    assert world.events() == []


OFF: dict[str, dict[str, Any]] = {
    "code_execution": {"tools": [{"type": "code_execution_20250825", "name": "code_execution"}]},
    "custom_skills": {"container": {"skills": [{"type": "custom", "skill_id": "skill_1"}]}},
    "threads": {"thread": {"type": "create"}},
    "default_fallbacks": {"fallbacks": "default"},
    "unknown_tools": {"tools": [{"type": "teleport_20261101", "name": "teleport"}]},
}


@pytest.mark.parametrize("name", sorted(OFF))
async def test_what_costs_or_shares_unseen_is_off_until_an_operator_says_so(
    gateway: Any, world: Any, name: str
) -> None:
    body = ask("Hello", **OFF[name])

    refused = await gateway.post(body, anthropic_beta=BETAS)
    allow(world, name)
    platform = await gateway.post(body, anthropic_beta=BETAS)
    tier = dataclasses.replace(world.plane.tiers["pro"], allowed_features=(name,))
    world.publish_plane(switches=Switches(), tiers={"pro": tier})
    by_tier = await gateway.post(body, anthropic_beta=BETAS)

    error = refused.json()["error"]
    assert (refused.status_code, error["type"]) == (400, "invalid_request_error")
    assert error["details"] == {"error_code": "feature_not_enabled", "feature": name}
    assert FEATURES[name] in error["message"]
    assert (platform.status_code, by_tier.status_code) == (200, 200)


def test_every_feature_that_is_off_has_a_test() -> None:
    assert {*OFF, "shared_objects"} == set(FEATURES)


@pytest.mark.parametrize(
    "raw",
    [
        b'[{"type":"code\\u005fexecution_20250825","name":"x"}]',
        b'[{"ty\\u0070e":"code_execution_20250825","name":"x"}]',
        b'[{"name":"x","type":"code_execution_20250825","x":{"type":"object"}}]',
    ],
)
async def test_a_tool_cannot_hide_behind_its_spelling(gateway: Any, raw: bytes) -> None:
    body = json.dumps(ask("Hello"), separators=(",", ":")).encode()

    answer = await gateway.post(body[:-1] + b',"tools":' + raw + b"}")

    assert answer.status_code == 400
    assert "code_execution" in answer.json()["error"]["message"]


async def test_a_tool_that_a_message_adds_is_a_tool(gateway: Any) -> None:
    tool = {"type": "code_execution_20250825", "name": "code_execution"}
    added = {"role": "system", "content": [{"type": "tool_addition", "tool": tool}]}
    body = ask("Hello")
    body["messages"] = [*body["messages"], added]

    answer = await gateway.post(body)

    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["feature"] == "code_execution"


@pytest.mark.parametrize("is_stream", [False, True])
async def test_counts_that_nobody_knows_raise_an_alarm(
    gateway: Any, world: Any, caplog: pytest.LogCaptureFixture, is_stream: bool
) -> None:
    names = ("dream_tokens", "server_tool_use.moon_requests", "service_tier=platinum")
    before = [METRICS.usage_unbilled.labels(name).numbers[0] for name in names]

    _, event, _ = await served(gateway, ask("Hello", stream=is_stream), x_simulator="usage=unknown")

    after = [METRICS.usage_unbilled.labels(name).numbers[0] for name in names]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1, 1]
    assert event.usage["dream_tokens"] == 7
    assert amount_of(event, world) > 0
    assert "usage.unbilled" in caplog.text


async def test_priority_answers_cost_what_the_plain_ones_do(gateway: Any, world: Any) -> None:
    _, event, row = await served(
        gateway, ask("Hello", service_tier="auto"), x_simulator="usage=priority"
    )

    assert event.usage["service_tier"] == "priority"
    expected = rating.rate(row["usage"], model=SONNET, price_set=world.plane.prices[0])
    assert amount_of(event, world) == expected.nanos > 0


async def test_the_hold_stands_until_tools_and_other_models_are_known(
    gateway: Any, world: Any
) -> None:
    body = ask("[[decline=40]] [[tokens=100]]", stream=True, **FALLBACK)

    _, event, row = await served(gateway, body, x_simulator="pace_ms=30")

    expected = rating.rate(row["usage"], model=DEAR, price_set=world.plane.prices[0])
    assert event.hold_micro * 1_000 >= amount_of(event, world) == expected.nanos


async def test_only_claude_on_messages(gateway: Any, world: Any) -> None:
    other = ModelSnapshot(model="gpt-oss", display_name="Other")
    (prices,) = world.plane.prices
    rows = {**prices.prices, "gpt-oss": prices_of(SONNET_PRICES)}
    world.publish_plane(
        models={**world.plane.models, "gpt-oss": other},
        routes={
            **world.plane.routes,
            "gpt-oss": (Candidate(upstream=9, upstream_model="claude-other"),),
        },
        prices=(dataclasses.replace(prices, prices=rows),),
    )
    body = ask("Hello", model="gpt-oss")
    before = await gateway.post(body)
    world.publish_plane(switches=Switches(is_claude_only=True))

    refused = await gateway.post(body)
    counted = await gateway.post(
        {name: body[name] for name in ("model", "messages")}, path="/v1/messages/count_tokens"
    )
    chat = await gateway.post(body, path="/v1/chat/completions")
    claude = await gateway.post(ask("Hello"))

    assert (before.status_code, chat.status_code, claude.status_code) == (200, 200, 200)
    assert (refused.status_code, counted.status_code) == (400, 400)
    assert refused.json()["error"]["details"]["error_code"] == "model_not_on_this_endpoint"
    assert "/v1/chat/completions" in refused.json()["error"]["message"]
