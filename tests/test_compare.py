"""dpose.compare: intervals that cover the truth with few seeds, differences that are paired."""

import numpy as np
import pytest
from scipy import stats

from dpose.compare import Difference, paired_difference

SIZES = {  # standard deviations of simulated errors, mm
    "seed": 2.0,  # of a network's mean error
    "person": 30.0,  # how hard a person is, for both variants
    "scene": 15.0,  # the same of a scene
    "noise": 25.0,  # of a person's error between networks of one variant
    "effect": 6.0,  # of what the variant does to a person, and to a scene, in every network
}


def two_arms(rng, seeds, scenes=100, difference=0.0, each=2, **sizes):
    """Errors of people in scenes under two variants whose means truly differ by `difference`."""
    size, n = SIZES | sizes, scenes * each
    key = np.array([f"000-test-{scene:07d}-{person}" for scene in range(scenes) for person in range(each)])
    base = 100 + np.repeat(rng.normal(0, size["scene"], scenes), each) + rng.normal(0, size["person"], n)
    variants = []
    for shift in (difference, 0.0):
        effect = np.repeat(rng.normal(0, size["effect"], scenes), each) + rng.normal(0, size["effect"], n)
        variant = {}
        for seed in range(seeds):
            noise = rng.normal(0, size["noise"], n) + rng.normal(0, size["seed"])
            variant[seed] = {"key": key, "mpjpe": base + effect + noise + shift}
        variants.append(variant)
    return variants


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(
    "sizes", [{}, {"seed": 0.5}, {"effect": 20.0}], ids=["usual", "equal seeds", "unequal people"]
)
def test_an_interval_of_95_percent_covers_zero_in_95_percent_of_null_experiments(seeds, sizes):
    rng, draws = np.random.default_rng(seeds), 700
    found = [paired_difference(*two_arms(rng, seeds, **sizes), "mpjpe", 200).found for _ in range(draws)]
    error = 2 * (0.95 * 0.05 / draws) ** 0.5  # of a coverage counted in so many draws
    assert 0.93 - error < 1 - np.mean(found) < 0.97 + error


def test_percentiles_of_the_two_way_bootstrap_are_too_narrow_for_three_seeds():
    """What the module does not do, resampling seeds and scenes by loops (Owen 2007)."""
    rng, draws, covered = np.random.default_rng(0), 150, 0
    for _ in range(draws):
        first, second = two_arms(rng, 3, 40, seed=6.0)
        matrix = np.stack([first[seed]["mpjpe"] - second[seed]["mpjpe"] for seed in range(3)])
        matrix = matrix.reshape(3, 40, 2).mean(2)  # seed, scene
        means = []
        for _ in range(200):
            means.append(matrix[rng.integers(3, size=3)][:, rng.integers(40, size=40)].mean())
        low, high = np.percentile(means, [2.5, 97.5])
        covered += low <= 0 <= high
    assert covered / draws < 0.88


def test_a_difference_of_the_detectable_size_is_found_in_80_percent_of_experiments():
    rng = np.random.default_rng(1)
    for seeds in (3, 5):
        usual = [paired_difference(*two_arms(rng, seeds), "mpjpe", 200).detectable for _ in range(100)]
        size = np.sqrt(np.mean(np.square(usual)))
        variants = (two_arms(rng, seeds, difference=size) for _ in range(400))
        found = [paired_difference(*pair, "mpjpe", 200) for pair in variants]
        assert 0.7 < np.mean([one.found for one in found]) < 0.9
        assert np.mean([one.mean for one in found]) == pytest.approx(size, abs=0.5)


def test_the_standard_error_is_that_of_many_experiments():
    """Crossed effects: seeds, and what a variant does to people and scenes in every network."""
    rng, pairs = np.random.default_rng(2), []
    for _ in range(300):
        pairs.append(paired_difference(*two_arms(rng, 4, effect=10.0), "mpjpe", 200))
    true = np.std([one.mean for one in pairs])
    assert np.sqrt(np.mean([one.error**2 for one in pairs])) == pytest.approx(true, rel=0.12)
    seed, noise = 2 * 2.0**2 / 4, 2 * 25.0**2 / (4 * 200)
    people = 2 * (10.0**2 / 100 + 10.0**2 / 200)
    assert true == pytest.approx(np.sqrt(seed + noise + people), rel=0.12)


