"""Usage into money: the bills of the sample streams, odd input, and P14."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.billing.price_lists import shipped_prices
from turnpike.contracts.rating import (
    COMPONENTS,
    COUNT_MAX,
    INPUT,
    OUTPUT,
    TOKEN_COMPONENTS,
    WEB_SEARCH,
    find_price,
    rate,
    thinking_tokens,
    token_counts,
    usage_lines,
    variant_of,
)
from turnpike.contracts.snapshots import Price, PriceSet

MODELS = ("claude-haiku-5-5", "claude-opus-4-8", "claude-sonnet-5-5", "claude-3-haiku-20240307")


def amount(usage: dict[str, Any], model: str, **options: Any) -> int:
    """The price of a usage by the shipped list."""
    return rate(usage, model=model, price_set=shipped_prices(), **options).nanos


def nested(parts: dict[str, int]) -> dict[str, Any]:
    """A usage as the API writes it, from counts by component."""
    return {
        "input_tokens": parts["input"],
        "output_tokens": parts["output"],
        "cache_creation_input_tokens": parts["cache_write_5m"] + parts["cache_write_1h"],
        "cache_creation": {
            "ephemeral_5m_input_tokens": parts["cache_write_5m"],
            "ephemeral_1h_input_tokens": parts["cache_write_1h"],
        },
        "cache_read_input_tokens": parts["cache_read"],
        "server_tool_use": {"web_search_requests": parts["web_search"]},
    }


# model, final usage, micro-dollars as the samples' tables say.
SAMPLES = [
    ("claude-opus-4-8", {"input_tokens": 21, "output_tokens": 14}, 455),
    ("claude-sonnet-4-6", {"input_tokens": 412, "output_tokens": 61}, 2_151),
    (
        "claude-opus-4-8",
        {
            "input_tokens": 58,
            "output_tokens": 187,
            "output_tokens_details": {"thinking_tokens": 172},
            "service_tier": "standard",
        },
        4_965,
    ),
    ("claude-sonnet-4-6", {"input_tokens": 1_500, "output_tokens": 12}, 4_680),
    ("claude-haiku-4-5-20251001", {"input_tokens": 9, "output_tokens": 4}, 29),
    (
        "claude-opus-4-8",
        {
            "input_tokens": 2_620,
            "cache_creation_input_tokens": 3_000,
            "cache_read_input_tokens": 43_000,
            "cache_creation": {
                "ephemeral_5m_input_tokens": 1_000,
                "ephemeral_1h_input_tokens": 2_000,
            },
            "output_tokens": 350,
            "output_tokens_details": {"thinking_tokens": 210},
            "server_tool_use": {"web_search_requests": 1, "web_fetch_requests": 0},
            "inference_geo": "global",
        },
        79_600,
    ),
]


@pytest.mark.parametrize(("model", "usage", "micros"), SAMPLES)
def test_the_sample_streams_cost_what_their_tables_say(
    model: str, usage: dict[str, Any], micros: int
) -> None:
    assert amount(usage, model) == micros * 1_000


def test_iterations_replace_the_top_level_at_their_own_models() -> None:
    own, advisor = "claude-sonnet-4-6", "claude-opus-4-8"
    turns = [
        ("message", own, 300, 100),
        ("advisor_message", advisor, 1_200, 500),
        ("message", own, 600, 300),
    ]
    entries = [
        {"type": kind, "model": model, "input_tokens": read, "output_tokens": written}
        for kind, model, read, written in turns
    ]
    usage = {"input_tokens": 900, "output_tokens": 400, "iterations": entries}

    assert amount(usage, "claude-sonnet-4-6") == 27_200_000
    searched = {**usage, "server_tool_use": {"web_search_requests": 2}}
    assert amount(searched, "claude-sonnet-4-6") == 27_200_000 + 20_000_000
    assert token_counts(searched)["web_search"] == 2
    assert token_counts(usage)["input"] == 2_100


def test_a_compaction_is_billed_although_the_top_level_leaves_it_out() -> None:
    usage = {
        "input_tokens": 10,
        "output_tokens": 10,
        "iterations": [
            {"type": "compaction", "input_tokens": 1_000, "output_tokens": 100},
            {"type": "message", "input_tokens": 10, "output_tokens": 10},
        ],
    }

    assert amount(usage, "claude-opus-4-8") == (1_010 * 5 + 110 * 25) * 1_000


@pytest.mark.parametrize("kind", ["message", "fallback_message"])
def test_attempts_that_declined_before_a_fallback_are_free(kind: str) -> None:
    declined = {"type": kind, "input_tokens": 500, "output_tokens": 0}
    answered = {"type": "fallback_message", "model": "claude-opus-4-8"}
    answered_usage: dict[str, Any] = {**answered, "input_tokens": 500, "output_tokens": 20}

    total = amount({"iterations": [declined, answered_usage]}, "claude-opus-5-5")

    assert total == (500 * 5 + 20 * 25) * 1_000


def test_a_loop_of_tools_bills_turns_without_output() -> None:
    entries = [{"type": "message", "input_tokens": 100, "output_tokens": 0}]

    assert amount({"iterations": entries}, "claude-opus-4-8") == 500_000


def test_a_refusal_is_free_only_without_output() -> None:
    refused = {"input_tokens": 800, "output_tokens": 0}

    assert amount(refused, "claude-opus-4-8", stop_reason="refusal") == 0
    assert amount(refused, "claude-opus-4-8", stop_reason="max_tokens") == 4_000_000
    spoken = {**refused, "output_tokens": 2}
    assert amount(spoken, "claude-opus-4-8", stop_reason="refusal") == 4_050_000


def test_filling_a_cache_without_output_is_billed() -> None:
    usage = {"input_tokens": 1, "cache_creation_input_tokens": 4_000, "output_tokens": 0}

    assert amount(usage, "claude-opus-4-8", stop_reason="max_tokens") == 5_000 + 25_000_000


def test_a_split_smaller_than_its_total_leaves_the_rest_at_five_minutes() -> None:
    usage = {
        "cache_creation_input_tokens": 100,
        "cache_creation": {"ephemeral_1h_input_tokens": 30, "ephemeral_5m_input_tokens": 20},
    }

    counts = token_counts(usage)

    assert (counts["cache_write_5m"], counts["cache_write_1h"]) == (70, 30)


@pytest.mark.parametrize(
    ("usage", "is_batch", "variant"),
    [
        ({}, False, "standard"),
        ({"service_tier": "priority", "inference_geo": "global"}, False, "standard"),
        ({"service_tier": "batch"}, False, "batch"),
        ({}, True, "batch"),
        ({"speed": "fast", "inference_geo": "us"}, False, "fast+us"),
        ({"speed": "fast", "inference_geo": "us", "service_tier": "batch"}, True, "batch+fast+us"),
    ],
)
def test_the_answer_decides_the_variant(
    usage: dict[str, Any], is_batch: bool, variant: str
) -> None:
    assert variant_of(usage, is_batch=is_batch) == variant


def test_what_has_no_price_is_named_and_not_guessed() -> None:
    rated = rate({"input_tokens": 5, "output_tokens": 5}, model="?", price_set=shipped_prices())

    assert rated.is_complete is False
    assert rated.nanos == 0
    assert [(c.component, c.rate_nanos, c.nanos) for c in rated.components] == [
        (INPUT, None, None),
        (OUTPUT, None, None),
    ]


def test_a_price_of_zero_is_a_price() -> None:
    free = PriceSet(
        price_set=1,
        book=1,
        from_us=0,
        prices={"m": (Price(component="input", nano_per_mtok=0),)},
    )

    rated = rate({"input_tokens": 5}, model="m", price_set=free)

    assert (rated.is_complete, rated.nanos, rated.components[0].rate_nanos) == (True, 0, 0)


@pytest.mark.parametrize(("prompt", "nanos"), [(0, 500), (100_000, 500), (100_001, 2_500)])
def test_a_bracket_begins_above_its_number(prompt: int, nanos: int) -> None:
    row = find_price(
        shipped_prices(),
        model="claude-haiku-5-5",
        component=OUTPUT,
        variant="standard",
        prompt_tokens=prompt,
    )

    assert row is not None
    assert row.nano_per_mtok == nanos * 1_000_000


@pytest.mark.parametrize("value", [None, -5, "7", 1.5, True, [], {}])
def test_counters_that_are_no_counts_are_nothing(value: Any) -> None:
    usage = {
        "input_tokens": value,
        "output_tokens": value,
        "cache_creation_input_tokens": value,
        "cache_creation": value,
        "cache_read_input_tokens": value,
        "server_tool_use": {"web_search_requests": value},
        "output_tokens_details": {"thinking_tokens": value},
        "iterations": value,
    }

    assert amount(usage, "claude-opus-4-8") == 0
    assert thinking_tokens(usage) == 0
    assert token_counts(usage) == dict.fromkeys(COMPONENTS, 0)


def test_absurd_counts_are_cut_to_what_a_column_holds() -> None:
    assert token_counts({"input_tokens": 10**30})["input"] == COUNT_MAX


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "model", "input_tokens", "output_tokens", "iterations", "cache_creation"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(
    usage=st.dictionaries(
        st.sampled_from(
            ["input_tokens", "output_tokens", "iterations", "server_tool_use", "cache_creation"]
        ),
        JSON,
    )
)
def test_no_usage_breaks_the_rating(usage: dict[str, Any]) -> None:
    lines = usage_lines(usage, model="claude-opus-4-8")

    assert all(0 <= count <= COUNT_MAX for line in lines for count in line.counts.values())
    assert amount(usage, "claude-opus-4-8") >= 0


COUNTS = st.fixed_dictionaries({name: st.integers(0, 300_000) for name in COMPONENTS})
DISCOUNTS = st.integers(0, 10_000)


@given(parts=COUNTS, model=st.sampled_from(MODELS), discount=DISCOUNTS)
def test_rating_is_deterministic_and_the_sum_of_its_components(
    parts: dict[str, int], model: str, discount: int
) -> None:
    first = rate(nested(parts), model=model, price_set=shipped_prices(), discount_bp=discount)
    second = rate(nested(parts), model=model, price_set=shipped_prices(), discount_bp=discount)

    assert first == second
    assert first.nanos == sum(component.nanos or 0 for component in first.components)
    assert {c.component: c.quantity for c in first.components} == {
        name: count for name, count in parts.items() if count
    }


@given(parts=COUNTS, discount=DISCOUNTS)
def test_rating_is_additive_over_components(parts: dict[str, int], discount: int) -> None:
    nothing = dict.fromkeys(COMPONENTS, 0)
    alone = [
        amount(nested({**nothing, name: count}), "claude-opus-4-8", discount_bp=discount)
        for name, count in parts.items()
    ]

    assert amount(nested(parts), "claude-opus-4-8", discount_bp=discount) == sum(alone)


@given(
    parts=COUNTS,
    model=st.sampled_from(MODELS),
    name=st.sampled_from([*TOKEN_COMPONENTS, WEB_SEARCH]),
    more=st.integers(0, 300_000),
    discount=DISCOUNTS,
)
def test_rating_is_monotone_in_every_count(
    parts: dict[str, int], model: str, name: str, more: int, discount: int
) -> None:
    larger = {**parts, name: parts[name] + more}

    before = amount(nested(parts), model, discount_bp=discount)

    assert amount(nested(larger), model, discount_bp=discount) >= before


@given(parts=COUNTS, discount=DISCOUNTS)
def test_a_discount_never_makes_an_answer_dearer(parts: dict[str, int], discount: int) -> None:
    usage = nested(parts)

    assert amount(usage, "claude-haiku-5-5", discount_bp=discount) <= amount(
        usage, "claude-haiku-5-5"
    )
    assert amount(usage, "claude-haiku-5-5", discount_bp=10_000) == 0
