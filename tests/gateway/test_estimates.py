"""What is read from a body before anything is sent: tokens, holds, and the bytes themselves."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.api_errors import ApiError
from proxy.body import read_messages_body
from proxy.demand import demand_of
from proxy.pricing import Demand, estimate_input_tokens, hold_micro, rated_micro, worst_case_micro
from tests.gateway.conftest import SONNET_PRICES, prices_of
from turnpike.contracts.snapshots import Price, PriceSet

MODEL = "claude-sonnet-4-6"
BRACKETED = "claude-haiku-5-5"
PRICES = PriceSet(
    price_set=1,
    book=1,
    from_us=0,
    prices={
        MODEL: (
            *prices_of(SONNET_PRICES),
            *prices_of({k: 2 * v for k, v in SONNET_PRICES.items()}, "fast"),
        ),
        BRACKETED: (
            Price(component="input", nano_per_mtok=100_000_000),
            Price(component="input", nano_per_mtok=500_000_000, min_input=100_000),
            Price(component="output", nano_per_mtok=500_000_000),
            Price(component="output", nano_per_mtok=2_500_000_000, min_input=100_000),
        ),
    },
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def body_of(**fields: Any) -> bytes:
    """A body with the required fields and more."""
    usual = {"model": MODEL, "max_tokens": 10, "messages": [{"role": "user", "content": "x"}]}
    return json.dumps(usual | fields, separators=(",", ":")).encode()


def test_latin_text_counts_a_quarter_of_its_bytes() -> None:
    assert estimate_input_tokens([b"a" * 4_000]) == 1_008


def test_chinese_text_counts_more_than_its_characters() -> None:
    text = "收费站" * 100

    assert estimate_input_tokens([text.encode()]) == 8 + 600


def test_escaped_chinese_text_counts_as_the_plain_one() -> None:
    text = "收费站" * 100

    plain, escaped = (
        estimate_input_tokens([json.dumps(text, ensure_ascii=is_escaped).encode()])
        for is_escaped in (False, True)
    )

    assert plain == escaped


def test_image_counts_as_an_image_and_not_as_text() -> None:
    data = "A" * 400_000
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}

    assert estimate_input_tokens([json.dumps(image).encode()]) < 2_000


def test_document_counts_by_its_pages() -> None:
    source = {"type": "base64", "media_type": "application/pdf", "data": "A" * 400_000}

    tokens = estimate_input_tokens([json.dumps({"type": "document", "source": source}).encode()])

    assert 20_000 < tokens < 30_000


def test_fast_answer_is_held_at_the_dearest_variant() -> None:
    usual = demand_of(read_messages_body(body_of()))
    fast = demand_of(read_messages_body(body_of(speed="fast")))

    cheap = hold_micro(usual, price_set=PRICES, model=MODEL, discount_bp=0)
    dear = hold_micro(fast, price_set=PRICES, model=MODEL, discount_bp=0)

    assert cheap is not None
    assert dear is not None
    assert dear > 1.9 * cheap


def test_variant_without_a_price_refuses_the_request() -> None:
    demand = demand_of(read_messages_body(body_of(inference_geo="us")))

    assert hold_micro(demand, price_set=PRICES, model=MODEL, discount_bp=0) is None


def test_long_prompt_is_held_at_the_bracket_it_may_reach() -> None:
    short, long = (
        hold_micro(
            Demand(input_estimate=tokens, max_tokens=1_000),
            price_set=PRICES,
            model=BRACKETED,
            discount_bp=0,
        )
        for tokens in (10_000, 90_000)
    )

    assert short == 1_000 + 500 + 1
    assert long == 45_000 + 2_500 + 1


@given(
    counts=st.fixed_dictionaries(
        {
            "input_tokens": st.integers(0, 10**6),
            "cache_creation_input_tokens": st.integers(0, 10**6),
            "cache_read_input_tokens": st.integers(0, 10**6),
        }
    ),
    output=st.integers(0, 10**5),
    unused=st.integers(0, 10**5),
)
def test_exact_worst_case_covers_every_answer(
    counts: dict[str, int], output: int, unused: int
) -> None:
    worst = worst_case_micro(
        counts, price_set=PRICES, model=MODEL, max_tokens=output + unused, discount_bp=0
    )
    worth = rated_micro(
        {**counts, "output_tokens": output}, price_set=PRICES, model=MODEL, discount_bp=0
    )

    assert worth <= worst


@given(tokens=st.integers(1, 10**6), max_tokens=st.integers(0, 10**6))
def test_hold_covers_an_answer_of_the_estimated_size(tokens: int, max_tokens: int) -> None:
    demand = Demand(
        input_estimate=tokens,
        max_tokens=max_tokens,
        has_one_hour_cache=True,
        has_cache_control=True,
    )
    usage = {
        "input_tokens": 0,
        "cache_creation_input_tokens": tokens,
        "cache_creation": {"ephemeral_1h_input_tokens": tokens, "ephemeral_5m_input_tokens": 0},
        "output_tokens": max_tokens,
    }

    hold = hold_micro(demand, price_set=PRICES, model=MODEL, discount_bp=0)

    assert hold is not None
    assert rated_micro(usage, price_set=PRICES, model=MODEL, discount_bp=0) <= hold


# `stream` is read and must be a flag; any other name is none of our business.
foreign_names = st.text(min_size=1).filter(lambda name: name != "stream")


@given(extra=st.dictionaries(foreign_names, json_values, max_size=5), is_compact=st.booleans())
def test_what_goes_up_says_what_came_in(extra: dict[str, Any], is_compact: bool) -> None:
    fields = {"model": MODEL, "max_tokens": 10, "messages": [{"role": "user", "content": "x"}]}
    given_body = extra | fields
    raw = json.dumps(given_body, separators=(",", ":") if is_compact else None, ensure_ascii=False)

    body = read_messages_body(raw.encode("utf-8", "surrogatepass")) if _is_clean(raw) else None

    if body is not None:
        assert json.loads(body.to_upstream("other")) == given_body | {"model": "other"}
        assert json.loads(body.to_upstream(MODEL)) == given_body
        if is_compact and body.is_verbatim:
            assert body.to_upstream(MODEL) == raw.encode()


def test_duplicate_below_the_top_goes_up_as_it_came() -> None:
    raw = body_of(metadata={"a": 1}).replace(b'{"a":1}', b'{"a":1,"a":2}')

    assert b'{"a":1,"a":2}' in read_messages_body(raw).to_upstream("other")


@pytest.mark.parametrize("spacing", [b" ", b"\n", b"\t"])
def test_duplicate_is_found_whatever_the_spacing(spacing: bytes) -> None:
    raw = body_of().replace(b'"model"', spacing + b'"max_tokens":1,"model"', 1)

    with pytest.raises(ApiError, match="max_tokens: Duplicate key"):
        read_messages_body(raw)


def _is_clean(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
