"""dpose.analysis against evaluation, numpy, scipy, and people and maps whose answers are known."""

import numpy as np
import pytest
import roma
import scipy.stats
import torch

from dpose import analysis, metrics
from dpose.body import load_body
from dpose.bootstrap import ClusterBootstrap
from dpose.camera import crop_affine
from dpose.config import preset
from dpose.data.loader import make_loader
from dpose.evaluate import measure
from dpose.model import checkpoint as checkpoints
from dpose.model.inference import to_device
from dpose.model.network import DPose
from dpose.skeleton import PART_NAMES

UPRIGHT = torch.diag(torch.tensor([1.0, -1, -1]))  # the root of a person who faces the camera


@pytest.fixture(scope="module")
def body():
    return load_body(vertex_stride=16)


@pytest.fixture(scope="module")
def network(trained):
    return checkpoints.load(trained.checkpoint)


def loader(people, batch_size=4):
    return make_loader(people, "test", preset("mini"), batch_size)


@pytest.fixture(scope="module")
def table(people, network, body):
    return analysis.examine(network, loader(people), body)


def single(n):
    """A bootstrap over n people, each a cluster of its own."""
    return ClusterBootstrap([f"p{i}" for i in range(n)])


# --- one pass -----------------------------------------------------------------------------------------------


