"""Workloads: which keys they ask for, what they count, what they log, and how they judge."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.workload.acklog import AckLog, LoggedWrite, read_ack_log
from keyplane.workload.config import Distribution, WorkloadConfig
from keyplane.workload.items import WriteName, digest_of, make_item, name_of
from keyplane.workload.keys import chooser
from keyplane.workload.recorder import OK, Latencies, Recorder
from keyplane.workload.samples import Sample, SampleLog, read_samples
from keyplane.workload.verdict import KeyHistory, Verdict, histories


def draw(config: WorkloadConfig, count: int) -> Counter[int]:
    choose, rng = chooser(config), random.Random(config.seed)
    return Counter(choose(rng) for _ in range(count))


@pytest.mark.parametrize("distribution", list(Distribution))
def test_every_distribution_stays_within_its_keys_and_repeats_with_its_seed(
    distribution: Distribution,
) -> None:
    config = WorkloadConfig("t", keys=10, distribution=distribution)
    drawn = draw(config, 2_000)
    assert set(drawn) == set(range(10))
    assert drawn == draw(config, 2_000)


def test_zipf_asks_for_key_n_with_a_probability_proportional_to_its_rank() -> None:
    config = WorkloadConfig("t", keys=100, distribution=Distribution.ZIPF, zipf_exponent=1.0)
    drawn = draw(config, 50_000)
    harmonic = sum(1 / n for n in range(1, 101))
    for rank in (1, 2, 10):
        assert drawn[rank - 1] == pytest.approx(50_000 / rank / harmonic, rel=0.15)


def test_a_hot_key_gets_its_share_and_its_part_of_the_rest() -> None:
    config = WorkloadConfig("t", keys=100, distribution=Distribution.HOT_KEY, hot_share=0.8)
    assert draw(config, 20_000)[0] == pytest.approx(20_000 * 0.802, rel=0.03)


@given(st.lists(st.floats(min_value=2e-6, max_value=100), min_size=1, max_size=200))
def test_a_percentile_is_the_exact_one_or_up_to_one_percent_more(latencies: list[float]) -> None:
    histogram = Latencies()
    for latency in latencies:
        histogram.add(latency)
    ranked = sorted(latencies)
    for percent in (50, 99, 99.9, 100):
        exact = ranked[max(0, -(-len(ranked) * percent // 100).__int__() - 1)]
        assert exact * 0.999 <= histogram.percentile_s(percent) <= exact * 1.011
    assert histogram.max_s == ranked[-1]


def test_there_are_no_percentiles_of_nothing() -> None:
    assert Latencies().percentile_s(99) == 0.0


def test_failures_are_counted_by_reason_and_kept_out_of_the_latencies() -> None:
    recorder = Recorder(now=0.0)
    recorder.record(is_read=True, latency_s=0.001, outcome=OK)
    recorder.record(is_read=False, latency_s=5.0, outcome="DEADLINE_EXCEEDED")
    recent = recorder.since_last(now=1.0)
    assert (recent.requests, recent.failed) == (2, 1)
    assert recorder.since_last(now=2.0).requests == 0
    whole = recorder.summary(now=2.0)
    assert (whole.reads, whole.writes, whole.failed) == (1, 1, 1)
    assert whole.errors == {"DEADLINE_EXCEEDED": 1}
    assert whole.max_ms == 1.0
    assert whole.throughput_per_s == 0.5


def logged(sequence: int, version: int | None, key: str = "k") -> LoggedWrite:
    name = WriteName("w", sequence)
    return LoggedWrite("t", key, name, version, digest_of(make_item("id", key, name, 100)))


def test_an_ack_log_reads_back_what_was_written_by_several_runs(tmp_path: Path) -> None:
    path = tmp_path / "acks.jsonl"
    writes = [logged(1, 1), logged(2, None)]
    for write in writes:
        log = AckLog(path)
        log.append(write)
        # Not closed: what it has taken must be in the file already.
    assert list(read_ack_log(path)) == writes


def test_a_line_cut_short_by_a_crash_is_left_out_and_any_other_bad_line_is_refused(
    tmp_path: Path,
) -> None:
    path = tmp_path / "acks.jsonl"
    log = AckLog(path)
    log.append(logged(1, 1))
    whole = path.read_text()
    path.write_text(whole + whole[:20])
    assert list(read_ack_log(path)) == [logged(1, 1)]
    path.write_text(whole[:20] + "\n" + whole)
    with pytest.raises(KeyplaneError, match="line 1") as caught:
        list(read_ack_log(path))
    assert caught.value.reason is Reason.CORRUPT


def test_samples_read_back(tmp_path: Path) -> None:
    path = tmp_path / "samples.csv"
    log = SampleLog(path)
    log.append(1730000000.25, 0.0015, is_read=True, outcome=OK)
    log.append(1730000001.5, 5.0, is_read=False, outcome="OVERLOADED")
    log.close()
    assert list(read_samples(path)) == [
        Sample(1730000000.25, 1.5, True, OK),
        Sample(1730000001.5, 5000.0, False, "OVERLOADED"),
    ]


def test_an_item_names_its_write_and_its_payload_has_the_size_asked_for() -> None:
    item = make_item("id", "k", WriteName("w", 7), 1_000)
    assert len(item["data"]) == 1_000
    assert name_of(item) == WriteName("w", 7)
    assert name_of({"id": "k"}) is None


def judge(writes: list[LoggedWrite], found: tuple[int, int] | None) -> Verdict:
    """found: sequence and version of the item that is there now."""
    history = KeyHistory()
    for write in writes:
        history.add(write)
    if found is None:
        return history.judge(None, 0)
    sequence, version = found
    return history.judge(make_item("id", "k", WriteName("w", sequence), 100), version)


def test_verdicts() -> None:
    """The last acknowledged write must be there, or a later one that was attempted."""
    acked = [logged(1, 1), logged(2, 2)]
    assert judge(acked, (2, 2)) is Verdict.KEPT
    assert judge(acked, None) is Verdict.LOST
    assert judge(acked, (1, 1)) is Verdict.LOST
    assert judge(acked, (1, 2)) is Verdict.LOST
    # A write whose answer never came.
    assert judge([*acked, logged(3, None)], (3, 3)) is Verdict.LATER
    assert judge([*acked, logged(3, None)], (2, 2)) is Verdict.KEPT
    # An acknowledged write cannot be there again under a later version.
    assert judge(acked, (1, 3)) is Verdict.APPLIED_TWICE
    # Nothing was promised.
    assert judge([logged(1, None)], None) is Verdict.LATER


def test_the_last_write_is_the_one_with_the_highest_version_not_the_last_in_the_log() -> None:
    """Two writes under way at once may be answered in either order."""
    assert judge([logged(2, 2), logged(1, 1)], (2, 2)) is Verdict.KEPT
    assert judge([logged(2, 2), logged(1, 1)], (1, 1)) is Verdict.LOST


def test_other_bytes_under_the_right_name_and_version_are_a_loss() -> None:
    write = logged(1, 1)
    history = histories([write])["t", "k"]
    item = make_item("id", "k", write.name, 100)
    assert history.judge(item, 1) is Verdict.KEPT
    assert history.judge(item | {"data": "something else"}, 1) is Verdict.LOST
    assert history.judge({"id": "k"}, 1) is Verdict.LOST
