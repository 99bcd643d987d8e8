"""Evaluation: perfect predictions score perfectly, each sample counts once, baselines are what they say."""

import hashlib
import json
import pickle
import shutil

import numpy as np
import pytest
import scipy.sparse
import torch
from data_people import random_sample

import dpose.evaluate as evaluation
from dpose import results
from dpose.batch import Prediction
from dpose.body import OPEN_BODY, OPEN_SMPL, PART_NAMES, load_body
from dpose.cli import main
from dpose.config import preset
from dpose.data.loader import make_loader
from dpose.data.means import training_means, weak_perspective
from dpose.data.shards import write_manifest, write_shards
from dpose.evaluate import best_constant, evaluate, format_table, measure, summarise
from dpose.metrics import PROTOCOLS, BodyErrors
from dpose.rotations import nearest_rotation


@pytest.fixture(scope="module")
def body():
    return load_body(vertex_stride=16)


def loader(people, batch_size=4, split="test"):
    return make_loader(people, split, preset("mini"), batch_size, workers=0)


def truth(model, batch, bf16=False) -> Prediction:
    """What a perfect network would say."""
    logits = torch.nn.functional.one_hot(batch["parts"], 23).permute(0, 3, 1, 2).float()
    return Prediction(
        batch["pose"], batch["betas"], torch.ones(len(batch["pose"]), 3), logits, batch["depth"]
    )


def test_a_perfect_network_has_no_error(people, body, monkeypatch):
    monkeypatch.setattr(evaluation, "run_network", truth)
    scores = summarise(measure(None, loader(people), body))["metrics"]
    for name in ("mpjpe", "pa_mpjpe", "mve", "depth_l1"):
        assert scores[name]["mean"] == pytest.approx(0, abs=2e-3)
    assert scores["orientation"]["mean"] == pytest.approx(0, abs=0.1)
    assert scores["parts_miou"]["mean"] == 1
    assert scores["parts_miou"]["ci95"] == [1, 1]


def test_a_known_error_is_found_in_millimetres_and_degrees(people, body, monkeypatch):
    quarter = torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])

    def turned(model, batch, bf16=False):
        said = truth(model, batch)
        rotmats = said.rotmats.clone()
        rotmats[:, 0] = rotmats[:, 0] @ quarter
        return said._replace(rotmats=rotmats, depth=said.depth + 0.25)

    monkeypatch.setattr(evaluation, "run_network", turned)
    scores = summarise(measure(None, loader(people), body))["metrics"]
    assert scores["orientation"]["mean"] == pytest.approx(90, abs=0.01)
    assert scores["pa_mpjpe"]["mean"] == pytest.approx(0, abs=2e-3)
    assert scores["mpjpe"]["mean"] > 50
    assert scores["depth_l1"]["mean"] == pytest.approx(0.25, abs=1e-4)


def test_every_sample_counts_once_whatever_the_batch_size(people, trained, body):
    model = evaluation.checkpoints.load(trained.checkpoint)
    pose = torch.eye(3).expand(22, 3, 3), torch.zeros(11)
    one, other = (measure(model, loader(people, size), body, pose) for size in (3, 7))
    assert one["key"] == other["key"] and len(set(one["key"])) == 7
    for name in one.keys() - {"key"}:
        np.testing.assert_allclose(one[name], other[name], rtol=2e-3, atol=2e-3)
    first = measure(model, loader(people, 3), body, samples=4)
    assert first["key"] == one["key"][:4]


