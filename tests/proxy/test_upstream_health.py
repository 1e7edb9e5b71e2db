"""The breaker of an upstream and the rest of its credentials, on a clock that the test moves."""

from typing import Any

import pytest

from proxy.upstreams.health import (
    COOLING_MS_MAX,
    FAILURES_IN_ROW_MAX,
    OPEN_MS_MAX,
    OPEN_MS_MIN,
    PROBATION_MS,
    WINDOW_FAILURES_MIN,
    WINDOW_MS,
    HealthBoard,
)
from turnpike.contracts.snapshots import CredentialSnapshot, UpstreamSnapshot

UPSTREAM = UpstreamSnapshot(
    upstream=1,
    name="one",
    kind="anthropic",
    base_url="http://127.0.0.1:1",
    credentials=(CredentialSnapshot(credential=5, sealed=""),),
)


class Clock:
    """Milliseconds that the test moves."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def board(clock: Clock) -> HealthBoard:
    """A board over it."""
    return HealthBoard(now_ms=clock)


def is_usable(board: HealthBoard) -> bool:
    return board.usable_credentials(UPSTREAM) != ()


def fail(board: HealthBoard, times: int = FAILURES_IN_ROW_MAX) -> None:
    for _ in range(times):
        board.note_failure(1)


def test_it_opens_after_failures_in_a_row_and_a_success_between_starts_over(
    board: HealthBoard,
) -> None:
    fail(board, FAILURES_IN_ROW_MAX - 1)
    board.note_good(1)
    fail(board, FAILURES_IN_ROW_MAX - 1)
    assert is_usable(board)

    fail(board, 1)

    assert not is_usable(board)


def test_it_opens_when_half_of_the_answers_break_off(board: HealthBoard) -> None:
    for _ in range(WINDOW_FAILURES_MIN):
        assert is_usable(board)
        board.note_good(1)
        board.note_failure(1)

    assert not is_usable(board)


def test_failures_of_long_ago_do_not_count(board: HealthBoard, clock: Clock) -> None:
    for _ in range(3 * WINDOW_FAILURES_MIN):
        board.note_good(1)
        board.note_failure(1)
        clock.now_ms += WINDOW_MS

    assert is_usable(board)


def test_one_request_tries_it_when_its_time_is_over(board: HealthBoard, clock: Clock) -> None:
    fail(board)
    clock.now_ms += OPEN_MS_MIN

    assert is_usable(board)
    is_trial = board.begin(1)
    assert is_trial
    assert not is_usable(board)
    board.end(1, is_trial=is_trial)  # it told nothing: its client left
    assert is_usable(board)

    board.note_good(1)

    assert not board.begin(1)
    assert is_usable(board)


def test_each_failed_trial_doubles_the_time_up_to_the_longest(
    board: HealthBoard, clock: Clock
) -> None:
    fail(board)
    periods = []
    for _ in range(8):
        periods.append(board.peer(1).open_until_ms - clock.now_ms)
        clock.now_ms = board.peer(1).open_until_ms
        board.note_failure(1)

    assert 0.8 * OPEN_MS_MIN <= periods[0] <= OPEN_MS_MIN
    assert 0.8 * 2 * OPEN_MS_MIN <= periods[1] <= 2 * OPEN_MS_MIN
    assert 0.8 * OPEN_MS_MAX <= min(periods[5:]) <= max(periods) <= OPEN_MS_MAX


def test_late_failures_of_what_ran_before_do_not_prolong_it(
    board: HealthBoard, clock: Clock
) -> None:
    fail(board)
    until_ms = board.peer(1).open_until_ms
    clock.now_ms += 10

    fail(board, 50)

    assert board.peer(1).open_until_ms == until_ms


def test_a_check_that_finds_the_dead_alive_lets_requests_try_at_once(board: HealthBoard) -> None:
    fail(board)
    board.note_dead(1)
    assert not is_usable(board)

    board.note_alive(1)

    assert is_usable(board)
    assert board.peer(1).is_open


def test_checks_say_nothing_of_an_upstream_that_fails_in_its_answers(board: HealthBoard) -> None:
    fail(board)

    board.note_alive(1)

    assert not is_usable(board)


def test_the_first_failure_after_it_was_well_again_opens_it_for_longer(
    board: HealthBoard, clock: Clock
) -> None:
    fail(board)
    clock.now_ms += OPEN_MS_MIN
    board.note_good(1)

    board.note_failure(1)

    assert board.peer(1).open_until_ms - clock.now_ms > 0.8 * 2 * OPEN_MS_MIN - 1
    clock.now_ms += 2 * OPEN_MS_MIN
    board.note_good(1)
    clock.now_ms += PROBATION_MS
    board.note_failure(1)
    assert is_usable(board)
    fail(board)
    assert board.peer(1).open_until_ms - clock.now_ms <= OPEN_MS_MIN


def test_checks_that_find_it_dead_keep_requests_away(board: HealthBoard, clock: Clock) -> None:
    fail(board)
    for _ in range(5):
        clock.now_ms += OPEN_MS_MIN // 2
        board.note_dead(1)
        assert not is_usable(board)


def test_two_failed_checks_of_an_idle_upstream_open_it(board: HealthBoard) -> None:
    board.note_dead(1)
    assert is_usable(board)

    board.note_dead(1)

    assert not is_usable(board)


def test_a_credential_rests_as_long_as_it_was_told_and_no_longer_than_the_bound(
    board: HealthBoard, clock: Clock
) -> None:
    board.note_cooling(1, 5, seconds=7)
    clock.now_ms += 6_999
    assert not is_usable(board)
    clock.now_ms += 1
    assert is_usable(board)

    board.note_cooling(1, 5, seconds=86_400)
    clock.now_ms += COOLING_MS_MAX

    assert is_usable(board)


def test_what_one_worker_finds_out_the_others_know(board: HealthBoard, clock: Clock) -> None:
    other = HealthBoard(now_ms=clock)
    fail(board)
    board.note_cooling(1, 5, seconds=30)
    changes = board.take_changes()

    other.learn(1, changes[1])

    assert not is_usable(other)
    assert other.peer(1).cooling == {5: clock.now_ms + 30_000}
    assert (board.take_changes(), other.take_changes()) == ({}, {})
    clock.now_ms += 30_000
    other.note_good(1)
    board.learn(1, other.take_changes()[1])
    assert is_usable(board)


def test_older_news_changes_nothing(board: HealthBoard, clock: Clock) -> None:
    fail(board)
    old = board.take_changes()[1]
    clock.now_ms += OPEN_MS_MIN
    board.note_good(1)

    board.learn(1, old)

    assert is_usable(board)


def test_changes_that_could_not_be_told_are_told_later(board: HealthBoard) -> None:
    fail(board)
    changes = board.take_changes()

    board.give_back(changes)

    assert board.take_changes() == changes


@pytest.mark.parametrize(
    "fields",
    [
        {"breaker": ""},
        {"breaker": "1:2:3"},
        {"breaker": "1:x:1:9"},
        {"c:": "5"},
        {"c:x": "99999999999999"},
        {"c:5": "later"},
        {"c:5": "-1"},
        {"": ""},
    ],
)
def test_nonsense_from_elsewhere_is_left_out(board: HealthBoard, fields: Any) -> None:
    board.learn(1, fields)

    assert is_usable(board)


def test_a_clock_ahead_elsewhere_is_bounded_here(board: HealthBoard, clock: Clock) -> None:
    board.learn(1, {"breaker": f"1:{clock.now_ms * 9}:99:{clock.now_ms}", "c:5": str(10**15)})

    clock.now_ms += COOLING_MS_MAX

    assert is_usable(board)


def test_what_is_no_more_is_forgotten_once_nothing_runs_there(
    board: HealthBoard, clock: Clock
) -> None:
    fail(board)
    board.begin(2)

    board.forget_others([])

    assert is_usable(board)
    assert board.peer(2).in_flight == 1


@pytest.mark.parametrize("is_one_whole", [False, True])
def test_it_opens_when_answers_begin_and_break_off_one_after_the_other(
    board: HealthBoard, clock: Clock, *, is_one_whole: bool
) -> None:
    for number in range(FAILURES_IN_ROW_MAX):
        board.note_good(1)
        if is_one_whole and number == 2:
            board.end(1, is_trial=False, is_whole=True)
        board.note_broken_off(1)
        # So seldom that no window ever sees enough of them.
        clock.now_ms += WINDOW_MS

    assert board.peer(1).is_open == (not is_one_whole)
