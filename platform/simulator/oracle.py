"""What tests ask the simulator about itself: what it billed, and what it claims to have billed."""

from simulator.exchange import Exchange
from simulator.record import DAY_SECONDS, parse_since_us
from simulator.state import State
from simulator.wire import Refusal, encode

_BUCKET_SECONDS = {"1m": 60, "1h": 3_600, "1d": DAY_SECONDS}


async def show_billed(state: State, exchange: Exchange) -> None:
    """GET /_billed: every billed attempt, oldest first; `?since=` leaves older ones out."""
    try:
        since_us = parse_since_us(exchange.query.get("since", "0"))
    except ValueError as error:
        raise Refusal(f"since: {error}") from error
    await exchange.reply(encode(state.record.rows(since_us=since_us)))


async def reset(state: State, exchange: Exchange) -> None:
    """POST /_reset: forget what was billed and what is cached."""
    state.reset()
    await exchange.reply(b'{"reset":true}')


async def show_usage_report(state: State, exchange: Exchange) -> None:
    """GET /v1/organizations/usage_report/messages: the bill, as the Admin API sums it up."""
    width = exchange.query.get("bucket_width", "1d")
    if width not in _BUCKET_SECONDS:
        raise Refusal("bucket_width: Input should be '1m', '1h' or '1d'")
    buckets = state.record.usage_report(
        bucket_seconds=_BUCKET_SECONDS[width], is_wrong=exchange.faults.report == "wrong"
    )
    await exchange.reply(encode({"data": buckets, "has_more": False, "next_page": None}))


async def show_cost_report(state: State, exchange: Exchange) -> None:
    """GET /v1/organizations/cost_report: the bill in cents, by day and description."""
    if exchange.query.get("bucket_width", "1d") != "1d":
        raise Refusal("bucket_width: Input should be '1d'")
    buckets = state.record.cost_report(is_wrong=exchange.faults.report == "wrong")
    await exchange.reply(encode({"data": buckets, "has_more": False, "next_page": None}))
