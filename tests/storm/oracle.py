"""Compares what the simulator billed with what was charged, request by request.

The simulator knows nothing of us, the clients wrote down what they saw, PostgreSQL has the events:
three records that were kept apart. Every sentence of a storm's promise is one check here.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from tests.storm.client import Seen
from tests.support.cluster import Cluster
from tests.support.servers import ROOT
from turnpike.kernel import clock, ids

CHARACTERS_PER_TOKEN = 4
MICROS_PER_DOLLAR = 1_000_000
NANOS_PER_MICRO = 1_000
# Names of the catalogue's prices and of the columns that they price.
PRICED = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cache_write_5m": "cache_write_5m_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
    "cache_read": "cache_read_tokens",
}
INPUTS = tuple(name for name in PRICED.values() if name != "output_tokens")
REPORTED, OBSERVED, ESTIMATED = 3, 2, 1

# Between the note that a worker is killed and its death.
KILLING_US = 1_000_000
# What was ordered of the upstream, or is in a tenant's name, by the status that it explains.
EARNED = {
    400: ("status=400",),
    402: ("small",),
    429: ("budget", "small", "tight"),
    500: ("status=500", "drop", "cut_after_events=0"),
}

_EVENTS = f"""
SELECT request_id, (array_agg(model ORDER BY revision DESC))[1], max(rank), count(*),
  (array_agg(status ORDER BY revision DESC))[1], max(hold_micro), min(started_at),
  max(finished_at), {", ".join(f"sum({name})::bigint" for name in PRICED.values())},
  sum(amount_nano)::bigint, sum(waived_nano)::bigint
FROM billing_usage_event GROUP BY request_id
"""
_ATTEMPTS = "SELECT request_id, outcome, is_billed FROM billing_upstream_attempt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Charged:
    """All revisions of one request, summed up."""

    rid: UUID
    model: str
    rank: int
    revisions: int
    status: str
    hold_micro: int
    started_at: datetime
    finished_at: datetime
    tokens: Mapping[str, int]
    amount_nano: int
    waived_nano: int


@dataclass(slots=True)
class Verdict:
    """What was found: the broken promises, and the figures of the storm."""

    problems: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def blame(self, rid: UUID | str, text: str) -> None:
        """A promise was broken for a request."""
        self.problems.append(f"{rid}: {text}")


def judge(cluster: Cluster, *, seen: Sequence[Seen], killed_at_us: Sequence[int]) -> Verdict:
    """Check every request that anybody knows of."""
    return compare(
        charged=read_charged(cluster),
        billed=cluster.billed(),
        unknown={row[0] for row in cluster.rows(_ATTEMPTS) if row[1] == "unknown"},
        seen=seen,
        killed_at_us=killed_at_us,
    )


def compare(
    *,
    charged: Sequence[Charged],
    billed: Sequence[Mapping[str, Any]],
    unknown: Collection[UUID],
    seen: Sequence[Seen],
    killed_at_us: Sequence[int],
) -> Verdict:
    """Check events, the simulator's rows and the clients' notes against one another."""
    verdict = Verdict()
    events = {event.rid: event for event in charged}
    rows = _by_request(billed, verdict)
    answers = {
        ids.parse_public_id(ids.REQUEST, item.request_id): item for item in seen if item.request_id
    }
    prices = read_prices()
    for rid in sorted(events.keys() | rows.keys()):
        event, row, answer = events.get(rid), rows.get(rid), answers.get(rid)
        if event is None:
            verdict.blame(rid, f"billed by the simulator and lost: {row}")
            continue
        _check_price(event, prices, verdict)
        is_unknown = rid in unknown and not event.amount_nano
        if row is not None and is_unknown:
            verdict.counts["unknown, billed upstream"] += 1
            _check_unknown(event, answer, killed_at_us, verdict)
        else:
            _check_tokens(event, row, answer, verdict)
    _check_clients(seen, answers, events, killed_at_us, verdict)
    _count(verdict, seen=seen, charged=charged, billed=len(rows), unknown=len(unknown))
    return verdict


def read_charged(cluster: Cluster) -> list[Charged]:
    """Every request's events, summed up."""
    return [
        Charged(
            rid=row[0],
            model=row[1],
            rank=row[2],
            revisions=row[3],
            status=row[4],
            hold_micro=row[5],
            started_at=row[6],
            finished_at=row[7],
            tokens=dict(zip(PRICED.values(), row[8 : 8 + len(PRICED)], strict=True)),
            amount_nano=row[-2],
            waived_nano=row[-1],
        )
        for row in cluster.rows(_EVENTS)
    ]


def read_prices() -> dict[str, dict[str, int]]:
    """Nanos a token by model and column, from the catalogue that people read."""
    catalogue = json.loads((ROOT / "billing" / "catalog" / "catalog.json").read_text())
    return {
        model["id"]: {
            # Dollars a million tokens are micros a token; three decimals more are nanos.
            column: round(float(model["prices"][-1][name]) * NANOS_PER_MICRO)
            for name, column in PRICED.items()
        }
        for model in catalogue["models"]
    }


