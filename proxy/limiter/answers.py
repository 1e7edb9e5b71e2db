"""What a client is told of its limits: headers on every answer, and the words of a refusal.

All of it comes from the buckets that decided, at the instant when they decided.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from proxy.limiter.limiter import Admission
from proxy.limiter.limits import Spec
from proxy.limiter.plans import (
    KIND_INPUT,
    KIND_OUTPUT,
    KIND_REQUESTS,
    KIND_TOKENS,
    SCOPE_GROUP,
    SCOPE_KEY,
    SCOPE_TENANT,
    SCOPE_WORKSPACE,
    Bucket,
    Plan,
    Told,
)
from turnpike.kernel import clock
from turnpike.kernel.money import format_amount, nanos_of_micros

Header = tuple[bytes, bytes]

SECOND_US = 1_000_000
RETRY_JITTER_SECONDS = 4
INSTANTS_MAX = 1_024

_UNITS = {
    KIND_REQUESTS: "requests",
    KIND_TOKENS: "tokens",
    KIND_INPUT: "input tokens",
    KIND_OUTPUT: "output tokens",
}
_MAY_RETRY = (b"x-should-retry", b"true")
_NO_RETRY = (b"x-should-retry", b"false")


class Refusal(NamedTuple):
    """An answer to a request that was not admitted."""

    status: int
    error_type: str
    message: str
    headers: tuple[Header, ...]


def rate_limit_headers(spec: Spec, admission: Admission) -> list[Header]:
    """`anthropic-ratelimit-*` for each kind of bucket; of nested scopes, the most restrictive.

    Remaining is what would still be admitted now, not rounded. Reset is the first whole second at
    which the bucket is full. Empty when the buckets are not known.
    """
    plan, now_us, lefts_us = spec.plan, admission.now_us, admission.remaining_us
    headers: list[Header] = []
    if not lefts_us:
        return headers
    for place, told in enumerate(plan.told) if plan.is_flat else _tightest(plan, lefts_us):
        limit, remaining, reset, burst_us, units, per_us = told
        left_us = lefts_us[place]
        left = left_us * units // per_us if left_us > 0 else 0  # as Bucket.units_in
        full_at = -((left_us - burst_us - now_us) // SECOND_US)  # rounded up
        # `get`, since a look-up of one that counts on `__missing__` is a call of Python's.
        instant = _instants.get(full_at) or _instants[full_at]
        headers += (limit, (remaining, b"%d" % left), (reset, instant))
    return headers


def _tightest(plan: Plan, lefts_us: Sequence[int]) -> Iterable[tuple[int, Told]]:
    """Of each kind the bucket that leaves the least, then the one with the lowest limit."""
    best: dict[str, tuple[tuple[int, int], tuple[int, Told]]] = {}
    for place, bucket in enumerate(plan.buckets):
        rank = bucket.units_in(lefts_us[place]), bucket.limit_per_minute
        known = best.get(bucket.kind)
        if known is None or rank < known[0]:
            best[bucket.kind] = rank, (place, plan.told[place])
    return [item for _, item in best.values()]


def refusal_of(admission: Admission, spec: Spec) -> Refusal:
    """How a refused admission is answered: the message names the limit and its value."""
    assert not admission.is_granted
    kind, _, name = admission.reason.partition(":")
    if kind == "rate":
        return _rate_refusal(admission, _bucket(spec, name))
    if kind == "oversize":
        return _oversize_refusal(spec, _bucket(spec, name))
    if kind == "concurrency":
        return _concurrency_refusal(admission, spec, name)
    if kind == "budget":
        return _budget_refusal(admission, spec, name)
    if kind == "credit":
        needed, available = _dollars(spec.hold_micro), _dollars(admission.available_micro or 0)
        return _payment_refusal(
            f"Your credit balance is too low: this request may cost up to {needed}, and"
            f" {available} is available. Add credit, or ask for fewer output tokens."
        )
    return _overloaded_refusal(spec, wait_us=admission.wait_us)


def _rate_refusal(admission: Admission, bucket: Bucket) -> Refusal:
    wait_ms = -(-admission.wait_us // 1_000)
    seconds = -(-admission.wait_us // SECOND_US)
    return Refusal(
        status=429,
        error_type="rate_limit_error",
        message=(
            f"This request would exceed the limit of {bucket.limit_per_minute:,}"
            f" {_UNITS[bucket.kind]} per minute of {_owner(bucket.name)}. Try again in {seconds} s."
        ),
        headers=(
            (b"retry-after", b"%d" % seconds),
            (b"retry-after-ms", b"%d" % wait_ms),
            _MAY_RETRY,
        ),
    )


def _oversize_refusal(spec: Spec, bucket: Bucket) -> Refusal:
    asked = ""
    if bucket.kind != KIND_REQUESTS:
        units = {
            KIND_TOKENS: spec.input_estimate + spec.output_reserve,
            KIND_INPUT: spec.input_estimate,
            KIND_OUTPUT: spec.output_reserve,
        }[bucket.kind]
        asked = f" It counts as {units:,} {_UNITS[bucket.kind]}."
    return Refusal(
        status=429,
        error_type="rate_limit_error",
        message=(
            f"This request alone exceeds the limit of {bucket.limit_per_minute:,}"
            f" {_UNITS[bucket.kind]} per minute of {_owner(bucket.name)}.{asked}"
            " Waiting does not help; send less."
        ),
        headers=(_NO_RETRY,),
    )


def _concurrency_refusal(admission: Admission, spec: Spec, name: str) -> Refusal:
    limit = next(slot.limit for slot in spec.slots if slot.name == name)
    return Refusal(
        status=429,
        error_type="rate_limit_error",
        message=f"The limit of {limit:,} concurrent requests of {_owner(name)} is reached.",
        headers=((b"retry-after", b"%d" % (admission.wait_us // SECOND_US)), _MAY_RETRY),
    )


def _budget_refusal(admission: Admission, spec: Spec, field: str) -> Refusal:
    budget = next(item for item in spec.budgets if item.field == field)
    period = field.rpartition(":")[2]
    when = "day" if period.count("-") == 2 else "month"
    left = _dollars(max(0, admission.available_micro or 0))
    return _payment_refusal(
        f"The budget of {_dollars(budget.limit_micro)} of {_owner(budget.scope)} for the"
        f" {when} {period} does not cover this request: it may cost up to"
        f" {_dollars(spec.hold_micro)}, and {left} is left."
    )


def _payment_refusal(message: str) -> Refusal:
    return Refusal(status=402, error_type="billing_error", message=message, headers=(_NO_RETRY,))


def _overloaded_refusal(spec: Spec, *, wait_us: int) -> Refusal:
    # Spread by the request's id, so that those who were refused together do not return together.
    jitter = int(spec.rid[-2:], 16) % RETRY_JITTER_SECONDS
    seconds = max(1, -(-wait_us // SECOND_US)) + jitter
    return Refusal(
        status=529,
        error_type="overloaded_error",
        message="The service is overloaded or starting. Try again in a moment.",
        headers=((b"retry-after", b"%d" % seconds), _MAY_RETRY),
    )


def _bucket(spec: Spec, name: str) -> Bucket:
    return next(bucket for bucket in spec.buckets if bucket.name == name)


def _owner(name: str) -> str:
    """Whose limit it is, from the name of a scope or bucket."""
    if name.startswith(SCOPE_GROUP):
        group = name.removeprefix(SCOPE_GROUP).split(":")[0]
        return f"your account for the models `{group}`"
    scope = name.split(":")[0]
    if scope.startswith(SCOPE_WORKSPACE):
        return "this workspace"
    if scope.startswith(SCOPE_KEY):
        return "this API key"
    assert scope == SCOPE_TENANT
    return "your account"


def _dollars(micro: int) -> str:
    text = format_amount(nanos_of_micros(micro))
    whole, _, decimals = text.partition(".")
    return f"${whole}.{decimals[:2]}{decimals[2:].rstrip('0')}"


class _Instants(dict[int, bytes]):
    """Seconds since 1970 as text: most answers of a second share their reset times."""

    def __missing__(self, seconds: int) -> bytes:
        if len(self) >= INSTANTS_MAX:
            self.clear()
        text = self[seconds] = clock.rfc3339(clock.datetime_of_us(seconds * SECOND_US)).encode()
        return text


_instants = _Instants()