def test_another_protocol_compares_smpl_s_vertices_and_regressed_joints(people, body, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    errors = BodyErrors(
        "h36m14",
        torch.rand(40, body.num_vertices, generator=generator).softmax(1),
        torch.rand(17, 40, generator=generator).softmax(1),
    )
    monkeypatch.setattr(evaluation, "run_network", truth)
    table = measure(
        None, loader(people), body, (torch.eye(3).expand(22, 3, 3), torch.zeros(11)), errors=errors
    )
    batch = next(iter(loader(people, 7)))
    said = body(torch.zeros(7, 11), torch.eye(3).expand(7, 22, 3, 3))
    apart = errors.points(said).vertices - errors.points(body(batch["betas"], batch["pose"])).vertices
    assert table["mpjpe"].max() < 1e-3 and len(table["mpjpe"]) == 7
    assert apart.shape == (7, 40, 3) and table["mean_pose/mve"].min() > 1


def points_by_scipy(protocol, vertices, joints):
    """Vertices and joints of one body under a protocol, out of the shipped files."""
    if protocol == "smplx24":
        return vertices, joints
    vertices = scipy.sparse.load_npz(OPEN_SMPL.with_name("smplx2smpl.npz")) @ vertices
    if protocol == "h36m14":
        return vertices, scipy.sparse.load_npz(OPEN_SMPL.with_name("J_regressor_h36m.npz")) @ vertices
    return vertices, np.load(OPEN_SMPL)["J_regressor"].astype(np.float64) @ vertices


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_is_measured_on_open_data_without_licensed_files(
    protocol, people, trained, tmp_path, monkeypatch, capsys
):
    def stout(model, batch, bf16=False):
        said = truth(model, batch)
        return said._replace(betas=said.betas + 1)

    monkeypatch.delenv("DPOSE_BODY_MODELS", raising=False)
    monkeypatch.setattr(evaluation, "run_network", stout)
    out = tmp_path / "results.json"
    arguments = ["--protocol", protocol, "--checkpoint", str(trained.checkpoint), "--data", str(people)]
    arguments += ["--out", str(out), "--workers", "0", "--device", "cpu", "--no-progress"]
    assert main(["evaluate", *arguments]) == 0
    result = json.loads(out.read_text())

    batch, exact = next(iter(loader(people, 7))), load_body().double()
    said, true = (
        [x.numpy() for x in exact(betas, batch["pose"])] for betas in (batch["betas"] + 1, batch["betas"])
    )
    rule, mpjpe, mve = PROTOCOLS[protocol], [], []
    for i in range(7):
        (v, j), (true_v, true_j) = (points_by_scipy(protocol, b[0][i], b[1][i]) for b in (said, true))
        shift = (j - true_j)[list(rule.pelvis)].mean(0)
        mpjpe.append(np.linalg.norm((j - true_j)[list(rule.joints)] - shift, axis=-1).mean())
        mve.append(np.linalg.norm(v - true_v - shift, axis=-1).mean())
    assert result["metrics"]["mpjpe"]["mean"] == pytest.approx(1000 * np.mean(mpjpe), abs=2e-3)
    assert result["metrics"]["mve"]["mean"] == pytest.approx(1000 * np.mean(mve), abs=2e-3)
    assert result["metrics"]["mpjpe"]["mean"] > 1
    assert result["protocol"] == protocol
    open_matrices = {} if protocol == "smplx24" else {"regressor": "open", "smplx_to_smpl": "open"}
    assert result["matrices"] == open_matrices
    said = capsys.readouterr().out
    assert f"protocol {protocol}" in said and ("no benchmark's" in said) == bool(open_matrices)


def test_licensed_matrices_and_the_open_body_are_not_mixed(people, trained, tmp_path, monkeypatch):
    np.save(tmp_path / "J_regressor_h36m.npy", np.full((17, 6890), 1 / 6890))
    monkeypatch.setenv("DPOSE_BODY_MODELS", str(tmp_path))
    options = {"body": OPEN_BODY, "protocol": "h36m14", "workers": 0, "device": "cpu", "progress": False}
    with pytest.raises(FileNotFoundError, match="smplx2smpl.pkl"):
        evaluate(trained.checkpoint, people, **options)
    matrix = scipy.sparse.csc_matrix((6890, 10475))
    (tmp_path / "smplx2smpl.pkl").write_bytes(pickle.dumps({"matrix": matrix}))
    with pytest.raises(ValueError, match="licensed matrix .* takes 10475, the body has 13718; DPOSE_BODY"):
        evaluate(trained.checkpoint, people, **options)


def test_the_truth_is_posed_by_the_body_that_its_labels_are_for(trained, tmp_path, monkeypatch):
    """SMPL with hands and SMPL-X in one batch; the data bring their protocol and have no training split."""
    monkeypatch.delenv("DPOSE_BODY_MODELS", raising=False)
    rng = np.random.default_rng(0)
    names = ["smpl-neutral", "smplx-neutral", "smpl-neutral"]
    poses = [rng.normal(0, 0.3, 72 if name == "smpl-neutral" else 66) for name in names]
    samples = [
        random_sample(rng, f"p{i}", 160, body=name, pose=pose)
        for i, (name, pose) in enumerate(zip(names, poses, strict=True))
    ]
    write_shards(samples, tmp_path / "shards", "test")
    write_manifest(tmp_path / "shards", protocol="h36m14")

    def nobody(model, batch, bf16=False):
        said = truth(model, batch)
        return said._replace(rotmats=torch.eye(3).expand(3, 22, 3, 3), betas=torch.zeros(3, 11))

    monkeypatch.setattr(evaluation, "run_network", nobody)
    options = {"workers": 0, "device": "cpu", "progress": False}
    result = evaluate(trained.checkpoint, tmp_path, **options)

    smplx, smpl = load_body().double(), load_body(OPEN_SMPL).double()
    to_smpl = scipy.sparse.load_npz(OPEN_SMPL.with_name("smplx2smpl.npz"))
    regressor = scipy.sparse.load_npz(OPEN_SMPL.with_name("J_regressor_h36m.npz"))
    rest = smplx(torch.zeros(1, 11).double(), torch.eye(3).double().expand(1, 22, 3, 3)).vertices[0].numpy()
    joints = regressor @ (to_smpl @ rest)
    mpjpe = []
    for sample, pose in zip(samples, poses, strict=True):
        body = smpl if len(pose) == 72 else smplx
        numbers = torch.tensor(sample["label"]["betas"])[None].double(), torch.tensor(pose).reshape(1, -1, 3)
        vertices = body(*numbers, form="axis-angle").vertices[0].numpy()
        true = regressor @ (vertices if len(pose) == 72 else to_smpl @ vertices)
        apart = (joints - joints[0]) - (true - true[0])
        mpjpe.append(1000 * np.linalg.norm(apart[list(PROTOCOLS["h36m14"].joints)], axis=-1).mean())
    assert result["protocol"] == "h36m14" and result["samples"] == 3
    assert result["metrics"]["mpjpe"]["mean"] == pytest.approx(np.mean(mpjpe), abs=0.01)
    assert "mean_pose" not in result["baselines"] and result["baseline_samples"] == 0
    assert "PA-MPJPE" in format_table(result)
    with pytest.raises(ValueError, match="the truth of p0 is a SMPL body; take h36m14"):
        evaluate(trained.checkpoint, tmp_path, protocol="smplx24", **options)


def test_a_gendered_truth_without_its_licensed_body_says_what_is_missing(trained, tmp_path, monkeypatch):
    monkeypatch.delenv("DPOSE_BODY_MODELS", raising=False)
    rng = np.random.default_rng(0)
    write_shards(
        [random_sample(rng, "p", 160, body="smpl-female", pose=np.zeros(72))], tmp_path / "shards", "test"
    )
    with pytest.raises(FileNotFoundError, match="SMPL female is missing .*DPOSE_BODY_MODELS"):
        evaluate(trained.checkpoint, tmp_path, protocol="h36m14", workers=0, device="cpu", progress=False)


def test_the_network_can_be_told_the_image_diagonal_for_a_focal_length(people, body, monkeypatch):
    told = []

    def listening(model, batch, bf16=False):
        told.append(batch["cam_int"])
        return truth(model, batch)

    monkeypatch.setattr(evaluation, "run_network", listening)
    label, diagonal = (measure(None, loader(people, 7), body, focal=focal) for focal in evaluation.FOCALS)
    batch = next(iter(loader(people, 7)))
    assert told[0].equal(batch["cam_int"]) and not told[1].equal(batch["cam_int"])
    for own, cam_int, size in zip(batch["cam_int"], told[1], batch["img_size"].tolist(), strict=True):
        assert cam_int.diagonal().tolist() == pytest.approx([np.hypot(*size)] * 2 + [1])
        assert cam_int[:2, 2].equal(own[:2, 2])
    assert (label["mpjpe"] == diagonal["mpjpe"]).all()  # the truth stays where it was


def test_mean_iou_pools_pixels_over_the_split_as_a_plain_loop_does():
    rng = np.random.default_rng(0)
    said, true = rng.integers(0, 23, (5, 8, 8)), rng.integers(0, 20, (5, 8, 8))  # parts 20-22 are never true
    intersection = np.array([[((s == c) & (t == c)).sum() for c in range(23)] for s, t in zip(said, true)])  # noqa: B905
    union = np.array([[((s == c) | (t == c)).sum() for c in range(23)] for s, t in zip(said, true)])  # noqa: B905
    expected = []
    for c in range(1, 23):
        hit = sum(int(((s == c) & (t == c)).sum()) for s, t in zip(said, true, strict=True))
        any_ = sum(int(((s == c) | (t == c)).sum()) for s, t in zip(said, true, strict=True))
        if any_:
            expected.append(hit / any_)
    score = evaluation._mean_iou(intersection, union)
    assert score["mean"] == pytest.approx(np.mean(expected), abs=1e-4)
    assert list(score["per_part"]) == list(PART_NAMES)
    assert score["ci95"][0] <= score["mean"] <= score["ci95"][1]


def test_no_other_constant_beats_the_best_constant():
    values = np.random.default_rng(1).beta(2, 5, 999).astype(np.float32)
    constant, error = best_constant(values)
    others = [np.abs(values - c).mean() for c in np.linspace(0, 1, 501)]
    assert error == pytest.approx(np.abs(values - constant).mean(), rel=1e-5)
    assert error <= min(others) + 1e-6


def test_the_bootstrap_interval_agrees_with_the_normal_approximation():
    values = np.random.default_rng(2).normal(50, 10, 400)
    summary = results.summary(values)
    half = 1.96 * values.std() / np.sqrt(400)
    assert summary["mean"] == pytest.approx(values.mean(), abs=1e-3)
    assert summary["ci95"][0] == pytest.approx(values.mean() - half, abs=0.25)
    assert summary["ci95"][1] == pytest.approx(values.mean() + half, abs=0.25)
    assert summary["n"] == 400
    weighted = results.summary(np.array([1.0, 3.0, 99.0]), np.array([1, 3, 0]))
    assert weighted["mean"] == 2.5 and weighted["n"] == 2


def test_the_results_say_what_was_measured_with_what_on_what(people, trained, tmp_path):
    out = tmp_path / "sub" / "results.json"
    result = evaluate(trained.checkpoint, people, out=out, workers=0, device="cpu", progress=False)
    assert json.loads(out.read_text()) == result
    assert result["samples"] == 7 and result["split"] == "test" and result["protocol"] == "smplx24"
    assert result["checkpoint"]["sha256"] == hashlib.sha256(trained.checkpoint.read_bytes()).hexdigest()
    assert result["checkpoint"]["metadata"]["step"] == 6
    assert result["checkpoint"]["config"]["name"] == "mini"
    assert result["data"]["fingerprint"] == trained_on(trained)
    assert {"version", "commit", "libraries", "hardware", "command", "seconds"} <= result.keys()
    for score in (*result["metrics"].values(), *result["baselines"]["mean_pose"].values()):
        assert score["n"] == 7 and score["ci95"][0] <= score["mean"] <= score["ci95"][1]
    mean_pose = result["baselines"]["mean_pose"]
    oriented = result["baselines"]["mean_pose_true_orientation"]
    assert oriented["pa_mpjpe"]["mean"] == pytest.approx(mean_pose["pa_mpjpe"]["mean"], abs=0.01)
    assert oriented["mpjpe"]["mean"] < mean_pose["mpjpe"]["mean"]
    ratio = result["metrics"]["mpjpe"]["mean"] / mean_pose["mpjpe"]["mean"]
    assert result["ratios"]["mpjpe"] == pytest.approx(ratio, abs=1e-3)
    table = format_table(result)
    assert "MPJPE" in table and f"{result['metrics']['mpjpe']['mean']:.1f}" in table


def test_a_damaged_test_sample_ends_the_measurement(people, trained, tmp_path):
    shutil.copytree(people, tmp_path / "data")
    (shard,) = (tmp_path / "data").rglob("test-*.tar")
    for manifest in shard.parent.glob("manifest.json"):
        manifest.unlink()
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    out = tmp_path / "results.json"
    with pytest.raises(RuntimeError, match="test-000000.tar"):
        evaluate(trained.checkpoint, tmp_path / "data", out=out, workers=0, device="cpu", progress=False)
    assert not out.exists()


def trained_on(trained) -> str:
    return json.loads((trained.log.parent / "run.json").read_text())["data"]


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"checkpoint": "nowhere.safetensors"}, FileNotFoundError, "nowhere.safetensors"),
        ({"data": "/nowhere"}, FileNotFoundError, "no data folder at /nowhere"),
        ({"split": "exam"}, FileNotFoundError, "exam.*test"),
        ({"samples": 0}, ValueError, "samples must be at least 1"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"protocol": "coco"}, ValueError, "unknown protocol 'coco'.*smplx24"),
        ({"focal": "5000"}, ValueError, "focal must be one of label, diagonal"),
        (
            {"protocol": "h36m14", "regressor": torch.ones(24, 6890)},
            ValueError,
            r"needs the Human3.6M joint regressor.*shape \(24, 6890\)",
        ),
    ],
)
def test_a_wrong_argument_is_refused_and_no_results_are_written(
    people, trained, tmp_path, wrong, error, message
):
    options = {"checkpoint": trained.checkpoint, "data": people, "workers": 0, "out": tmp_path / "r.json"}
    with pytest.raises(error, match=message):
        evaluate(**(options | wrong))
    assert not (tmp_path / "r.json").exists()


