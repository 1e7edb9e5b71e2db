"""The judge of storms: silent when all is well, and never when a promise is broken."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.storm.client import Seen
from tests.storm.oracle import OBSERVED, PRICED, REPORTED, Charged, compare
from turnpike.kernel import clock, ids

RID = ids.uuid7()
BEGAN = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
ENDED = BEGAN + timedelta(seconds=2)
KILLED_AT_US = clock.us_of_datetime(BEGAN) + 1_000_000
USAGE = {"input_tokens": 9, "output_tokens": 40}
TOKENS = {**dict.fromkeys(PRICED.values(), 0), **USAGE}
# Three and fifteen dollars a million.
AMOUNT = 9 * 3_000 + 40 * 15_000
EVENT = Charged(
    rid=RID,
    model="claude-sonnet-4-5-20250929",
    rank=REPORTED,
    revisions=1,
    status="reported",
    hold_micro=5_000,
    started_at=BEGAN,
    finished_at=ENDED,
    tokens=TOKENS,
    amount_nano=AMOUNT,
    waived_nano=0,
)
ROW = {"turnpike_request_id": ids.public_id(ids.REQUEST, RID), "usage": USAGE}
ANSWER = Seen(
    tenant="big",
    is_stream=True,
    started_at_us=clock.us_of_datetime(BEGAN),
    ended_at_us=clock.us_of_datetime(ENDED),
    status=200,
    request_id=ids.public_id(ids.REQUEST, RID),
    characters=160,
    usage=dict(USAGE),
    is_complete=True,
)
CUT = replace(ANSWER, is_complete=False, is_left=True, characters=100)
BROKEN = replace(CUT, is_left=False, characters=0, broke="reset", usage={})
FREE = replace(EVENT, rank=OBSERVED, tokens=dict.fromkeys(PRICED.values(), 0), amount_nano=0)


def observed(output: int) -> Charged:
    """The event of a stream that was cut."""
    amount = 9 * 3_000 + output * 15_000
    tokens = {**TOKENS, "output_tokens": output}
    return replace(EVENT, rank=OBSERVED, tokens=tokens, amount_nano=amount)


def problems(
    event: Charged | None, row: Any, answer: Seen, *, is_unknown: bool = False, kills: int = 0
) -> list[str]:
    verdict = compare(
        charged=[event] if event else [],
        billed=[row] if row else [],
        unknown={RID} if is_unknown else set(),
        seen=[answer],
        killed_at_us=[KILLED_AT_US] * kills,
    )
    return verdict.problems


def test_a_judge_has_nothing_to_say_where_all_is_well() -> None:
    assert problems(EVENT, ROW, ANSWER) == []
    assert problems(observed(30), ROW, CUT) == []
    assert problems(FREE, ROW, BROKEN, is_unknown=True, kills=1) == []
    assert problems(None, None, replace(BROKEN, broke="", request_id="", status=529)) == []


@pytest.mark.parametrize(
    ("event", "row", "answer", "word"),
    [
        (None, ROW, CUT, "lost"),
        (None, None, ANSWER, "not charged"),
        (EVENT, None, CUT, "never billed"),
        (observed(24), ROW, CUT, "not between"),
        (observed(41), ROW, CUT, "not between"),
        (replace(EVENT, amount_nano=AMOUNT - 1), ROW, ANSWER, "its tokens cost"),
        (replace(EVENT, hold_micro=1), ROW, ANSWER, "more than was held"),
        (replace(EVENT, waived_nano=1), ROW, ANSWER, "waived"),
        (observed(39), ROW, ANSWER, "answered"),
        (EVENT, {**ROW, "usage": {**USAGE, "input_tokens": 8}}, CUT, "billed"),
        (observed(30), {**ROW, "usage": {**USAGE, "input_tokens": 8}}, CUT, "differ"),
        (observed(30), ROW, replace(CUT, broke="reset"), "no worker was killed"),
        (None, None, replace(BROKEN, broke="", status=401), "without a reason"),
    ],
)
def test_a_judge_names_a_broken_promise(
    event: Charged | None, row: Any, answer: Seen, word: str
) -> None:
    found = problems(event, row, answer)

    assert any(word in problem for problem in found), found


def test_unknown_is_excused_by_nothing_but_a_killed_worker() -> None:
    assert "no worker was killed while it ran" in str(
        problems(FREE, ROW, replace(BROKEN, broke=""), is_unknown=True)
    )
    assert "its client saw an answer" in str(
        problems(FREE, ROW, replace(BROKEN, characters=4), is_unknown=True, kills=1)
    )


def test_a_connection_may_break_unnoticed_only_while_a_worker_that_died_had_it() -> None:
    asked_us = KILLED_AT_US + 5_000_000
    lost = replace(BROKEN, status=0, request_id="", started_at_us=asked_us, ended_at_us=asked_us)

    assert problems(None, None, replace(lost, idle_since_us=KILLED_AT_US - 1), kills=1) == []
    assert "no worker was killed" in str(
        problems(None, None, replace(lost, idle_since_us=KILLED_AT_US + 2_000_000), kills=1)
    )


def test_what_was_billed_twice_is_named() -> None:
    verdict = compare(
        charged=[EVENT], billed=[ROW, ROW], unknown=(), seen=[ANSWER], killed_at_us=[]
    )

    assert "twice" in verdict.problems[0]
