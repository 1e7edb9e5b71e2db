"""Events from the stream to PostgreSQL: each once, revised by better ones, poison set aside."""


import pytest
import redis

from tests.billing.usage_world import (
    USAGE_NANO,
    append,
    final_state,
    ingest,
    make_event,
    make_shop,
    rollup_rows,
    rows_of,
    stream_lengths,
    sums_agree,
)
from turnpike.kernel import keyspace

pytestmark = pytest.mark.django_db


def test_an_event_is_posted_charged_rolled_up_and_leaves_the_stream(
    redis_client: redis.Redis,
) -> None:
    shop = make_shop(credit=5_000_000_000)
    event = make_event(shop)
    append(redis_client, event)

    handled = ingest(redis_client)

    [row] = rows_of(event.rid)
    assert handled == 1
    assert (row.revision, row.rank, row.status, row.amount_nano) == (0, 3, "reported", USAGE_NANO)
    assert (row.input_nano, row.output_nano, row.waived_nano) == (300_000, 300_000, 0)
    assert (row.tier, row.context_window, row.currency) == ("standard", "0-200k", "USD")
    [rollup] = rollup_rows(shop)
    assert (rollup.requests, rollup.input_tokens, rollup.amount_nano) == (1, 100, USAGE_NANO)
    assert final_state()["balances"] == [(shop.number, 5_000_000_000 - USAGE_NANO)]
    assert stream_lengths(redis_client) == 0
    assert redis_client.xpending(keyspace.usage_stream(shop.shard), "ingest")["pending"] == 0
    assert (
        redis_client.hget(keyspace.wallet(shop.number), "posted")
        == str((5_000_000_000 - USAGE_NANO) // 1_000).encode()
    )
    sums_agree()
