"""Evaluation: perfect predictions score perfectly, each sample counts once, baselines are what they say."""

import hashlib
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from data_people import random_sample
from random_people import random_samples
from scipy.spatial.transform import Rotation
from shard_files import write_manifest, write_shards

import dpose.evaluate as evaluation
from dpose.batch import Prediction
from dpose.body import OPEN_BODY, OPEN_SMPL, load_body
from dpose.body.files import read_body
from dpose.bootstrap import ClusterBootstrap
from dpose.cli import main
from dpose.config import preset
from dpose.data.loader import make_loader
from dpose.data.means import training_means, weak_perspective
from dpose.evaluate import best_constant, evaluate, format_table, measure, summarise
from dpose.metrics import PROTOCOLS, BodyErrors
from dpose.model import checkpoint as checkpoints
from dpose.model.inference import to_device
from dpose.results import read_people
from dpose.rotations import nearest_rotation
from dpose.skeleton import PART_NAMES

OPTIONS = {"workers": 0, "device": "cpu", "progress": False}


@pytest.fixture(scope="module")
def body():
    return load_body(vertex_stride=16)


def loader(people, batch_size=4, split="test"):
    return make_loader(people, split, preset("mini"), batch_size, workers=0)


def first_batch(people, size=7, **options):
    return to_device(next(iter(make_loader(people, "test", preset("mini"), size, **options))), "cpu")


def truth(model, batch, bf16=False) -> Prediction:
    """The prediction of a perfect network."""
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
        prediction = truth(model, batch)
        rotmats = prediction.rotmats.clone()
        rotmats[:, 0] = rotmats[:, 0] @ quarter
        return prediction._replace(rotmats=rotmats, depth=prediction.depth + 0.25)

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
    for name in one.keys() - {"key", "body"}:
        np.testing.assert_allclose(one[name], other[name], rtol=2e-3, atol=2e-3)
    first = measure(model, loader(people, 3), body, samples=4)
    assert first["key"] == one["key"][:4] and len(first["mve"]) == 4
    per_sample = {name: column for name, column in one.items() if name != "depth_histogram"}
    assert sum(np.asarray(column).nbytes for column in per_sample.values()) / 7 < 600


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
    batch = first_batch(people)
    rest = body(torch.zeros(7, 11), torch.eye(3).expand(7, 22, 3, 3))
    apart = errors.points(rest).vertices - errors.points(body(batch["betas"], batch["pose"])).vertices
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
        prediction = truth(model, batch)
        return prediction._replace(betas=prediction.betas + 1)

    monkeypatch.delenv("DPOSE_BODY_MODELS", raising=False)
    monkeypatch.setattr(evaluation, "run_network", stout)
    out = tmp_path / "results.json"
    arguments = ["--protocol", protocol, "--checkpoint", str(trained.checkpoint), "--data", str(people)]
    arguments += ["--out", str(out), "--workers", "0", "--device", "cpu", "--no-progress", "--body", "open"]
    assert main(["evaluate", *arguments]) == 0
    result = json.loads(out.read_text())

    batch, exact = first_batch(people), load_body().double()
    predicted, true = (
        [x.numpy() for x in exact(betas, batch["pose"])] for betas in (batch["betas"] + 1, batch["betas"])
    )
    rule, mpjpe, mve = PROTOCOLS[protocol], [], []
    for i in range(7):
        (v, j), (true_v, true_j) = (points_by_scipy(protocol, b[0][i], b[1][i]) for b in (predicted, true))
        shift = (j - true_j)[list(rule.pelvis)].mean(0)
        mpjpe.append(np.linalg.norm((j - true_j)[list(rule.joints)] - shift, axis=-1).mean())
        mve.append(np.linalg.norm(v - true_v - shift, axis=-1).mean())
    assert result["metrics"]["mpjpe"]["mean"] == pytest.approx(1000 * np.mean(mpjpe), abs=2e-3)
    assert result["metrics"]["mve"]["mean"] == pytest.approx(1000 * np.mean(mve), abs=2e-3)
    assert result["metrics"]["mpjpe"]["mean"] > 1
    assert result["protocol"] == protocol
    open_matrices = {} if protocol == "smplx24" else {"regressor": "open", "smplx_to_smpl": "open"}
    assert result["matrices"] == open_matrices
    text = capsys.readouterr().out
    assert f"protocol {protocol}" in text and ("open body" in text) == bool(open_matrices)