def test_the_errors_of_each_person_are_those_that_evaluate_measures(people, network, body, table):
    measured = measure(network, loader(people, 7), body)
    assert table["key"] == measured["key"] and len(table["key"]) == 7
    for name, other in {"mpjpe": "mpjpe", "pa_mpjpe": "pa_mpjpe", "depth_error": "depth_l1"}.items():
        np.testing.assert_allclose(table[name], measured[other], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(table["orientation"], measured["orientation"], atol=0.05)
    with np.errstate(invalid="ignore"):
        iou = measured["intersection"][:, 1:] / measured["union"][:, 1:]
    np.testing.assert_allclose(1 - table["parts_error"], np.nanmean(iou, 1), atol=2e-3)


def test_parts_are_read_where_they_are_visible(people, network, body):
    """Something hides the left half of everybody."""
    batch = next(iter(loader(people, 7)))
    batch["depth"][..., :32] = 0
    table = analysis.examine(network, [batch], body)
    batch = to_device(batch, "cpu")
    person = batch["depth"][:, 0] > 0
    assert table["depth_counts"].sum((1, 2)).tolist() == person.sum((1, 2)).tolist()
    assert table["reliability"][..., 0].sum((1, 2)).tolist() == [64 * 64] * 7
    assert (table["side"] - 200 * batch["scale"]).abs().max() < 1e-3
    assert (table["hidden"] > 0.2).all() and (table["hidden"] < 0.8).all()
    for i, part in ((0, 3), (4, 0), (6, 15)):
        shown = person[i] & (batch["parts"][i] == part + 1)
        assert table["visible"][i, part] == shown.sum() > 0
        mean = batch["depth"][i, 0][shown].mean().item()
        assert table["part_depth/true map"][i, part] == pytest.approx(mean, rel=1e-5)


def test_samples_bounds_the_people_and_the_batch_size_changes_nothing(people, network, body, table):
    first = analysis.examine(network, loader(people, 2), body, samples=3)
    assert first["key"] == table["key"][:3]
    for name in ("joints", "part_depth/map and parts", "azimuth", "reliability"):
        torch.testing.assert_close(first[name], table[name][:3], rtol=2e-3, atol=2e-3)


def test_people_without_depth_are_left_out(people, network, body, table):
    def batches():
        for batch in loader(people):
            batch["has_depth"][1] = False
            yield batch

    rest = analysis.examine(network, batches(), body)
    assert rest["key"] == [key for i, key in enumerate(table["key"]) if i not in (1, 5)]
    with pytest.raises(ValueError, match="depth"):
        analysis.examine(network, [], body)


def test_a_network_without_depth_is_refused_by_name(body):
    with pytest.raises(ValueError, match="mini-no-depth"):
        analysis.examine(DPose(preset("mini-no-depth")), [], body)


# --- circumstances ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("angle", [0, 40, 90, -135, 179])
@pytest.mark.parametrize("lying", [False, True])
def test_the_azimuth_is_the_angle_by_which_a_person_turned_from_the_camera(angle, lying):
    """A person who turns to the right by an angle has the camera at that angle to the left."""
    turn = roma.rotvec_to_rotmat(torch.tensor([0.0, -np.deg2rad(angle), 0]).float())
    tilt = roma.rotvec_to_rotmat(torch.tensor([0.0, 0, np.pi / 2]).float()) if lying else torch.eye(3)
    root, pelvis = tilt @ UPRIGHT @ turn, torch.tensor([0.0, 0, 4])
    away = roma.rotvec_to_rotmat(torch.tensor([0.2, 0.5, 0.1]))  # another view axis: the same geometry
    for r in (torch.eye(3), away):
        found = analysis.camera_azimuth((r @ root)[None], (r @ pelvis)[None])
        assert found.item() == pytest.approx(angle, abs=1e-3)


def test_the_camera_at_a_person_s_left_has_a_positive_azimuth():
    """A person who faces the left border of the image shows the left side."""
    root = torch.tensor([[0.0, 0, -1], [0, -1, 0], [-1, 0, 0]])  # columns: left, up and front of the body
    assert torch.linalg.det(root) == pytest.approx(1)
    found = analysis.camera_azimuth(root[None], torch.tensor([[0.0, 0, 3]]))
    assert found.item() == pytest.approx(90, abs=1e-3)


def test_pixels_outside_of_the_image_are_those_that_crop_affine_maps_there():
    center, scale, size = torch.tensor([[100.0, 30.0], [600, 460]]), torch.tensor([0.8, 1.7]), 16
    image = torch.tensor([[640.0, 480.0]]).expand(2, -1)
    found = analysis.map_pixels_inside(center, scale, image, size)
    matrix = crop_affine(center, scale, size).numpy().astype(np.float64)
    for b in range(2):
        for i in range(size):
            for j in range(size):
                x, y = np.linalg.solve(matrix[b, :, :2], np.array([j + 0.5, i + 0.5]) - matrix[b, :, 2])
                assert found[b, i, j] == (0 <= x < 640 and 0 <= y < 480)
    assert 0 < found[0].sum() < size**2


def test_the_hidden_share_counts_the_body_s_pixels_without_depth_inside_the_image():
    parts, depth = torch.zeros(2, 4, 4, dtype=torch.long), torch.zeros(2, 4, 4)
    parts[0, :, :2] = 5  # 8 pixels, of which 4 are in the image and 1 of these is hidden
    depth[0, :2, :2] = 0.5
    depth[0, 0, 0] = 0
    depth[0, 0, 3] = 0.5  # hair and clothes beside the body do not count
    inside = torch.ones(2, 4, 4, dtype=torch.bool)
    inside[0, 2:] = False
    assert analysis.hidden_share(parts, depth, inside).tolist() == [0.25, 0.0]


def test_a_joint_is_cut_off_by_the_image_by_the_box_or_behind_the_camera():
    joints = torch.full((1, 24, 3), 50.0)
    joints[0, 0, 0] = -1  # left of the image
    joints[0, 1, 1] = 100  # on its lower border
    joints[0, 2, 0] = 81  # outside of the box, which ends at 80
    joints[0, 3, 2] = 0  # not known
    joints[0, 22:] = 1e6  # hands of SMPL do not count
    center, scale, image = torch.tensor([[60.0, 60]]), torch.tensor([0.2]), torch.tensor([[100.0, 100]])
    assert analysis.outside_share(joints, center, scale, image).item() == pytest.approx(4 / 22)


# --- order of parts -----------------------------------------------------------------------------------------


def test_the_depth_of_a_part_is_the_mean_of_its_vertices(body):
    posed = body(torch.zeros(1, 11), torch.eye(3).expand(1, 22, 3, 3))
    found = analysis.part_depths(posed.vertices, body)[0]
    for part in (0, 7, 20):
        member = (body.part_of_vertex == part).numpy()
        assert found[part] == pytest.approx(posed.vertices[0, :, 2].numpy()[member].mean(), abs=1e-5)


def test_a_constructed_map_is_ordered_as_it_was_constructed():
    """Part k is a column of the map at depth k / 22: later parts are farther."""
    depth = torch.arange(22).repeat(22, 1)[None] / 22
    weights = torch.eye(22)[None, :, None].expand(1, 22, 22, 22)
    read = analysis.read_depth(depth, weights)
    torch.testing.assert_close(read[0], torch.arange(22) / 22)
    pairs = analysis.ALL_PAIRS
    assert analysis.differences(read).sign().tolist() == [[1.0 if b > a else -1.0 for a, b in pairs]]
    assert (PART_NAMES[pairs[0][0]], PART_NAMES[pairs[0][1]]) == ("left_wrist", "right_wrist")
    flipped = analysis.differences(analysis.read_depth(1 - depth, weights))
    torch.testing.assert_close(flipped, -analysis.differences(read))
    assert analysis.read_depth(depth, 0 * weights).isnan().all()


def test_the_share_of_pairs_counts_every_pair_once_and_ignores_the_unused():
    used = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
    right = torch.tensor([[1, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]]).bool()
    score = analysis.share_of_pairs(right, used, single(3))
    assert score["mean"] == 0.5 and score["n"] == 4
    assert analysis.share_of_pairs(right, used & False, single(3))["n"] == 0


def test_random_depths_are_ordered_rightly_by_chance():
    generator = torch.Generator().manual_seed(0)
    read, truth = torch.randn(2, 400, 22, generator=generator)
    right = analysis.differences(read).sign() == analysis.differences(truth).sign()
    score = analysis.share_of_pairs(right, torch.ones_like(right), single(400))
    assert score["ci95"][0] < 0.5 < score["ci95"][1] and score["ci95"][1] - score["ci95"][0] < 0.06


# --- inputs -------------------------------------------------------------------------------------------------


def test_joint_errors_average_to_the_metrics():
    joints, truth = torch.randn(2, 5, 24, 3, generator=torch.Generator().manual_seed(0)).double()
    errors, aligned = analysis.joint_errors(joints, truth)
    torch.testing.assert_close(errors.mean(1), metrics.mpjpe(joints, truth))
    torch.testing.assert_close(aligned.mean(1), metrics.pa_mpjpe(joints, truth))
    moved = truth.clone()
    moved[:, 9] += torch.tensor([0.03, 0, 0.04])
    assert analysis.joint_errors(moved, truth)[0][0].tolist() == pytest.approx([0.0] * 9 + [50] + [0] * 14)


def test_an_input_that_the_regressor_ignores_makes_no_difference(network, body, table):
    box = 15 * network.config.width + 6  # the first column of the box in each joint's input
    weight = network.regressor.pose_hidden.weight
    donor = torch.arange(7).roll(3)
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight[:, :, box : box + 3] = 0
        before, after = (
            analysis.regress(network.regressor, inputs, body, table["truth"])
            for inputs in (table["inputs"], analysis.exchange(table["inputs"], [1], donor))
        )
        other = analysis.regress(
            network.regressor, analysis.exchange(table["inputs"], [0], donor), body, table["truth"]
        )
    finally:
        with torch.no_grad():
            weight.copy_(kept)
    assert torch.equal(before["rotmats"], after["rotmats"])
    assert not torch.equal(before["rotmats"], other["rotmats"])


def test_exchanged_inputs_are_the_donor_s_or_the_mean(table):
    inputs, donor = table["inputs"], torch.tensor([2, 0, 1, 3, 4, 5, 6])
    attended, box, depth = analysis.exchange(inputs, [0, 2], donor)
    assert torch.equal(attended[0], inputs[0][2]) and torch.equal(depth[1], inputs[2][0])
    assert torch.equal(box, inputs[1])
    mean = analysis.exchange(inputs, [1])[1]
    assert mean.shape == (7, 3) and torch.equal(mean[0], mean[6])
    torch.testing.assert_close(mean[0], inputs[1].sum(0) / 7)
    assert [values.shape[0] for values in inputs] == [7, 7, 7]


def test_regressing_in_pieces_gives_the_same_and_what_examine_gave(network, body, table, monkeypatch):
    monkeypatch.setattr(analysis, "ROWS", 3)
    again = analysis.regress(network.regressor, table["inputs"], body, table["truth"])
    for name, values in again.items():
        torch.testing.assert_close(values, table[name], rtol=2e-3, atol=2e-3)


def test_the_distance_error_is_relative_to_the_true_distance(body, table):
    """The camera scale for twice the distance gives an error of 1."""
    truth = {name: values[:1] for name, values in table["truth"].items()}
    rotmats, betas = torch.eye(3).expand(1, 22, 3, 3), torch.zeros(1, 11)
    pelvis = body(betas, rotmats).joints[:, 0, 2]
    distance = truth["joints"][:, 0, 2] + truth["trans"][:, 2]
    for factor in (1.0, 2.0):
        s = 2 * truth["cam_int"][:, 0, 0] / (200 * truth["scale"] * (factor * distance - pelvis))
        cam = torch.stack([s, 0 * s, 0 * s], 1)
        found = analysis.regress(lambda cam: (rotmats, betas, cam), [cam], body, truth)
        assert found["distance"].item() == pytest.approx(factor - 1, abs=1e-4)


def test_turns_are_about_the_camera_s_axes():
    roots = torch.from_numpy(scipy.spatial.transform.Rotation.random(3, random_state=0).as_matrix()).float()
    vectors = torch.tensor([[0.3, 0, 0], [0, -1.1, 0], [0, 0, 0.2]])
    found = analysis.turns(roma.rotvec_to_rotmat(vectors) @ roots, roots)
    torch.testing.assert_close(found, vectors.abs().rad2deg(), atol=0.01, rtol=0)


# --- calibration --------------------------------------------------------------------------------------------


def drawn_labels(probabilities, seed=0):
    """Labels (B, pixels) that follow the probabilities (B, K, pixels)."""
    generator = torch.Generator().manual_seed(seed)
    flat = probabilities.movedim(1, 2).flatten(0, 1)
    return torch.multinomial(flat, 1, generator=generator).view(len(probabilities), -1)


def test_labels_that_follow_the_probabilities_have_no_calibration_error():
    logits = 2 * torch.randn(4, 5, 50_000, generator=torch.Generator().manual_seed(1))
    probabilities = logits.softmax(1)
    labels = drawn_labels(probabilities)
    honest = analysis.calibration_error(analysis.reliability(probabilities, labels).sum((0, 1)))
    sharper = (2 * logits).softmax(1)
    bold = analysis.calibration_error(analysis.reliability(sharper, labels).sum((0, 1)))
    expected = (sharper.amax(1) - probabilities.amax(1)).mean()  # confidence minus true chance of being right
    assert honest < 0.004
    assert bold == pytest.approx(expected.item(), abs=0.004) and expected > 0.1


def test_a_confidence_of_90_percent_that_is_right_in_60_has_an_error_of_30_percent():
    probabilities = torch.tensor([0.9, 0.05, 0.05])[None, :, None].expand(1, 3, 10)
    labels = torch.tensor([[0] * 6 + [1] * 3 + [2]])
    counts = analysis.reliability(probabilities, labels)
    assert analysis.calibration_error(counts[0, 0]).item() == pytest.approx(0.3)
    assert counts[0, 0].sum(0).tolist() == pytest.approx([10, 9, 6]) and counts[0, 1:].sum() == 0
    assert analysis.calibration_error(counts[0, 1]).isnan()


def test_unweighted_probabilities_are_those_of_an_unweighted_training():
    """Class weights f^-b bring the optimum of the cross-entropy from p to f^-b p / sum."""
    labels = torch.tensor([[0] * 14 + [1] * 4 + [2] * 2])
    share, b = torch.tensor([0.7, 0.2, 0.1]), 0.25
    p = torch.rand(1, 3, 20, generator=torch.Generator().manual_seed(0)).softmax(1)
    trained = p * share[:, None] ** -b
    trained = trained / trained.sum(1, keepdim=True)
    torch.testing.assert_close(analysis.unweighted(trained.log(), labels, b), p)
    torch.testing.assert_close(analysis.unweighted(trained.log(), labels, 0.0), trained)


def test_depth_counts_are_numpy_s_histogram_of_the_visible_pixels():
    rng = np.random.default_rng(0)
    depth, target = rng.uniform(0, 1, (2, 1, 30, 30)).astype(np.float32)
    target[target < 0.3] = 0
    target[0, 0, 0] = 1.0
    found = analysis.depth_counts(torch.from_numpy(depth), torch.from_numpy(target), 10)
    seen = target > 0
    expected, *_ = np.histogram2d(depth[seen], target[seen], bins=10, range=[[0, 1], [0, 1]])
    np.testing.assert_array_equal(found[0], expected)


# --- statistics ---------------------------------------------------------------------------------------------


def test_binned_means_are_numpy_s():
    values, factor = np.array([1.0, 2, 3, 4, 5, 60, 70]), np.array([0.0, 1, 1.5, 2, 3, 3.5, -1])
    scores = analysis.binned_means(values, factor, [0, 1, 2, 2.5, 2.9, 3], single(7))
    assert [(s["mean"], s["n"], s["middle"]) for s in scores] == [
        (1, 1, 0),
        (2.5, 2, 1.25),
        (4, 1, 2),
        (5, 1, 3),
    ]


def test_effects_are_least_squares_and_tell_correlated_factors_apart():
    rng = np.random.default_rng(0)
    n = 500
    cause = rng.normal(0, 1, n)
    bystander = cause + rng.normal(0, 0.5, n)
    y = 7 + 3 * cause + rng.normal(0, 2, n)
    factors = {"cause": cause, "bystander": 1000 * bystander, "constant": np.ones(n)}
    found, explained = analysis.effects(y, factors, single(n))
    x = np.column_stack([np.ones(n), cause, 1000 * bystander])
    solution, *_ = np.linalg.lstsq(x, y)
    residual = y - x @ solution
    deviation = np.sqrt(np.diag(np.linalg.inv(x.T @ x)) * residual.var())
    for i, name in enumerate(("cause", "bystander"), 1):
        assert found[name]["mean"] == pytest.approx(solution[i], rel=1e-6)
        low, high = found[name]["ci95"]
        assert high - low == pytest.approx(2 * 1.96 * deviation[i], rel=0.15, abs=3e-4)
    assert found["bystander"]["ci95"][0] < 0 < found["bystander"]["ci95"][1]
    assert found["constant"] == {"mean": 0, "ci95": [0, 0]}
    assert explained == pytest.approx(1 - residual.var() / y.var())
    alone, _ = analysis.effects(y, {"bystander": bystander}, single(n))
    assert alone["bystander"]["ci95"][0] > 1


def test_rank_correlation_is_spearman_s_and_partial_correlation_removes_a_common_cause():
    rng = np.random.default_rng(0)
    n = 600
    cause = rng.normal(0, 1, n)
    x, y = (np.exp(cause + rng.normal(0, 0.7, n)) for _ in range(2))
    found = analysis.rank_correlation(x, y, single(n))
    assert found["mean"] == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert found["ci95"][0] > 0.5 and found["ci95"][0] < found["mean"] < found["ci95"][1]
    ranks = [scipy.stats.rankdata(v) for v in (x, y, cause)]
    rest = [v - np.polyval(np.polyfit(ranks[2], v, 1), ranks[2]) for v in ranks[:2]]
    partial = analysis.rank_correlation(x, y, single(n), [cause])
    assert partial["mean"] == pytest.approx(np.corrcoef(*rest)[0, 1], abs=1e-6)
    assert partial["ci95"][0] < 0.1 and abs(partial["mean"]) < 0.15
