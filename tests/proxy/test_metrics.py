"""The metrics: exposition, cheapness of labels, and one answer for many workers."""

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.metrics import LABEL_SETS_MAX, Metrics, SharedMetrics
from proxy.plain_usage import read_plain, usage_as_read

Samples = dict[tuple[str, tuple[str, ...]], float]


def samples_of(text: bytes) -> Samples:
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_every_name_is_of_us_and_used_once() -> None:
    names = [metric.name for metric in Metrics().all]

    assert len(names) == len(set(names))
    assert all(name.startswith("turnpike_") for name in names)


def test_counters_and_gauges_are_exposed() -> None:
    metrics = Metrics()
    metrics.refusals.labels("credit").inc()
    metrics.refusals.labels("credit").inc(2)
    metrics.refusals.labels('a"b\\c\nd').inc()
    metrics.requests_open.inc()
    metrics.requests_open.inc()
    metrics.requests_open.dec()
    metrics.events_unconfirmed.set(7)

    samples = samples_of(metrics.render())

    assert samples["turnpike_refusals_total", ("credit",)] == 3
    assert samples["turnpike_refusals_total", ('a"b\\c\nd',)] == 1
    assert samples["turnpike_requests_open", ()] == 1
    assert samples["turnpike_events_unconfirmed", ()] == 7
    assert samples["turnpike_reaped_total", ()] == 0


def test_a_histogram_counts_into_cumulative_buckets() -> None:
    metrics = Metrics()
    for seconds in (0.0004, 0.0005, 0.0006, 0.3, 99.0):
        metrics.admit_seconds.observe(seconds)

    samples = samples_of(metrics.render())

    assert samples["turnpike_admit_seconds_bucket", ("0.0005",)] == 2
    assert samples["turnpike_admit_seconds_bucket", ("0.001",)] == 3
    assert samples["turnpike_admit_seconds_bucket", ("0.5",)] == 4
    assert samples["turnpike_admit_seconds_bucket", ("+Inf",)] == 5
    assert samples["turnpike_admit_seconds_count", ()] == 5
    assert samples["turnpike_admit_seconds_sum", ()] == pytest.approx(99.3015)


def test_labels_without_end_do_not_fill_the_memory() -> None:
    metrics = Metrics()

    for number in range(LABEL_SETS_MAX + 500):
        metrics.refusals.labels(f"reason {number}").inc()

    samples = samples_of(metrics.render())
    assert samples["turnpike_refusals_total", ("other",)] == 500
    assert len(metrics.refusals.values) == LABEL_SETS_MAX + 1


def test_an_event_is_counted_with_its_tokens() -> None:
    metrics = Metrics()
    metrics.note_end(
        3,
        model="claude-x",
        usage={"input_tokens": 21, "output_tokens": 14, "cache_read_input_tokens": None},
    )
    metrics.note_flags({"usage_missing"})

    samples = samples_of(metrics.render())
    assert samples["turnpike_events_total", ("reported",)] == 1
    assert samples["turnpike_tokens_total", ("claude-x", "input_tokens")] == 21
    assert samples["turnpike_tokens_total", ("claude-x", "output_tokens")] == 14
    assert samples["turnpike_usage_flags_total", ("usage_missing",)] == 1


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": 21, "output_tokens": 0},
        {
            "input_tokens": 1,
            "output_tokens": 2,
            "cache_creation_input_tokens": 3,
            "cache_read_input_tokens": 4,
            "cache_creation": {"ephemeral_1h_input_tokens": 3},
        },
        {"input_tokens": 1, "output_tokens": 2, "cache_creation_input_tokens": None},
    ],
)
def test_tokens_of_a_usage_kept_as_it_came_are_counted_as_those_of_a_decoded_one(
    usage: dict[str, Any],
) -> None:
    raw = msgspec.Raw(json.dumps(usage).encode())
    metrics = [Metrics(), Metrics()]

    metrics[0].note_end(3, "claude-x", usage)
    metrics[1].note_end(3, "claude-x", usage_as_read(raw, read_plain(raw)))

    assert metrics[0].tokens.values == metrics[1].tokens.values


def work_and_leave(folder: Path) -> None:
    """Another worker: counts something, writes it down, and ends without a goodbye."""
    metrics = Metrics()
    shared = SharedMetrics(metrics, folder)
    metrics.refusals.labels("credit").inc(5)
    metrics.admit_seconds.observe(0.003)
    metrics.requests_open.inc(3)
    shared.flush()
    os._exit(0)


def test_counters_of_workers_that_are_gone_are_kept_and_their_gauges_are_not(
    tmp_path: Path,
) -> None:
    metrics = Metrics()
    shared = SharedMetrics(metrics, tmp_path)
    metrics.refusals.labels("credit").inc()
    metrics.requests_open.inc()
    spawn = multiprocessing.get_context("spawn")
    for _ in range(2):
        process = spawn.Process(target=work_and_leave, args=(tmp_path,))
        process.start()
        process.join(30)
        assert process.exitcode == 0

    rendered = [samples_of(shared.render()) for _ in range(2)]

    for samples in rendered:
        assert samples["turnpike_refusals_total", ("credit",)] == 11
        assert samples["turnpike_admit_seconds_count", ()] == 2
        assert samples["turnpike_requests_open", ()] == 1
    assert sorted(path.name for path in tmp_path.glob("*.json")) == [
        f"{os.getpid()}.json",
        "ended.json",
    ]


def test_two_workers_that_live_are_added_up(tmp_path: Path) -> None:
    metrics = Metrics()
    shared = SharedMetrics(metrics, tmp_path)
    metrics.requests_open.inc(2)
    shared.flush()
    # The parent process lives as long as this test: its file stands for another worker's.
    (tmp_path / f"{os.getpid()}.json").replace(tmp_path / f"{os.getppid()}.json")

    assert samples_of(shared.render())["turnpike_requests_open", ()] == 4


def test_a_process_with_the_number_of_one_before_keeps_its_counters(tmp_path: Path) -> None:
    before = Metrics()
    before.refusals.labels("credit").inc(4)
    SharedMetrics(before, tmp_path).flush()

    after = Metrics()
    after.refusals.labels("credit").inc()
    samples = samples_of(SharedMetrics(after, tmp_path).render())

    assert samples["turnpike_refusals_total", ("credit",)] == 5


def test_a_damaged_or_foreign_file_is_passed_over(tmp_path: Path) -> None:
    metrics = Metrics()
    shared = SharedMetrics(metrics, tmp_path)
    metrics.refusals.labels("credit").inc()
    (tmp_path / f"{os.getppid()}.json").write_text('{"turnpike_refusals_total": [[["a","b"],[1]]]')
    (tmp_path / "ended.json").write_text('{"turnpike_refusals_total": [[["a","b"],[1]]]}')

    assert samples_of(shared.render())["turnpike_refusals_total", ("credit",)] == 1
