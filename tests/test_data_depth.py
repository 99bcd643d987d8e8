"""The depth target in closed form."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from dpose.data.targets import DEPTH_RULES, PERSON_DEPTH_REACH, depth_target, person_pixels

TENTH = np.float32(0.1)
CENTIMETRES = st.integers(0, 200)  # whole numbers of them, so that sums and products below are exact


@st.composite
def people(draw) -> np.ndarray:
    """Depth in centimetres of a person between 5 and 7 m, or 0, float64."""
    depth = draw(arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=8), elements=CENTIMETRES))
    seen = draw(arrays(bool, depth.shape))
    return np.where(seen, 500 + depth, 0)


def test_the_nearest_point_is_a_tenth_the_farthest_one_and_the_background_zero():
    depth = np.array([[0, 2.0], [3.0, 6.0]]) / 2
    np.testing.assert_allclose(depth_target(depth), [[0, 0.1], [0.1 + 0.9 / 4, 1]], rtol=1e-6)


def test_distance_and_units_do_not_matter_to_the_target_of_somebody_within_reach():
    rng = np.random.default_rng(0)
    depth = rng.uniform(1, 2, (8, 8)) * (rng.random((8, 8)) > 0.5)
    moved = np.where(depth > 0, 2 * depth + 70, 0)
    np.testing.assert_allclose(depth_target(depth), depth_target(moved), atol=1e-6)


@given(people(), CENTIMETRES, st.sampled_from([0.5, 1.0, 1.2]))
def test_a_target_is_in_range_keeps_the_order_and_forgets_place_and_size(centimetres, shift, stretch):
    person = centimetres > 0
    target = depth_target(centimetres / 100)
    assert target.dtype == np.float32 and ((target > 0) == person).all()
    if person.any():
        assert target[person].min() == TENTH and (target[person] <= 1).all()
        assert target.max() == (1 if np.ptp(centimetres[person]) else TENTH)
    order = np.argsort(centimetres[person], kind="stable")
    assert (np.diff(target[person][order]) >= 0).all()
    moved = np.where(person, stretch * centimetres + shift, 0) / 100
    np.testing.assert_allclose(depth_target(moved), target, atol=1e-6)


@given(people(), st.sampled_from([np.inf, -np.inf, np.nan, -1.0, 1e5, 1e8, float(np.finfo(np.float32).max)]))
def test_what_leaks_into_the_mask_changes_no_pixel_of_the_person(centimetres, leaked):
    depth = (centimetres / 100).astype(np.float32)
    person = depth > 0
    target = depth_target(depth)
    beside = np.full((depth.shape[0], 1), leaked, np.float32)[: max(person.sum() // 2, 1)]
    beside = np.pad(beside, ((0, depth.shape[0] - len(beside)), (0, 0)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = depth_target(np.concatenate([depth, beside], 1))
    if person.any():
        assert (found[:, :-1] == target).all() and (found[:, -1] == 0).all()
    assert np.isfinite(found).all()


def test_a_sky_pixel_presses_nobody_flat_and_counts_as_background():
    depth = np.array([[2.0, 2.5, 3.0, 3.0e5]], np.float32)
    np.testing.assert_allclose(depth_target(depth), [[0.1, 0.55, 1, 0]], atol=1e-6)
    assert person_pixels(depth).tolist() == [[True, True, True, False]]


def test_clean_depth_gives_the_same_bits_as_the_bare_formula():
    rng = np.random.default_rng(3)
    depth = rng.normal(4, 0.3, (56, 56)).astype(np.float32)
    depth[rng.random(depth.shape) > 0.3] = 0
    values = depth[depth > 0]
    expected = np.zeros_like(depth)
    expected[depth > 0] = 0.1 + 0.9 * ((values - values.min()) / (values.max() - values.min()))
    assert (depth_target(depth) == expected.clip(0, 1)).all()


def test_reach_is_counted_from_the_lower_median():
    assert person_pixels(np.array([[2.0, 9e7]])).tolist() == [[True, False]]
    depth = 5 + np.array([[-PERSON_DEPTH_REACH, 0, 0, PERSON_DEPTH_REACH, PERSON_DEPTH_REACH + 0.01]])
    assert person_pixels(depth).tolist() == [[True, True, True, True, False]]


def test_only_the_mask_and_finite_positive_depth_count():
    depth = np.array([[np.nan, np.inf, -1.0], [2.0, 4.0, 50.0]])
    mask = np.array([[1, 1, 1], [1, 1, 0]], bool)
    np.testing.assert_allclose(depth_target(depth, mask), [[0, 0, 0], [0.1, 1, 0]], rtol=1e-6)


@pytest.mark.parametrize("value", [2.5, 1e-30, 1e8, float(np.finfo(np.float32).max)])
def test_a_flat_person_is_all_near_and_nobody_is_all_background(value):
    assert (depth_target(np.full((3, 3), value, np.float32)) == TENTH).all()
    assert (depth_target(np.zeros((3, 3)), np.ones((3, 3), bool)) == 0).all()
    assert (depth_target(np.full((3, 3), value), np.zeros((3, 3), bool)) == 0).all()
    assert (depth_target(np.full((3, 3), np.nan)) == 0).all()


def test_the_released_rule_clips_at_percentiles_and_leaves_a_background():
    values = np.linspace(2, 4, 101)
    target = depth_target(np.concatenate([[0], values])[None], rule="released")[0]
    near, far = 2.1, 3.9
    expected = np.clip(0.1 + 0.9 * (np.concatenate([[0], values]) - near) / (far - near), 0, 1)
    np.testing.assert_allclose(target, expected, atol=1e-5)
    assert target[0] == 0 and (target[1:] < 0.1).any()


def test_the_released_rule_is_left_as_it_is_with_far_pixels_clipped():
    values = np.append(np.linspace(2, 4, 100), 1e6)
    target = depth_target(values[None], rule="released")[0]
    near, far = np.percentile(values, [5, 95])
    np.testing.assert_allclose(target, np.clip(0.1 + 0.9 * (values - near) / (far - near), 0, 1), atol=1e-6)
    assert target[-1] == 1
    assert (depth_target(np.full((2, 2), 3.0), rule="released") == 0).all()


@pytest.mark.parametrize("rule", DEPTH_RULES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float16, 2e-3), (np.float32, 1e-6), (np.float64, 1e-7)])
def test_half_and_double_precision_give_the_target_of_single_up_to_rounding(rule, dtype, tolerance):
    depth = np.random.default_rng(0).uniform(2, 3, (9, 9))
    depth[3:5] = 0
    target = depth_target(depth.astype(dtype), rule=rule)
    assert target.dtype == np.float32
    np.testing.assert_allclose(target, depth_target(depth, rule=rule), atol=tolerance)


def test_whole_numbers_are_refused_for_they_cannot_be_metres():
    with pytest.raises(TypeError, match="uint16"):
        depth_target(np.full((2, 2), 2500, np.uint16))


def test_an_unknown_rule_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="paper, released"):
        depth_target(np.zeros((2, 2)), rule="median")
