"""What a client is told of its limits: exact headers, and refusals that name the limit."""

import pytest

from proxy.limiter.answers import Refusal, rate_limit_headers, refusal_of
from proxy.limiter.limiter import AWAY, FULL, LOCALLY_GRANTED, Admission
from proxy.limiter.limits import Spec
from tests.proxy.limiter_world import spec_of
from turnpike.contracts.snapshots import (
    Budget,
    KeySnapshot,
    Limits,
    ModelSnapshot,
    TenantTerms,
    TenantWho,
    TierSnapshot,
    WorkspaceSnapshot,
)

NOW_US = 1_795_257_000_000_000  # 2026-11-21T10:30:00Z


@pytest.fixture
def spec() -> Spec:
    """A request under limits in every scope."""
    workspace = WorkspaceSnapshot(workspace_id="w", limits=Limits(concurrency=3))
    return spec_of(
        rid="01930000-0000-7000-8000-0000000000fe",
        key=KeySnapshot(
            key=9,
            key_id="apikey_1",
            tenant=42,
            workspace=7,
            limits=Limits(requests_per_minute=10),
            budgets=(Budget(period="day", limit_micro=2_500_000),),
        ),
        who=TenantWho(
            tenant_id="ten_1",
            workspaces={"7": workspace},
            budgets=(Budget(period="month", limit_micro=20_000_000),),
        ),
        terms=TenantTerms(tier="basic", book=1),
        tier=TierSnapshot(
            tier="basic",
            name="Basic",
            limits=Limits(requests_per_minute=50, tokens_per_minute=100_000, concurrency=10),
            group_limits={
                "opus": Limits(input_tokens_per_minute=30_000, output_tokens_per_minute=8_000)
            },
        ),
        model=ModelSnapshot(model="opus-5", display_name="Opus 5", limit_group="opus"),
        input_estimate=40_000,
        max_tokens=9_000,
        hold_micro=1_234_500,
        base=b"{}",
        tenant_version=1,
        global_version=1,
        lease_ms=30_000,
        at_us=NOW_US,
    )


def answer(reason: str, *, wait_us: int = 0, available_micro: int | None = None) -> Admission:
    """A refusal as the script gives it, with half of every bucket left."""
    return Admission(
        code=0,
        reason=reason,
        now_us=NOW_US,
        wait_us=wait_us,
        available_micro=available_micro,
        remaining_us=(30_000_000, 59_999_999, 30_000_000, 0, 15_000_000),
    )


def test_headers_are_exact_and_of_nested_scopes_the_most_restrictive(spec: Spec) -> None:
    assert [bucket.name for bucket in spec.buckets] == [
        "t:requests",
        "t:tokens",
        "g:opus:input_tokens",
        "g:opus:output_tokens",
        "k9:requests",
    ]

    headers = rate_limit_headers(spec, answer("ok"))

    assert headers == [
        (b"anthropic-ratelimit-requests-limit", b"10"),
        (b"anthropic-ratelimit-requests-remaining", b"2"),
        (b"anthropic-ratelimit-requests-reset", b"2026-11-21T10:30:45Z"),
        (b"anthropic-ratelimit-tokens-limit", b"100000"),
        (b"anthropic-ratelimit-tokens-remaining", b"99999"),
        (b"anthropic-ratelimit-tokens-reset", b"2026-11-21T10:30:01Z"),
        (b"anthropic-ratelimit-input-tokens-limit", b"30000"),
        (b"anthropic-ratelimit-input-tokens-remaining", b"15000"),
        (b"anthropic-ratelimit-input-tokens-reset", b"2026-11-21T10:30:30Z"),
        (b"anthropic-ratelimit-output-tokens-limit", b"8000"),
        (b"anthropic-ratelimit-output-tokens-remaining", b"0"),
        (b"anthropic-ratelimit-output-tokens-reset", b"2026-11-21T10:31:00Z"),
    ]