def test_statistics_are_the_plain_means_of_the_training_set(people):
    config = preset("mini")
    statistics = training_means(people, config)
    batches = list(make_loader(people, "train", config, 3, workers=0))
    parts = torch.cat([batch["parts"].flatten() for batch in batches])
    depth = torch.cat([batch["depth"].flatten() for batch in batches])
    assert statistics.samples == 16
    torch.testing.assert_close(
        statistics.part_frequency, (parts[:, None] == torch.arange(23)).float().mean(0)
    )
    torch.testing.assert_close(statistics.mean_depth, depth[depth > 0].mean())
    knee = torch.cat([batch["pose"][:, 4] for batch in batches])
    cost = lambda r: (knee - r).square().sum()  # noqa: E731
    best = cost(statistics.pose[4])
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):  # no rotation near it has a smaller squared distance to the samples
        near = nearest_rotation(statistics.pose[4] + 0.05 * torch.randn(3, 3, generator=generator))
        assert cost(near) >= best - 1e-5


def test_weak_perspective_is_the_inverse_of_full_translation(people):
    from dpose.camera import full_translation

    batch = next(iter(loader(people)))
    focal = batch["cam_int"][:, 0, 0]
    back = full_translation(
        weak_perspective(batch), batch["center"], batch["scale"], batch["img_size"], focal
    )
    torch.testing.assert_close(back, batch["trans"], rtol=1e-4, atol=1e-4)
