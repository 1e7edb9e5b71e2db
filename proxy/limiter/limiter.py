"""Limiter.admit(): all of a request's limits, and its money, in one round trip."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from proxy.limiter.fallback import LocalLimiter
from proxy.limiter.limits import Spec
from proxy.limiter.scripts import ADMIT, BEAT, SETTLE
from proxy.redis_link import RedisLink
from proxy.redis_pipe import UNKNOWN_SCRIPT, RedisAway, RedisReplyError
from turnpike.contracts.snapshots import TenantTerms

ADMIT_ATTEMPTS = 2
GRANTED, REFUSED, KNOWN = 1, 0, 2
# Redis is there and takes no more writes: memory is full, or its replicas are gone.
FULL_CODES = frozenset(("OOM", "NOREPLICAS"))

REASON_POLICY = "policy"
REASON_COLD = "cold"  # the shard is not published yet, or behind its fence
REASON_WALLET = "wallet"  # the tenant's wallet is not published: add it to the cold tenants
REASON_BUDGETS = "budgets"  # the same for its budgets
REASON_AWAY = "away"  # Redis is away, and the fallback does not admit this
REASON_FULL = "full"  # Redis takes no more writes: nothing is admitted, what runs still ends
STATE_OPEN = "open"

_FALLBACK_REASONS = frozenset((REASON_AWAY, REASON_COLD))
_encode = msgspec.json.Encoder().encode


class Admission(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What admission answered. `reason`: "ok", a word above, or kind and name, `rate:t:tokens`."""

    code: int
    reason: str
    now_us: int = 0
    wait_us: int = 0
    available_micro: int | None = None
    epoch: str = ""
    remaining_us: tuple[int, ...] = ()  # one for each bucket of the spec; empty: not known
    is_local: bool = False  # granted by this worker alone while Redis is away

    @property
    def is_granted(self) -> bool:
        """Whether the request may run; a repeated question about a running one is granted too."""
        return self.code == GRANTED or (self.code == KNOWN and self.reason == STATE_OPEN)

    @property
    def is_known(self) -> bool:
        """Whether the request had a record already; `reason` is its state."""
        return self.code == KNOWN

    @property
    def is_policy_stale(self) -> bool:
        """Whether the snapshots behind the spec are older than the policy in force."""
        return self.code == REFUSED and self.reason == REASON_POLICY

    @property
    def is_cold(self) -> bool:
        """Whether the control plane has yet to publish what the answer depends on."""
        return self.code == REFUSED and self.reason in {REASON_COLD, REASON_WALLET, REASON_BUDGETS}

    @property
    def is_tenant_cold(self) -> bool:
        """Whether it is this tenant's wallet or budgets alone that are missing."""
        return self.code == REFUSED and self.reason in {REASON_WALLET, REASON_BUDGETS}


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """`state` other than "open": someone else ended the request; stop it."""

    state: str
    hold_micro: int = 0  # the hold in force
    tenant_version: int | None = None
    epoch: str = ""
    is_adopted: bool = False

    @property
    def is_open(self) -> bool:
        """Whether the request still runs."""
        return self.state == STATE_OPEN