# --- bodies -------------------------------------------------------------------------------------------------


def imitation(original: Path, vertices: int, stretch: float) -> dict[str, np.ndarray]:
    """Arrays of a body of so many vertices, made of one of ours, that its licence would keep to itself."""
    arrays = dict(read_body(original))
    regressor = arrays["J_regressor"][:, :vertices].astype(np.float64) + 1e-7
    return arrays | {
        "v_template": arrays["v_template"][:vertices] * np.float32(stretch),
        "shapedirs": arrays["shapedirs"][:vertices, :, :10],
        "posedirs": arrays["posedirs"][:vertices],
        "weights": arrays["weights"][:vertices],
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "f": arrays["f"][(arrays["f"] < vertices).all(1)],
    }


class Licensed:
    """A folder as $DPOSE_BODY_MODELS names it, with imitations of the neutral bodies and of both matrices."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.smplx, self.smpl = folder / "smplx" / "SMPLX_NEUTRAL.npz", folder / "smpl" / "SMPL_NEUTRAL.npz"
        for path, original, vertices in ((self.smplx, OPEN_BODY, 10475), (self.smpl, OPEN_SMPL, 6890)):
            path.parent.mkdir()
            np.savez_compressed(path, **imitation(original, vertices, 1.1))
        rng = np.random.default_rng(0)
        nearest = rng.integers(0, 10475, 6890)
        ones = np.ones(6890), (np.arange(6890), nearest)
        self.to_smpl = scipy.sparse.csc_matrix(ones, (6890, 10475))
        (folder / "smplx2smpl.pkl").write_bytes(pickle.dumps({"matrix": self.to_smpl}))
        self.h36m = rng.random((17, 6890)) ** 30
        self.h36m /= self.h36m.sum(1, keepdims=True)
        np.save(folder / "J_regressor_h36m.npy", self.h36m)
        self.record = load_body(self.smplx).record


@pytest.fixture(scope="module")
def licensed(tmp_path_factory):
    return Licensed(tmp_path_factory.mktemp("licensed"))


@pytest.fixture
def checkpoint_for(trained, tmp_path):
    """A function that saves the trained network with another record of its body, or without one."""

    def save(record: dict | None, name: str = "other.safetensors", **metadata) -> Path:
        model = checkpoints.load(trained.checkpoint)
        model.body_record = record
        metadata |= {"body": record} if record else {}
        return checkpoints.save(model, tmp_path / name, metadata)

    return save


@pytest.fixture(scope="module")
def licensed_people(licensed, tmp_path_factory):
    """A test split of SMPL with hands, and of SMPL-X, in one batch; the data bring their protocol."""
    rng = np.random.default_rng(0)
    names = ["smpl-neutral", "smplx-neutral", "smpl-neutral"]
    poses = [rng.normal(0, 0.3, 72 if name == "smpl-neutral" else 66) for name in names]
    samples = [
        random_sample(rng, f"p{i}", 160, body=name, pose=pose)
        for i, (name, pose) in enumerate(zip(names, poses, strict=True))
    ]
    root = tmp_path_factory.mktemp("licensed people")
    write_shards(samples, root / "shards", "test")
    records = {"smplx-neutral": licensed.record, "smpl-neutral": load_body(licensed.smpl).record}
    write_manifest(root / "shards", protocol="h36m14", bodies=records)
    return root, samples


def at_rest(model, batch, bf16=False) -> Prediction:
    n = len(batch["pose"])
    return truth(model, batch)._replace(
        rotmats=torch.eye(3).expand(n, 22, 3, 3), betas=torch.zeros(n, 11), depth=None
    )


def test_each_truth_is_posed_by_the_body_of_its_label_and_the_prediction_by_the_checkpoint_s(
    licensed, licensed_people, checkpoint_for, monkeypatch
):
    """The data have no training split, and so no mean pose for a baseline."""
    root, samples = licensed_people
    monkeypatch.setenv("DPOSE_BODY_MODELS", str(licensed.folder))
    monkeypatch.setattr(evaluation, "run_network", at_rest)
    checkpoint = checkpoint_for(licensed.record)
    result = evaluate(checkpoint, root, **OPTIONS)

    smplx, smpl = load_body(licensed.smplx).double(), load_body(licensed.smpl).double()
    rest = smplx(torch.zeros(1, 11).double(), torch.eye(3).double().expand(1, 22, 3, 3)).vertices[0].numpy()
    joints = licensed.h36m @ (licensed.to_smpl @ rest)
    mpjpe = []
    for sample in samples:
        label = sample["label"]
        name, pose = (
            label.get("body", "smplx-neutral"),
            torch.tensor(label["pose"]).reshape(1, -1, 3).double(),
        )
        body, to_smpl = (smpl, 1) if name == "smpl-neutral" else (smplx, licensed.to_smpl)
        vertices = body(torch.tensor(label["betas"])[None].double(), pose, form="axis-angle").vertices[0]
        true = licensed.h36m @ (to_smpl * vertices.numpy() if body is smpl else to_smpl @ vertices.numpy())
        apart = (joints - joints[0]) - (true - true[0])
        mpjpe.append(1000 * np.linalg.norm(apart[list(PROTOCOLS["h36m14"].joints)], axis=-1).mean())
    assert result["protocol"] == "h36m14" and result["samples"] == 3
    assert result["metrics"]["mpjpe"]["mean"] == pytest.approx(np.mean(mpjpe), abs=0.01)
    assert result["matrices"] == {"regressor": "licensed", "smplx_to_smpl": "licensed"}
    assert result["bodies"]["prediction"] == {"name": "smplx-neutral", "hash": smplx.hash}
    assert result["bodies"]["truth"] == [smpl.record, smplx.record]
    assert smpl.record == {"name": "smpl-neutral", "hash": smpl.hash}
    assert "mean_pose" not in result["baselines"] and result["baseline_samples"] == 0
    text = format_table(result)
    assert "PA-MPJPE" in text and "open" not in text
    with pytest.raises(ValueError, match="p0.*SMPL.*h36m14"):
        evaluate(checkpoint, root, protocol="smplx24", **OPTIONS)


@pytest.mark.parametrize("protocol", ["smplx24", "h36m14"])
def test_licensed_files_that_are_there_change_nothing_for_open_data(
    protocol, licensed, people, trained, monkeypatch
):
    monkeypatch.delenv("DPOSE_BODY_MODELS", raising=False)
    without = evaluate(trained.checkpoint, people, protocol=protocol, body="open", **OPTIONS)
    monkeypatch.setenv("DPOSE_BODY_MODELS", str(licensed.folder))
    with_them = evaluate(trained.checkpoint, people, protocol=protocol, body="open", **OPTIONS)
    for name in ("metrics", "baselines", "matrices", "bodies"):
        assert with_them[name] == without[name]
    assert with_them["bodies"]["prediction"]["name"] == "open"
    assert with_them["bodies"]["truth"] == [load_body().record]


def test_an_open_and_a_licensed_body_are_not_compared(
    licensed, licensed_people, people, checkpoint_for, monkeypatch
):
    """Whether the licensed files are there or not."""
    ours, theirs = checkpoint_for(load_body().record), checkpoint_for(licensed.record, "licensed.safetensors")
    monkeypatch.delenv("DPOSE_BODY_MODELS", raising=False)
    with pytest.raises(ValueError, match="'open'.*p0.*'smpl-neutral'"):
        evaluate(ours, licensed_people[0], **OPTIONS)
    monkeypatch.setenv("DPOSE_BODY_MODELS", str(licensed.folder))
    with pytest.raises(ValueError, match="'open'.*p0.*'smpl-neutral'"):
        evaluate(ours, licensed_people[0], **OPTIONS)
    with pytest.raises(ValueError, match="'smplx-neutral'.*test0000.*'open'"):
        evaluate(theirs, people, **OPTIONS)


def test_a_body_of_another_hash_than_the_checkpoint_s_or_the_data_s_is_refused(
    licensed, licensed_people, people, checkpoint_for, tmp_path, monkeypatch
):
    root, _ = licensed_people
    checkpoint = checkpoint_for(licensed.record)
    monkeypatch.setenv("DPOSE_BODY_MODELS", str(licensed.folder))
    other = tmp_path / "SMPLX_NEUTRAL.npz"
    np.savez_compressed(other, **imitation(OPEN_BODY, 10475, 1.2))
    with pytest.raises(ValueError, match=licensed.record["hash"]):
        evaluate(checkpoint, root, body=other, **OPTIONS)
    with pytest.raises(ValueError, match="smplx-neutral.*open"):
        evaluate(checkpoint, people, body="open", **OPTIONS)
    with pytest.raises(ValueError, match=licensed.record["hash"]):  # of the manifest
        evaluate(checkpoint_for(load_body(other).record), root, body=other, **OPTIONS)


def test_a_file_of_the_recorded_hash_is_that_body_under_any_name(
    licensed, checkpoint_for, tmp_path, monkeypatch
):
    monkeypatch.delenv("DPOSE_BODY_MODELS", raising=False)
    monkeypatch.setattr(evaluation, "run_network", truth)
    shutil.copy(licensed.smplx, tmp_path / "mine.npz")
    rng = np.random.default_rng(0)
    write_shards([random_sample(rng, "p", 160, body="smplx-neutral")], tmp_path / "shards", "test")
    result = evaluate(checkpoint_for(licensed.record), tmp_path, body=tmp_path / "mine.npz", **OPTIONS)
    assert result["metrics"]["mpjpe"]["mean"] == pytest.approx(0, abs=2e-3)
    assert result["bodies"] == {"prediction": licensed.record, "truth": [licensed.record]}


def test_a_checkpoint_without_a_body_s_record_needs_one_by_name(people, checkpoint_for):
    checkpoint = checkpoint_for(None)
    with pytest.raises(ValueError, match="--body"):
        evaluate(checkpoint, people, **OPTIONS)
    assert evaluate(checkpoint, people, body="open", **OPTIONS)["samples"] == 7


def test_the_shipped_network_predicts_the_open_body(people, monkeypatch):
    monkeypatch.setattr(evaluation, "run_network", truth)
    result = evaluate("mini", people, **OPTIONS)
    assert result["bodies"]["prediction"] == load_body().record
    assert result["metrics"]["mve"]["mean"] == pytest.approx(0, abs=2e-3)


def test_a_gendered_truth_without_its_licensed_body_says_what_is_missing(
    licensed, checkpoint_for, tmp_path, monkeypatch
):
    monkeypatch.setenv("DPOSE_BODY_MODELS", str(licensed.folder))
    rng = np.random.default_rng(0)
    write_shards(
        [random_sample(rng, "p", 160, body="smpl-female", pose=np.zeros(72))], tmp_path / "shards", "test"
    )
    with pytest.raises(FileNotFoundError, match="SMPL female.*DPOSE_BODY_MODELS"):
        evaluate(checkpoint_for(licensed.record), tmp_path, protocol="h36m14", **OPTIONS)


@pytest.fixture(scope="module")
def designed(tmp_path_factory):
    """A body whose first coefficients of shape are known changes, and five people of it, one at rest.

    The first enlarges the body by a tenth about its root, the second moves it, the third moves the left wrist
    alone by 30 mm (of the body at rest).
    """
    folder = tmp_path_factory.mktemp("designed")
    arrays = imitation(OPEN_BODY, 10475, 1.0)
    regressor, template = arrays["J_regressor"], arrays["v_template"].astype(np.float64)
    wrist = np.zeros((len(regressor), 3))
    wrist[20] = 0.018, 0, 0.024
    changes = np.zeros((10475, 3, 10))
    changes[..., 0] = 0.1 * (template - regressor[0] @ template)
    changes[..., 1] = 0.3, -0.2, 0.5
    changes[..., 2] = np.linalg.lstsq(regressor, wrist, rcond=None)[0]
    path = folder / "SMPLX_NEUTRAL.npz"
    np.savez_compressed(path, **arrays | {"shapedirs": changes, "posedirs": arrays["posedirs"] * 0})
    rng = np.random.default_rng(0)
    poses = [np.zeros(66), *rng.normal(0, 0.4, (4, 66))]
    samples = [
        random_sample(rng, f"p{i}", 160, body="smplx-neutral", pose=pose, betas=np.zeros(10))
        for i, pose in enumerate(poses)
    ]
    write_shards(samples[:1], folder / "rest" / "shards", "test")
    write_shards(samples[1:], folder / "posed" / "shards", "test")
    return path, poses, changes


def relative_to_the_hips(path, poses):
    """Joints (N, 24, 3) and vertices of people of the mean shape, metres, from the midpoint of their hips."""
    pose = torch.tensor(np.stack(poses)).reshape(-1, 22, 3)
    shape = torch.zeros(len(pose), 11).double()
    vertices, joints = load_body(path).double()(shape, pose, form="axis-angle")
    pelvis = joints[:, 1:3].mean(1, keepdim=True)
    return (joints[:, :24] - pelvis).numpy(), (vertices - pelvis).numpy()


@pytest.mark.parametrize("change", ["larger", "elsewhere", "turned", "wrist"])
def test_a_change_of_known_size_gives_the_expected_errors_end_to_end(
    change, designed, checkpoint_for, tmp_path, monkeypatch
):
    path, poses, changes = designed
    poses = poses[:1] if change == "wrist" else poses[1:]
    angle = np.radians(40)
    about_y = torch.tensor(Rotation.from_rotvec([0, angle, 0]).as_matrix()).float()

    def changed(model, batch, bf16=False):
        prediction = truth(model, batch)
        if change == "turned":
            rotmats = prediction.rotmats.clone()
            rotmats[:, 0] = about_y @ rotmats[:, 0]
            return prediction._replace(rotmats=rotmats)
        betas = prediction.betas.clone()
        betas[:, ["larger", "elsewhere", "wrist"].index(change)] += 1
        return prediction._replace(betas=betas)

    monkeypatch.setattr(evaluation, "run_network", changed)
    data = path.with_name("rest" if change == "wrist" else "posed")
    result = evaluate(checkpoint_for(load_body(path).record), data, body=path, **OPTIONS)
    found = {name: score["mean"] for name, score in result["metrics"].items()}

    joints, vertices = relative_to_the_hips(path, poses)
    expected = {"pa_mpjpe": 0.0, "orientation": 0.0}
    for name, points in (("mpjpe", joints), ("mve", vertices)):
        if change == "larger":
            expected[name] = 100 * np.linalg.norm(points, axis=-1).mean()
        elif change == "elsewhere":
            expected[name] = 0.0
        elif change == "turned":  # chords of circles about the vertical axis
            expected[name] = 2000 * np.sin(angle / 2) * np.hypot(points[..., 0], points[..., 2]).mean()
            expected["orientation"] = 40.0
    if change == "wrist":
        expected["mpjpe"] = 30 / 24
        expected["mve"] = 1000 * np.linalg.norm(changes[..., 2], axis=-1).mean()
        true, moved = joints[0] - joints[0].mean(0), joints[0] + 0
        moved[20] += 0.018, 0, 0.024
        moved -= moved.mean(0)
        moved = Rotation.align_vectors(true, moved)[0].apply(moved)
        moved *= (moved * true).sum() / (moved**2).sum()
        expected["pa_mpjpe"] = 1000 * np.linalg.norm(moved - true, axis=-1).mean()
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-4, abs=2e-2)


def test_the_matrix_to_smpl_must_fit_the_prediction_s_body(licensed, checkpoint_for, tmp_path, monkeypatch):
    monkeypatch.setenv("DPOSE_BODY_MODELS", str(licensed.folder))
    np.savez_compressed(tmp_path / "SMPLX_MALE.npz", **imitation(OPEN_BODY, 9000, 1.0))
    rng = np.random.default_rng(0)
    write_shards([random_sample(rng, "p", 160, body="smplx-neutral")], tmp_path / "shards", "test")
    with pytest.raises(ValueError, match="10475.*'smplx-male' has 9000"):
        evaluate(
            checkpoint_for(None), tmp_path, body=tmp_path / "SMPLX_MALE.npz", protocol="h36m14", **OPTIONS
        )


# --- what is measured, and how ------------------------------------------------------------------------------


def test_the_network_s_input_may_have_the_image_diagonal_as_focal_length(people, body, monkeypatch):
    inputs = []

    def recording(model, batch, bf16=False):
        inputs.append(batch["cam_int"])
        return truth(model, batch)

    monkeypatch.setattr(evaluation, "run_network", recording)
    label, diagonal = (measure(None, loader(people, 7), body, focal=focal) for focal in evaluation.FOCALS)
    batch = first_batch(people)
    assert inputs[0].equal(batch["cam_int"]) and not inputs[1].equal(batch["cam_int"])
    for own, cam_int, size in zip(batch["cam_int"], inputs[1], batch["img_size"].tolist(), strict=True):
        assert cam_int.diagonal().tolist() == pytest.approx([np.hypot(*size)] * 2 + [1])
        assert cam_int[:2, 2].equal(own[:2, 2])
    assert (label["mpjpe"] == diagonal["mpjpe"]).all()  # the truth stays where it was


@pytest.mark.parametrize("broken", ["rotmats", "cam", "parts", "depth", "too large"])
def test_a_prediction_that_is_not_finite_ends_with_one_line_and_without_a_table(
    broken, people, trained, tmp_path, monkeypatch, capsys
):
    def diverged(model, batch, bf16=False):
        prediction = truth(model, batch)
        if broken == "too large":
            return prediction._replace(betas=prediction.betas + 3e38)
        field = getattr(prediction, broken).clone()
        field[1] = torch.nan
        return prediction._replace(**{broken: field})

    monkeypatch.setattr(evaluation, "run_network", diverged)
    out = tmp_path / "results.json"
    arguments = ["--checkpoint", str(trained.checkpoint), "--data", str(people), "--body", "open"]
    arguments += ["--workers", "0", "--device", "cpu", "--no-progress", "--out", str(out)]
    assert main(["evaluate", *arguments]) == 2
    text = capsys.readouterr()
    assert text.out == "" and len(text.err.splitlines()) == 1 and not out.exists()
    assert "not finite" in text.err and ("test0001" in text.err) == (broken != "too large")


def test_few_samples_are_taken_from_shards_all_over_the_split(trained, tmp_path, monkeypatch):
    write_shards(random_samples(12), tmp_path / "shards", "test", per_shard=3)
    write_manifest(tmp_path / "shards")
    tables = []
    monkeypatch.setattr(evaluation, "run_network", truth)
    monkeypatch.setattr(evaluation, "measure", lambda *a, **k: tables.append(measure(*a, **k)) or tables[-1])
    for n in (2, 4, 5):
        assert evaluate(trained.checkpoint, tmp_path, samples=n, body="open", **OPTIONS)["samples"] == n
    shards = [{int(key[1:]) // 3 for key in table["key"]} for table in tables]
    assert shards[0] == {0, 3} and shards[1] == {0, 1, 2, 3} and len(shards[2]) >= 3


@pytest.mark.parametrize(
    ("recipe", "given", "expected"),
    [
        (None, None, "paper"),
        ({"depth_rule": "released"}, None, "released"),
        ({"steps": 3}, None, "paper"),
        ({"depth_rule": "released"}, "paper", "paper"),
        (None, "released", "released"),
    ],
)
def test_depth_is_compared_by_the_rule_that_the_network_was_trained_with(
    recipe, given, expected, people, checkpoint_for, monkeypatch
):
    monkeypatch.setattr(evaluation, "run_network", truth)
    checkpoint = checkpoint_for(load_body().record, **({"recipe": recipe} if recipe else {}))
    result = evaluate(checkpoint, people, depth_rule=given, **OPTIONS)
    batch = first_batch(people, depth_rule=expected)
    median = float(batch["depth"][batch["depth"] > 0].double().median())
    assert result["depth_rule"] == expected
    assert result["baselines"]["constant_depth"]["value"] == pytest.approx(median, abs=2e-3)
    other = first_batch(people, depth_rule="paper")["depth"]
    assert batch["depth"].equal(other) == (expected == "paper")


def test_networks_of_the_authors_are_compared_by_their_rule_for_depth(tmp_path):
    torch.save({}, tmp_path / "released.ckpt")
    assert evaluation._trained_depth_rule(tmp_path / "released.ckpt", {}) == "released"
    assert evaluation._trained_depth_rule("mini", {"converted_from": {}}) == "released"
    assert evaluation._trained_depth_rule("mini", {}) == "paper"


def test_mean_iou_pools_pixels_over_the_split_as_a_plain_loop_does():
    rng = np.random.default_rng(0)
    labels, true = rng.integers(0, 23, (5, 8, 8)), rng.integers(0, 20, (5, 8, 8))  # 20-22 are never true
    pairs = list(zip(labels, true, strict=True))
    intersection = np.array([[((a == c) & (b == c)).sum() for c in range(23)] for a, b in pairs])
    union = np.array([[((a == c) | (b == c)).sum() for c in range(23)] for a, b in pairs])
    expected = []
    for c in range(1, 23):
        hit = sum(int(((a == c) & (b == c)).sum()) for a, b in pairs)
        any_ = sum(int(((a == c) | (b == c)).sum()) for a, b in pairs)
        if any_:
            expected.append(hit / any_)
    score = evaluation._mean_iou(intersection, union, ClusterBootstrap("abcde"))
    assert score["mean"] == pytest.approx(np.mean(expected), abs=1e-4)
    assert list(score["per_part"]) == list(PART_NAMES)
    intersection[4] = union[4] = 0  # a person of whom nothing is in the crop, and nothing predicted
    found = evaluation.per_person({"key": [*"abcde"], "intersection": intersection, "union": union})
    for i, (a, b) in enumerate(pairs[:4]):
        parts = [c for c in range(1, 23) if ((a == c) | (b == c)).any()]
        each = [((a == c) & (b == c)).sum() / ((a == c) | (b == c)).sum() for c in parts]
        assert found["parts_miou"][i] == pytest.approx(np.mean(each), abs=1e-6)
    assert np.isnan(found["parts_miou"][4])
    assert score["ci95"][0] <= score["mean"] <= score["ci95"][1]


@pytest.mark.parametrize("count", [1, 2, 998, 999])
def test_the_best_constant_is_the_median_and_no_other_constant_beats_it(count):
    values = (0.1 + 0.9 * np.random.default_rng(1).beta(2, 5, count)).astype(np.float32)
    values[0] = 1.0
    histogram = np.bincount((values * evaluation.DEPTH_BINS).astype(int), minlength=evaluation.DEPTH_BINS + 1)
    constant, error = best_constant(histogram)
    assert constant == pytest.approx(np.median(values), abs=1e-6)
    assert error == pytest.approx(np.abs(values.astype(float) - np.median(values)).mean(), abs=1e-6)
    assert error <= min(np.abs(values - c).mean() for c in np.linspace(0, 1, 501)) + 1e-6


def test_the_depth_histogram_counts_each_person_s_pixel(people, body, monkeypatch):
    monkeypatch.setattr(evaluation, "run_network", truth)
    histogram = measure(None, loader(people), body)["depth_histogram"]
    depth = first_batch(people)["depth"].numpy()
    values = depth[depth > 0].astype(float)
    assert histogram.sum() == len(values) and histogram[-1] == (values == 1).sum() > 0
    middles = (np.arange(len(histogram)) + 0.5) / evaluation.DEPTH_BINS
    assert middles @ histogram == pytest.approx(values.sum(), rel=1e-5)


def test_intervals_resample_scenes_and_say_how_many(people, trained, tmp_path, monkeypatch):
    samples = random_samples(6)
    for i, sample in enumerate(samples):
        sample["label"]["key"] = f"000-test-{i // 3:07d}-{i % 3}"
    write_shards(samples, tmp_path / "shards", "test")
    result = evaluate(trained.checkpoint, tmp_path, body="open", **OPTIONS)
    assert result["intervals"]["clusters"] == 2 and result["samples"] == 6
    one_scene = measure(
        checkpoints.load(trained.checkpoint), loader(tmp_path), load_body(vertex_stride=16), samples=3
    )
    summary = summarise(one_scene)
    assert summary["intervals"]["clusters"] == 1
    assert [score["ci95"] for score in summary["metrics"].values()] == [None] * 6


def test_the_results_say_what_was_measured_with_what_on_what(people, trained, tmp_path):
    out = tmp_path / "sub" / "results.json"
    result = evaluate(trained.checkpoint, people, out=out, body="open", **OPTIONS)
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
    errors = read_people(out)
    assert errors["key"].tolist() == [f"test{i:04d}" for i in range(7)]
    for name in ("mpjpe", "pa_mpjpe", "mve", "orientation"):
        assert errors[name].mean() == pytest.approx(result["metrics"][name]["mean"], abs=1e-3)
    for name in ("mpjpe", "pa_mpjpe"):
        assert errors[f"mean_pose/{name}"].mean() == pytest.approx(mean_pose[name]["mean"], abs=1e-3)
    depth = np.average(errors["depth_l1"], weights=errors["depth_pixels"])
    assert depth == pytest.approx(result["metrics"]["depth_l1"]["mean"], abs=1e-4)
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
        evaluate(trained.checkpoint, tmp_path / "data", out=out, body="open", **OPTIONS)
    assert not out.exists()


def trained_on(trained) -> str:
    return json.loads((trained.log.parent / "run.json").read_text())["data"]


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"checkpoint": "nowhere.safetensors"}, FileNotFoundError, "nowhere.safetensors"),
        ({"data": "/nowhere"}, FileNotFoundError, "/nowhere"),
        ({"split": "exam"}, FileNotFoundError, "exam.*test"),
        ({"samples": 0}, ValueError, "samples.* 0"),
        ({"batch_size": 0}, ValueError, "batch_size.* 0"),
        ({"protocol": "coco"}, ValueError, "'coco'.*smplx24"),
        ({"focal": "5000"}, ValueError, "focal.*label.*diagonal"),
        ({"depth_rule": "mine"}, ValueError, "depth rule 'mine'.*paper.*released"),
        ({"out": "/tmp"}, FileExistsError, "/tmp"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_measured(
    people, trained, tmp_path, wrong, error, message, monkeypatch
):
    monkeypatch.setattr(evaluation, "measure", None)
    options = {"checkpoint": trained.checkpoint, "data": people, "out": tmp_path / "r.json", "body": "open"}
    with pytest.raises(error, match=message):
        evaluate(**(OPTIONS | options | wrong))
    assert not (tmp_path / "r.json").exists()


def test_statistics_are_the_plain_means_of_the_training_set(people):
    config = preset("mini")
    statistics = training_means(people, config)
    batches = [to_device(b, "cpu") for b in make_loader(people, "train", config, 3, workers=0)]
    parts = torch.cat([batch["parts"].flatten() for batch in batches])
    depth = torch.cat([batch["depth"].flatten() for batch in batches])
    assert statistics.samples == 16
    torch.testing.assert_close(
        statistics.part_frequency, (parts[:, None] == torch.arange(23)).float().mean(0)
    )
    torch.testing.assert_close(statistics.mean_depth, depth[depth > 0].mean())
    knee = torch.cat([batch["pose"][:, 4] for batch in batches])

    def cost(rotation):
        return (knee - rotation).square().sum()

    best = cost(statistics.pose[4])
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):  # no rotation near it has a smaller squared distance to the samples
        near = nearest_rotation(statistics.pose[4] + 0.05 * torch.randn(3, 3, generator=generator))
        assert cost(near) >= best - 1e-5


def test_weak_perspective_is_the_inverse_of_full_translation(people):
    from dpose.camera import full_translation

    batch = first_batch(people)
    back = full_translation(weak_perspective(batch), batch["center"], batch["scale"], batch["cam_int"])
    torch.testing.assert_close(back, batch["trans"], rtol=1e-4, atol=1e-4)