def test_with_equal_effects_on_people_it_is_student_s_interval_of_the_seeds():
    rng = np.random.default_rng(3)
    first, second = two_arms(rng, 5, effect=0.0, noise=0.0)
    found = paired_difference(first, second, "mpjpe")
    by_seed = [first[seed]["mpjpe"].mean() - second[seed]["mpjpe"].mean() for seed in range(5)]
    expected = stats.t.interval(0.95, 4, np.mean(by_seed), stats.sem(by_seed))
    assert found.interval == pytest.approx(expected) and list(found.by_seed.values()) == pytest.approx(
        by_seed
    )
    power = stats.t.ppf(0.975, 4) + stats.t.ppf(0.8, 4)
    assert found.detectable == pytest.approx(power * stats.sem(by_seed))
    assert (found.people, found.clusters) == (200, 100)


def test_seeds_that_agree_by_chance_do_not_make_it_narrower_than_other_people_would():
    rng = np.random.default_rng(4)
    first, second = two_arms(rng, 2, scenes=200, each=1)
    shift = np.diff([np.mean(first[seed]["mpjpe"] - second[seed]["mpjpe"]) for seed in (0, 1)])
    first[1]["mpjpe"] = first[1]["mpjpe"] - shift  # both seeds have the same mean difference
    found = paired_difference(first, second, "mpjpe")
    each = np.mean([first[seed]["mpjpe"] - second[seed]["mpjpe"] for seed in (0, 1)], 0)  # (N,)
    alone = stats.t.ppf(0.975, 199) * each.std(ddof=1) / 200**0.5
    assert np.diff(found.interval) / 2 > 0.9 * alone and found.error > 0.9 * each.std() / 200**0.5


def test_only_common_seeds_count_each_with_its_own():
    first, second = two_arms(np.random.default_rng(4), 5)
    shuffled = {seed: second[seed] for seed in (3, 1, 4)}
    found = paired_difference(first, shuffled, "mpjpe")
    assert list(found.by_seed) == [1, 3, 4]
    assert found.by_seed[3] == pytest.approx(np.mean(first[3]["mpjpe"] - second[3]["mpjpe"]))
    backwards = paired_difference(shuffled, first, "mpjpe")
    assert backwards.mean == pytest.approx(-found.mean) and backwards.found == found.found
    assert backwards.interval == pytest.approx((-found.interval[1], -found.interval[0]))


def test_depth_is_averaged_over_pixels_and_people_without_a_value_are_left_out():
    key = np.array([f"s{i}" for i in range(4)])
    pixels = np.array([1, 0, 2, 1])
    first = {"key": key, "depth_l1": np.array([0.4, 9, 0.1, 0.2]), "depth_pixels": pixels}
    first["parts_miou"] = np.array([0.5, np.nan, 0.3, 0.1])
    second = first | {"depth_l1": np.zeros(4), "parts_miou": np.array([0.1, 0.1, 0.1, 0.1])}
    variants = dict.fromkeys(range(2), first), dict.fromkeys(range(2), second)
    found = paired_difference(*variants, "depth_l1")
    assert (found.mean, found.people) == (pytest.approx((0.4 + 2 * 0.1 + 0.2) / 4), 3)
    assert paired_difference(*variants, "parts_miou").mean == pytest.approx(0.2)


def test_people_are_paired_by_their_keys_in_whatever_order_they_were_measured():
    rng = np.random.default_rng(7)
    first, second = two_arms(rng, 3)
    order = rng.permutation(200)
    shuffled = {seed: {name: x[order] for name, x in people.items()} for seed, people in second.items()}
    expected = paired_difference(first, second, "mpjpe")
    found = paired_difference(first, shuffled, "mpjpe")
    assert found.interval == pytest.approx(expected.interval) and found.mean == pytest.approx(expected.mean)


def test_arms_that_cannot_be_paired_are_refused():
    first, second = two_arms(np.random.default_rng(5), 3)
    with pytest.raises(ValueError, match="two seeds"):
        paired_difference(first, {0: second[0], 7: second[1]}, "mpjpe")
    with pytest.raises(ValueError, match="depth_l1"):
        paired_difference(first, second, "depth_l1")
    other = {seed: {name: column[1:] for name, column in people.items()} for seed, people in second.items()}
    with pytest.raises(ValueError, match="different people"):
        paired_difference(first, other, "mpjpe")
    one_scene = {
        seed: {name: column[:2] for name, column in people.items()} for seed, people in first.items()
    }
    with pytest.raises(ValueError, match="clusters"):
        paired_difference(one_scene, one_scene, "mpjpe")


def test_equal_arms_differ_by_nothing():
    first, _ = two_arms(np.random.default_rng(6), 3)
    assert paired_difference(first, first, "mpjpe") == Difference(
        0.0, (0.0, 0.0), 0.0, 0.0, dict.fromkeys(range(3), 0.0), 200, 100
    )
