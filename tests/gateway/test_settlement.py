"""What a gateway keeps of a request until its event is posted."""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from proxy.journal import Journal, line_of
from proxy.limiter.limiter import Limiter
from proxy.limiter.limits import Spec, build_spec
from proxy.limiter.plans import make_plan
from proxy.redis_link import RedisLink
from proxy.settlement import Settlement
from turnpike.kernel import ids

CHARGES = {"t:requests": 300_000}
EVENT = b'{"rank":3}'


class Told:
    """A limiter that writes down what it is told, and answers when the test says so."""

    def __init__(self) -> None:
        self.reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.settled: list[tuple[bytes, Mapping[str, int], bytes]] = []

    def begin_settle(self, _spec: Spec, _charges: bytes, **_parts: Any) -> asyncio.Future[Any]:
        """Sent, and not answered yet."""
        return self.reply

    async def settle(
        self, spec: Spec, *, charges: Mapping[str, int], event: bytes, **_: Any
    ) -> None:
        """Sent and answered."""
        self.settled.append((spec.text, charges, event))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "worker", fsync="off")
    journal.open()
    yield journal
    journal.close()


def spec_of_request() -> Spec:
    plan = make_plan(tenant=7, buckets=(), slots=(), budgets=(), output_reserve_max=None)
    return build_spec(
        rid=str(ids.uuid7()),
        plan=plan,
        input_estimate=10,
        max_tokens=10,
        hold_micro=100,
        base=b'{"rid":"x"}',
        tenant_version=1,
        global_version=1,
        lease_ms=30_000,
        at_us=0,
    )


def settled_soon(journal: Journal, limiter: Told, spec: Spec) -> Settlement:
    """A settlement that has one request under way."""
    settlement = Settlement(
        limiter=cast(Limiter, limiter),
        pipe=cast(RedisLink, None),
        journal=journal,
        resend_seconds=60,
    )
    admitted = line_of("A", spec.rid, b'"base":%b,"spec":%b' % (spec.base, spec.text))
    ended = settlement.write_down(
        spec,
        event=EVENT,
        rank=3,
        charges=CHARGES,
        amount_micro=50,
        admitted_at=journal.append(spec.rid, admitted),
    )
    settlement.settle_soon(ended)
    return settlement


async def test_what_redis_has_taken_is_sent_again_as_the_journal_has_it(journal: Journal) -> None:
    limiter, spec = Told(), spec_of_request()
    settlement = settled_soon(journal, limiter, spec)
    limiter.reply.set_result([1, b"settled"])
    await settlement.finish()

    await settlement.resend_all()

    assert limiter.settled == [(spec.text, CHARGES, EVENT)]


async def test_what_redis_has_taken_is_not_kept_beside_the_journal(
    journal: Journal, tmp_path: Path
) -> None:
    limiter, spec = Told(), spec_of_request()
    settlement = settled_soon(journal, limiter, spec)
    limiter.reply.set_result([1, b"settled"])
    await settlement.finish()
    next((tmp_path / "worker").glob("*.log")).write_bytes(b"")

    await settlement.resend_all()

    assert (limiter.settled, settlement.unconfirmed) == ([], 1)


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_what_redis_may_not_have_taken_is_kept(
    is_cancelled: bool, journal: Journal, tmp_path: Path
) -> None:
    limiter, spec = Told(), spec_of_request()
    settlement = settled_soon(journal, limiter, spec)
    if is_cancelled:
        limiter.reply.cancel()
    else:
        limiter.reply.set_exception(TimeoutError())
    await settlement.finish()
    next((tmp_path / "worker").glob("*.log")).write_bytes(b"")

    await settlement.resend_all()

    assert limiter.settled == [(spec.text, CHARGES, EVENT)]