def tokens_of(row: Mapping[str, Any]) -> dict[str, int]:
    """The columns of an event, from the simulator's usage."""
    usage = row["usage"]
    written = usage.get("cache_creation") or {}
    return {
        "input_tokens": usage["input_tokens"],
        "output_tokens": usage["output_tokens"],
        "cache_write_5m_tokens": written.get("ephemeral_5m_input_tokens", 0),
        "cache_write_1h_tokens": written.get("ephemeral_1h_input_tokens", 0),
        "cache_read_tokens": usage.get("cache_read_input_tokens", 0),
    }


def _by_request(
    billed: Iterable[Mapping[str, Any]], verdict: Verdict
) -> dict[UUID, Mapping[str, Any]]:
    found: dict[UUID, Mapping[str, Any]] = {}
    for row in billed:
        rid = ids.parse_public_id(ids.REQUEST, row["turnpike_request_id"])
        if rid in found:
            verdict.blame(rid, f"billed by the simulator twice: {found[rid]} and {row}")
        found[rid] = row
    return found


def _check_price(event: Charged, prices: Mapping[str, Mapping[str, int]], verdict: Verdict) -> None:
    worth = sum(count * prices[event.model][name] for name, count in event.tokens.items())
    if event.amount_nano != worth:
        verdict.blame(event.rid, f"charged {event.amount_nano}, its tokens cost {worth}: {event}")
    if event.amount_nano > event.hold_micro * NANOS_PER_MICRO:
        verdict.blame(event.rid, f"charged more than was held: {event}")
    if event.waived_nano:
        verdict.blame(event.rid, f"waived {event.waived_nano}: {event}")


def _check_tokens(
    event: Charged, row: Mapping[str, Any] | None, answer: Seen | None, verdict: Verdict
) -> None:
    if row is None:
        if event.amount_nano:
            verdict.blame(event.rid, f"charged and never billed: {event}")
        return
    billed = tokens_of(row)
    if event.rank == REPORTED:
        if dict(event.tokens) != billed:
            verdict.blame(event.rid, f"charged {event}, billed {billed}")
        return
    wrong = [name for name in INPUTS if event.tokens[name] != billed[name]]
    if wrong:
        verdict.blame(event.rid, f"{wrong} differ: charged {event}, billed {billed}")
    least = -(-answer.characters // CHARACTERS_PER_TOKEN) if answer is not None else 0
    output = event.tokens["output_tokens"]
    if not least <= output <= billed["output_tokens"]:
        verdict.blame(
            event.rid,
            f"output {output} is not between {least} seen and {billed['output_tokens']} written:"
            f" {event} {answer}",
        )
    verdict.counts["cut streams"] += 1
    verdict.counts["output tokens written after a cut"] += billed["output_tokens"] - output


def _check_unknown(
    event: Charged, answer: Seen | None, killed_at_us: Iterable[int], verdict: Verdict
) -> None:
    began, ended = (clock.us_of_datetime(at) for at in (event.started_at, event.finished_at))
    if not any(began <= at <= ended for at in killed_at_us):
        verdict.blame(event.rid, f"unknown, and no worker was killed while it ran: {event}")
    if answer is not None and (answer.is_complete or answer.characters):
        verdict.blame(event.rid, f"unknown, and its client saw an answer: {event} {answer}")


def _check_clients(
    seen: Iterable[Seen],
    answers: Mapping[UUID, Seen],
    charged: Mapping[UUID, Charged],
    killed_at_us: Sequence[int],
    verdict: Verdict,
) -> None:
    for rid, answer in answers.items():
        if answer.is_answered:
            _check_answer(answer, charged.get(rid), rid, verdict)
    for item in seen:
        _check_manners(item, killed_at_us, verdict)


def _check_answer(answer: Seen, event: Charged | None, rid: UUID, verdict: Verdict) -> None:
    if event is None:
        verdict.blame(rid, f"answered and not charged: {answer}")
    elif event.tokens != tokens_of({"usage": answer.usage}):
        verdict.blame(rid, f"charged {event}, answered {answer}")


def _check_manners(seen: Seen, killed_at_us: Iterable[int], verdict: Verdict) -> None:
    """What clients may see of a storm: nothing but refusals that were earned, and dead workers."""
    if seen.broke:
        # A worker that died before it answered has a connection to lose, idle or not.
        since = seen.started_at_us if seen.status else seen.idle_since_us - KILLING_US
        if not any(since <= at <= seen.ended_at_us for at in killed_at_us):
            verdict.blame(seen.request_id, f"broken, and no worker was killed: {seen}")
    elif seen.status not in (200, 529) and not any(
        word in f"{seen.tenant}; {seen.orders}" for word in EARNED.get(seen.status, ())
    ):
        verdict.blame(seen.request_id, f"refused without a reason: {seen}")


def _count(
    verdict: Verdict,
    *,
    seen: Sequence[Seen],
    charged: Iterable[Charged],
    billed: int,
    unknown: int,
) -> None:
    counts = verdict.counts
    counts["requests"] = len(seen)
    counts["answered"] = sum(item.is_answered for item in seen)
    counts["left by the client"] = sum(item.is_left for item in seen)
    counts["connections broken"] = sum(bool(item.broke) for item in seen)
    for item in seen:
        if item.status != 200:
            counts[f"status {item.status or 'none'}"] += 1
    counts["billed by the simulator"] = billed
    counts["attempts unknown"] = unknown
    for event in charged:
        counts[f"events {event.status}"] += 1
        counts["revised"] += event.revisions > 1
        counts["charged nanos"] += event.amount_nano
