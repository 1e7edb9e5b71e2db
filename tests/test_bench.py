"""What `make bench` says of a run: ratios within a round, and nothing of a run that broke."""

import sys
from pathlib import Path

import pytest

from bench import __main__ as bench
from bench.processes import free_ports, running

ROUNDS = 3


def samples(*, ours: list[float], nginx: list[float]) -> dict[tuple[str, str], list[float]]:
    """Costs of three rounds: these for a small request, and always the same for all else."""
    costs = {
        (who, name): [10.0] * ROUNDS
        for who in (bench.OURS, bench.NGINX)
        for name in ("json_100kb", "sse_short")
    }
    chunks = bench.LONG_CHUNKS - bench.SHORT_CHUNKS
    costs[bench.OURS, "sse_long"] = [10.0 + 50 * chunks] * ROUNDS
    costs[bench.NGINX, "sse_long"] = [10.0 + 20 * chunks] * ROUNDS
    costs[bench.OURS, "json_1kb"] = ours
    costs[bench.NGINX, "json_1kb"] = nginx
    costs[f"valkey for {bench.OURS}", "json_1kb"] = [70.0] * ROUNDS
    return costs


def test_a_ratio_is_the_median_of_those_within_each_round() -> None:
    result = bench._summary(samples(ours=[100.0, 300.0, 140.0], nginx=[20.0, 50.0, 20.0]))
    assert result["ratios"]["json_1kb"] == pytest.approx(6.0)  # of 5, 6 and 7
    assert result["cpu_us"]["turnpike"]["json_1kb"] == 140.0
    assert result["ratios"]["sse_chunk"] == pytest.approx(2.5)
    assert result["is_within_limits"] is True
    assert "6.0" in bench.table(result)


def test_a_ratio_beyond_its_limit_is_said_to_be_so() -> None:
    beyond = (bench.LIMITS["json_1kb"] + 0.1) * 20
    result = bench._summary(samples(ours=[beyond] * ROUNDS, nginx=[20.0] * ROUNDS))
    assert result["is_within_limits"] is False


def test_a_helper_that_ends_in_mid_run_breaks_the_run(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('out of work')"]
    log = tmp_path / "log"
    with (
        pytest.raises(RuntimeError, match="ended too early:\nout of work"),
        running(command, is_ready=lambda: True, log=log) as process,
    ):
        process.wait(timeout=30)


def test_a_helper_that_never_starts_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such server')"]
    with (
        pytest.raises(RuntimeError, match="no such server"),
        running(command, is_ready=lambda: False, log=tmp_path / "log"),
    ):
        pytest.fail("It must not be taken for ready.")


def test_ports_are_all_different() -> None:
    assert len(set(free_ports(20))) == 20
