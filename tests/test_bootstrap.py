"""dpose.bootstrap: intervals that cover the truth for clustered samples, in memory that does not explode."""

import time
import tracemalloc

import numpy as np
import pytest

from dpose.bootstrap import ClusterBootstrap, cluster_of
from dpose.data.frames import sample_key


def test_a_prepared_sample_s_cluster_is_its_sequence():
    frames = [("seq_000001/seq_000001_0005.png", 7), ("seq_000001/seq_000001_0010.png", 123456)]
    other = sample_key("scene", "seq_000002/seq_000002_0005.png", 8)
    one, two = (cluster_of(sample_key("scene", *frame)) for frame in frames)
    assert one == two != cluster_of(other)
    assert one != cluster_of(sample_key("scene2", *frames[0]))


def test_people_of_one_scene_of_the_open_data_are_a_cluster():
    assert cluster_of("000-test-0000012-0") == cluster_of("000-test-0000012-11")
    assert cluster_of("000-test-0000012-0") != cluster_of("000-test-0000013-0")
    assert cluster_of("000-test-0000012-0") != cluster_of("001-test-0000012-0")


def test_a_key_without_parts_is_a_cluster_of_its_own():
    assert cluster_of("test0003") == "test0003" and cluster_of("000123") == "000123"


def clustered_keys(clusters, each):
    return [f"scene-seq{c}-f{i}-{i:06d}" for c in range(clusters) for i in range(each)]


def test_intervals_cover_the_truth_where_those_over_single_samples_do_not():
    """Values = 50 + an effect of the cluster + noise; the truth of each draw is 50."""
    rng, clusters, each, draws = np.random.default_rng(0), 40, 25, 400
    covered = {"clusters": 0, "samples": 0}
    single = [f"p{i}" for i in range(clusters * each)]
    for _ in range(draws):
        values = 50 + np.repeat(rng.normal(0, 5, clusters), each) + rng.normal(0, 5, clusters * each)
        for name, keys in (("clusters", clustered_keys(clusters, each)), ("samples", single)):
            bootstrap = ClusterBootstrap(keys, resamples=200, seed=int(rng.integers(2**31)))
            low, high = bootstrap.means({"x": values})["x"]["ci95"]
            covered[name] += low <= 50 <= high
    assert 0.91 < covered["clusters"] / draws < 0.98
    assert covered["samples"] / draws < 0.5


def test_over_single_samples_the_interval_is_the_normal_approximation_s():
    values = np.random.default_rng(2).normal(50, 10, 400)
    score = ClusterBootstrap([f"p{i}" for i in range(400)]).means({"x": values})["x"]
    half = 1.96 * values.std() / np.sqrt(400)
    assert score["mean"] == pytest.approx(values.mean(), abs=1e-3) and score["n"] == 400
    assert score["ci95"] == pytest.approx([values.mean() - half, values.mean() + half], abs=0.25)


def test_a_sum_over_resamples_is_that_of_whole_clusters_drawn_with_replacement():
    """Clusters of 1, 10 and 100 samples of the value 1: every sum is a + 10 b + 100 c with a + b + c = 3."""
    keys = [f"s-{c}-f-{i:06d}" for c, size in enumerate((1, 10, 100)) for i in range(size)]
    bootstrap = ClusterBootstrap(keys, resamples=2000)
    sums = bootstrap.sums(np.ones((111, 1)))[:, 0].astype(int)
    digits = np.array([[s % 10, s // 10 % 10, s // 100] for s in sums])
    assert (digits.sum(1) == 3).all() and len(np.unique(sums)) == 10
    assert digits.mean(0) == pytest.approx([1, 1, 1], abs=0.07)


def test_the_drawing_does_not_depend_on_how_much_is_drawn_at_once(monkeypatch):
    values = np.random.default_rng(0).normal(size=(60, 2))
    keys = clustered_keys(12, 5)
    whole = ClusterBootstrap(keys).sums(values)
    monkeypatch.setattr("dpose.bootstrap.DRAWN_AT_ONCE", 30)
    assert (ClusterBootstrap(keys).sums(values) == whole).all()


def test_a_weighted_mean_counts_samples_with_weight_only():
    score = ClusterBootstrap(["a", "b", "c"]).means(
        {"x": np.array([1.0, 3.0, 99.0]), "y": np.array([0.0, 0.0, 3.0])}, {"x": np.array([1, 3, 0])}
    )
    assert score["x"]["mean"] == 2.5 and score["x"]["n"] == 2 and score["x"]["ci95"] == [1, 3]
    assert score["y"]["mean"] == 1 and score["y"]["n"] == 3


def test_one_cluster_has_no_interval_and_no_samples_are_refused():
    bootstrap = ClusterBootstrap(clustered_keys(1, 5))
    assert bootstrap.means({"x": np.arange(5.0)})["x"] == {"mean": 2, "ci95": None, "n": 5}
    assert bootstrap.record["clusters"] == 1
    with pytest.raises(ValueError):
        ClusterBootstrap([])


@pytest.mark.parametrize("clusters", [2_000, 200_000])
def test_two_hundred_thousand_samples_take_seconds_and_little_memory(clusters):
    n = 200_000
    rng = np.random.default_rng(0)
    keys = clustered_keys(clusters, n // clusters)
    values = {str(i): rng.normal(50, 10, n).astype(np.float32) for i in range(5)}
    tracemalloc.start()
    begin = time.process_time()
    bootstrap = ClusterBootstrap(keys)
    scores = bootstrap.means(values)
    seconds, (_, peak) = time.process_time() - begin, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert scores["0"]["ci95"] == pytest.approx([50 - 0.044, 50 + 0.044], abs=0.02)
    assert peak < 200e6 and seconds < 20  # a matrix of resamples x samples would be 1.6 GB