def test_debt_shows_as_nothing_left_and_a_later_reset(spec: Spec) -> None:
    in_debt = Admission(code=1, reason="ok", now_us=NOW_US, remaining_us=(-30_000_000,) * 5)

    headers = dict(rate_limit_headers(spec, in_debt))

    assert headers[b"anthropic-ratelimit-tokens-remaining"] == b"0"
    assert headers[b"anthropic-ratelimit-tokens-reset"] == b"2026-11-21T10:31:30Z"


@pytest.mark.parametrize("admission", [AWAY, FULL, LOCALLY_GRANTED])
def test_unknown_buckets_make_no_headers(spec: Spec, admission: Admission) -> None:
    assert rate_limit_headers(spec, admission) == []


def test_a_rate_refusal_names_the_limit_and_the_wait(spec: Spec) -> None:
    refusal = refusal_of(answer("rate:t:tokens", wait_us=1_200_001), spec)

    assert refusal == Refusal(
        status=429,
        error_type="rate_limit_error",
        message=(
            "This request would exceed the limit of 100,000 tokens per minute of your account."
            " Try again in 2 s."
        ),
        headers=(
            (b"retry-after", b"2"),
            (b"retry-after-ms", b"1201"),
            (b"x-should-retry", b"true"),
        ),
    )


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("rate:k9:requests", "10 requests per minute of this API key"),
        ("rate:g:opus:input_tokens", "30,000 input tokens per minute of your account for the"),
        ("concurrency:w7", "limit of 3 concurrent requests of this workspace"),
        ("concurrency:t", "limit of 10 concurrent requests of your account"),
    ],
)
def test_the_owner_of_a_limit_is_named(spec: Spec, reason: str, words: str) -> None:
    refusal = refusal_of(answer(reason, wait_us=1_000_000), spec)

    assert words in refusal.message
    assert dict(refusal.headers)[b"retry-after"] == b"1"
    assert (refusal.status, refusal.error_type) == (429, "rate_limit_error")


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("oversize:t:tokens", "It counts as 44,096 tokens."),
        ("oversize:g:opus:input_tokens", "It counts as 40,000 input tokens."),
        ("oversize:g:opus:output_tokens", "It counts as 4,096 output tokens."),
    ],
)
def test_what_alone_exceeds_a_limit_need_not_retry(spec: Spec, reason: str, words: str) -> None:
    refusal = refusal_of(answer(reason), spec)

    assert refusal.message.startswith("This request alone exceeds the limit of")
    assert words in refusal.message
    assert refusal.headers == ((b"x-should-retry", b"false"),)


def test_missing_credit_is_a_billing_error_with_both_numbers(spec: Spec) -> None:
    refusal = refusal_of(answer("credit", available_micro=455), spec)

    assert (refusal.status, refusal.error_type) == (402, "billing_error")
    assert "may cost up to $1.2345, and $0.000455 is available" in refusal.message
    assert refusal.headers == ((b"x-should-retry", b"false"),)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("budget:s:k9:2026-11-21", "$2.50 of this API key for the day 2026-11-21"),
        ("budget:s:t:2026-11", "$20.00 of your account for the month 2026-11"),
    ],
)
def test_a_budget_refusal_names_budget_and_period(spec: Spec, reason: str, words: str) -> None:
    refusal = refusal_of(answer(reason, available_micro=-70_000), spec)

    assert (refusal.status, refusal.error_type) == (402, "billing_error")
    assert words in refusal.message
    assert "$0.00 is left" in refusal.message


@pytest.mark.parametrize("reason", ["away", "full", "cold", "policy", "wallet"])
def test_everything_else_is_overloaded_with_a_spread_retry(spec: Spec, reason: str) -> None:
    refusal = refusal_of(answer(reason, wait_us=14_000_001), spec)

    assert (refusal.status, refusal.error_type) == (529, "overloaded_error")
    assert dict(refusal.headers) == {b"retry-after": b"17", b"x-should-retry": b"true"}
