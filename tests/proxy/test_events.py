"""Events are written in parts: together they must be what the contract says, field by field."""

import dataclasses
import json
from typing import Any

import msgspec

from proxy.events import (
    Outcome,
    OwnAttempt,
    base_json,
    build_event,
    event_json,
    event_members,
    fixed_members,
)
from proxy.plain_usage import read_plain, usage_as_read, written
from turnpike.contracts.usage import Attempt, EventBase, UsageEvent
from turnpike.kernel import codec

USAGE = {"input_tokens": 3, "output_tokens": 5, "cache_creation": {"ephemeral_5m_input_tokens": 0}}
FIXED = fixed_members(
    tenant=7,
    workspace=8,
    key=9,
    member='user_"quoted"',
    model="claude-x",
    requested_model="claude-y",
    price_set=4,
    discount_bp=250,
)
MEMBERS = event_members(FIXED, rid="r-1", started_at_us=1_000, is_stream=True)
OUTCOME = Outcome(
    rank=3,
    usage=USAGE,
    output_chars=20,
    http_status=200,
    stop_reason="end_turn",
    ttft_us=12,
    upstream_model="claude-x-1",
)
ATTEMPT = Attempt(n=1, upstream=2, credential=3, outcome="answered", usage=USAGE)
EVENT = UsageEvent(
    rid="r-1",
    rank=3,
    status="reported",
    tenant=7,
    workspace=8,
    key=9,
    model="claude-x",
    upstream_model="claude-x-1",
    price_set=4,
    started_at_us=1_000,
    finished_at_us=2_000,
    hold_micro=77,
    usage=USAGE,
    member='user_"quoted"',
    stream=True,
    discount_bp=250,
    requested_model="claude-y",
    ttft_us=12,
    http_status=200,
    stop_reason="end_turn",
    output_chars=20,
    attempts=(ATTEMPT,),
)


def test_the_parts_of_an_event_are_the_whole_event() -> None:
    text = event_json(
        MEMBERS,
        OUTCOME,
        upstream_model="claude-x-0",
        attempts=[ATTEMPT],
        hold_micro=77,
        finished_at_us=2_000,
    )

    assert codec.from_json(UsageEvent, text) == EVENT
    assert json.loads(text).keys() == {field.name for field in dataclasses.fields(UsageEvent)}
    assert b"\n" not in text


def test_usage_as_it_came_is_written_as_it_came() -> None:
    raw = msgspec.Raw(json.dumps(USAGE).encode())  # with spaces, as some upstreams write it
    usage = usage_as_read(raw, read_plain(raw))
    outcome = msgspec.structs.replace(OUTCOME, usage=usage)
    values: dict[str, Any] = {
        field.name: getattr(ATTEMPT, field.name) for field in dataclasses.fields(Attempt)
    }

    text = event_json(
        MEMBERS,
        outcome,
        upstream_model="claude-x-0",
        attempts=[OwnAttempt(**{**values, "usage": written(usage)})],
        hold_micro=77,
        finished_at_us=2_000,
    )

    assert codec.from_json(UsageEvent, text) == EVENT
    assert text.count(bytes(raw)) == 2


def test_an_attempt_of_this_worker_says_what_the_contract_says() -> None:
    own, known = OwnAttempt(n=1, upstream=2), Attempt(n=1, upstream=2)

    assert json.loads(msgspec.json.encode(own)) == json.loads(codec.to_json(known))


def test_the_base_of_an_admission_makes_the_same_event_for_whoever_ends_it() -> None:
    text = base_json(MEMBERS, upstream_model="claude-x-0", max_tokens=100)
    base = codec.from_json(EventBase, text)

    event = build_event(base, OUTCOME, attempts=[ATTEMPT], hold_micro=77, finished_at_us=2_000)

    assert event == EVENT
    assert json.loads(text).keys() == {field.name for field in dataclasses.fields(EventBase)}


def test_an_event_never_ends_before_it_began() -> None:
    base = codec.from_json(
        EventBase, base_json(MEMBERS, upstream_model="claude-x-0", max_tokens=100)
    )

    event = build_event(base, Outcome(), attempts=[], hold_micro=0, finished_at_us=5)

    assert (event.finished_at_us, event.upstream_model) == (1_000, "claude-x-0")
