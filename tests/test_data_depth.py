"""The depth target in closed form."""

import numpy as np
import pytest

from dpose.data.depth import depth_target


def test_the_nearest_point_is_a_tenth_the_farthest_one_and_the_background_zero():
    depth = np.array([[0, 2.0], [3.0, 6.0]])
    np.testing.assert_allclose(depth_target(depth), [[0, 0.1], [0.1 + 0.9 / 4, 1]], rtol=1e-6)


def test_distance_and_units_do_not_matter_to_the_target():
    rng = np.random.default_rng(0)
    depth = rng.uniform(1, 2, (8, 8)) * (rng.random((8, 8)) > 0.5)
    moved = np.where(depth > 0, 100 * depth + 7, 0)
    np.testing.assert_allclose(depth_target(depth), depth_target(moved), atol=1e-6)


def test_only_the_mask_and_finite_positive_depth_count():
    depth = np.array([[np.nan, np.inf, -1.0], [2.0, 4.0, 50.0]])
    mask = np.array([[1, 1, 1], [1, 1, 0]], bool)
    np.testing.assert_allclose(depth_target(depth, mask), [[0, 0, 0], [0.1, 1, 0]], rtol=1e-6)


def test_a_flat_person_is_all_near_and_nobody_is_all_background():
    assert (depth_target(np.full((3, 3), 2.5)) == np.float32(0.1)).all()
    assert (depth_target(np.zeros((3, 3))) == 0).all()


def test_the_released_rule_clips_at_percentiles_and_leaves_a_background():
    values = np.linspace(2, 4, 101)
    target = depth_target(np.concatenate([[0], values])[None], rule="released")[0]
    near, far = 2.1, 3.9
    expected = np.clip(0.1 + 0.9 * (np.concatenate([[0], values]) - near) / (far - near), 0, 1)
    np.testing.assert_allclose(target, expected, atol=1e-5)
    assert target[0] == 0 and (target[1:] < 0.1).any()


def test_an_unknown_rule_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="paper, released"):
        depth_target(np.zeros((2, 2)), rule="median")