class Settled(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """`is_appended`: this call put the event into the stream."""

    state: str
    is_appended: bool


AWAY = Admission(code=REFUSED, reason=REASON_AWAY)
FULL = Admission(code=REFUSED, reason=REASON_FULL)
LOCALLY_GRANTED = Admission(code=GRANTED, reason="local", is_local=True)


class Limiter:
    """Asks Redis; while Redis is away, the worker's own fallback for those who qualify."""

    def __init__(
        self,
        pipe: RedisLink,
        *,
        fallback: LocalLimiter | None = None,
        timeout_seconds: float = 0.05,
        write_timeout_seconds: float = 2.0,
        now_us: Callable[[], int] | None = None,
    ) -> None:
        self._pipe = pipe
        self._fallback = fallback
        self._timeout_seconds = timeout_seconds
        self._write_timeout_seconds = write_timeout_seconds
        self._now = _no_time if now_us is None else lambda: b"%d" % now_us()

    async def admit(self, spec: Spec, terms: TenantTerms | None = None) -> Admission:
        """Take all that the spec asks for, or nothing. Never raises because Redis is in trouble.

        Open or closed, by ADR 0005: without Redis, or before it knows the policy, tenants in good
        standing get a small share from the fallback if `terms` are given; all others are refused.
        """
        try:
            reply = await self._pipe.call(
                spec.plan.admission,
                spec.rid,
                (self._now(), spec.text, spec.base),
                self._timeout_seconds,
            )
        except (RedisAway, RedisReplyError) as error:
            admission = await self._ask_again(spec, error)
        else:
            admission = _admission(reply)
        if self._fallback is None:
            return admission
        if admission.reason not in _FALLBACK_REASONS:
            if self._fallback.shares:
                self._fallback.note_answer(spec.tenant)
            return admission
        if terms is not None and self._fallback.admit(spec, terms):
            return LOCALLY_GRANTED
        return admission

    async def beat(
        self,
        spec: Spec,
        *,
        charges: Mapping[str, int],
        hold_micro: int | None = None,
        progress: bytes | None = None,
    ) -> Beat:
        """Say that a request lives, what it has used, and what hold it needs now.

        Charges are absolute. The hold is raised only as far as credit and budgets reach; the answer
        has what is in force: keep it with `Spec.with_hold`. Raises RedisAway.
        """
        update = _encode({"charges": charges, "hold": hold_micro})
        keys = _open_keys(spec)
        args = (self._now(), spec.text, update, progress or b"", spec.base)
        try:
            reply = await self._pipe.run_script(
                BEAT, keys, args, timeout_seconds=self._write_timeout_seconds
            )
        except RedisReplyError as error:
            raise _as_away(error) from error
        if self._fallback is not None:
            self._fallback.forget(spec)
        if reply[0] != GRANTED:
            return Beat(state=reply[1].decode())
        return Beat(
            state=STATE_OPEN,
            hold_micro=int(reply[2]),
            tenant_version=int(reply[3]) if reply[3] else None,
            epoch=reply[4].decode(),
            is_adopted=reply[1] == b"adopted",
        )

    async def settle(
        self, spec: Spec, *, charges: Mapping[str, int], hold_micro: int, event: bytes, rank: int
    ) -> Settled:
        """End a request: `hold_micro` is the amount that the event is worth, rounded up.

        Once, however often it is called; a higher rank appends its event as well. Raises RedisAway.
        """
        fallback = self._fallback
        if fallback is not None and not fallback.shares:
            fallback = None
        if fallback is not None:
            fallback.settle(spec, amount_micro=hold_micro)
        update = _encode({"charges": charges, "hold": hold_micro, "rank": rank})
        try:
            reply = await self._pipe.run_script(
                SETTLE,
                spec.plan.settlement.keys(spec.rid),
                (self._now(), spec.text, update, event),
                timeout_seconds=self._write_timeout_seconds,
            )
        except RedisReplyError as error:
            raise _as_away(error) from error
        if fallback is not None:
            fallback.forget(spec)
        return Settled(state=reply[1].decode(), is_appended=reply[0] == GRANTED)

    def begin_settle(
        self, spec: Spec, charges: bytes, *, hold_micro: int, event: bytes, rank: int
    ) -> asyncio.Future[Any] | None:
        """The same, sent at once for a caller that need not wait: its future is done with it.

        The charges are JSON already. None, or a future that fails: nothing is known to be done, and
        `settle` does it. Raises RedisAway.
        """
        # Most of the time nobody runs without Redis, and the fallback need not be told.
        if self._fallback is not None and self._fallback.shares:
            return None
        update = b'{"charges":%b,"hold":%d,"rank":%d}' % (charges, hold_micro, rank)
        return self._pipe.call(
            spec.plan.settlement,
            spec.rid,
            (self._now(), spec.text, update, event),
            self._write_timeout_seconds,
        )

    async def _ask_again(self, spec: Spec, error: Exception) -> Admission:
        """Admission after a first call that failed: a record that it made answers again."""
        keys, args = _open_keys(spec), (self._now(), spec.text, spec.base)
        attempts = ADMIT_ATTEMPTS - 1
        if isinstance(error, RedisReplyError) and error.code == UNKNOWN_SCRIPT:
            attempts = ADMIT_ATTEMPTS
        elif isinstance(error, RedisReplyError):
            return _full(error)
        for _ in range(attempts):
            try:
                reply = await self._pipe.run_script(
                    ADMIT, keys, args, timeout_seconds=self._timeout_seconds
                )
            except RedisAway:
                continue
            except RedisReplyError as refusal:
                return _full(refusal)
            return _admission(reply)
        return AWAY


def _full(error: RedisReplyError) -> Admission:
    """What a server is that takes no more writes; any other refusal is a mistake, and raised."""
    if error.code not in FULL_CODES:
        raise error
    return FULL


def _as_away(error: RedisReplyError) -> Exception:
    """A server that is full is as good as away; any other refusal is a mistake."""
    if error.code not in FULL_CODES:
        return error
    return RedisAway(f"Redis does not take writes: {error.code}.")


def _open_keys(spec: Spec) -> tuple[str, ...]:
    names = spec.plan.keys
    return (*names.before_record, names.record_prefix + spec.rid, *names.after_open_record)


def _admission(reply: list[Any]) -> Admission:
    code, reason, now, wait, available, epoch, left = reply
    return Admission(
        code=code,
        reason=reason.decode(),
        now_us=now,
        wait_us=wait,
        available_micro=None if available == b"" else available,
        epoch=epoch.decode(),
        remaining_us=tuple(left),
    )


def _no_time() -> bytes:
    """Scripts take the server's own."""
    return b""
