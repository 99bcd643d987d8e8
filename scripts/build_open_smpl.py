"""Builds what stands in for SMPL in the open: a coarser mesh of the open body, and the matrices around it.

    python scripts/build_open_smpl.py

writes below dpose/assets/smpl/, out of the open body alone, in five seconds of one core:

- SMPL_NEUTRAL.npz, a body of 6,890 vertices and 24 joints in SMPL's layout. Edges of the open body are
  collapsed into one of their ends, so that each vertex that stays is one of the open body's, with its shapes
  and weights; the fingers' weights make SMPL's two hand joints. Posed alike with resting fingers, both bodies
  therefore agree to rounding. In the mean shape the open body's vertices lie within 2.2 mm of its surface,
  0.2 mm on average.
- smplx2smpl.npz, the matrix (6890, 13718) from the open body's vertices to these: it selects them.
- J_regressor_h36m.npz, non-negative weights (17, 6890) for joints about where Human3.6M has its own, fitted
  to random shapes and poses. For others they are 0.2 mm (head) to 17 mm (spine2) off on average, by joint.

Nothing of SMPL is in it but the number of vertices, the order of the joints and the layout. The same open
body gives the same files.
"""

from __future__ import annotations

import argparse
import heapq
from pathlib import Path

import numpy as np
import roma
import scipy.optimize
import scipy.sparse
import torch
from build_open_body import fit_regressor

from dpose.body import OPEN_BODY, load_body
from dpose.body.files import SMPL_VERTICES, read_body
from dpose.io import replacing
from dpose.skeleton import JOINT_NAMES, SMPL_PARENTS

NUM_BETAS = 11
COLUMNS = 300  # SMPL's files have so many, or 10
EVENNESS = 0.15  # how much an edge's length counts beside the distance that the surface moves

# Human3.6M's joints by SMPL-X's (their mean), in the order of its regressor; the 11th is the head's crown.
H36M = (
    ("left_hip", "right_hip"), ("left_hip",), ("left_knee",), ("left_ankle",),
    ("right_hip",), ("right_knee",), ("right_ankle",),
    ("spine2",), ("neck",), ("jaw", "left_eye", "right_eye"), (),
    ("left_shoulder",), ("left_elbow",), ("left_wrist",),
    ("right_shoulder",), ("right_elbow",), ("right_wrist",),
)  # fmt: skip


def simplify(vertices: np.ndarray, faces: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Collapses edges of a closed mesh (V, 3), (F, 3) into one of their ends until `count` vertices are left.

    The cheapest edge goes first: the mean squared distance from the planes that the vertex once lay on
    (Garland and Heckbert 1997), plus a share of its squared length that keeps the mesh even. Collapses that
    would pinch the surface or turn a triangle over are left out.
    Returns the indices (count,) of the vertices that stay, and the triangles (F', 3) among them.
    """
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(normals, axis=1)
    normals = normals / np.maximum(areas, 1e-20)[:, None]
    planes = np.concatenate([normals, -(normals * corners[:, 0]).sum(1, keepdims=True)], axis=1)
    quadrics, weight = np.zeros((len(vertices), 4, 4)), np.zeros(len(vertices))
    for corner in faces.T:
        np.add.at(quadrics, corner, areas[:, None, None] * planes[:, :, None] * planes[:, None])
        np.add.at(weight, corner, areas)
    around: list[set[int]] = [set() for _ in vertices]  # the triangles at each vertex
    triangles = [tuple(map(int, face)) for face in faces]
    for index, face in enumerate(triangles):
        for corner in face:
            around[corner].add(index)
    homogeneous = np.concatenate([vertices, np.ones((len(vertices), 1))], axis=1)
    version, alive = [0] * len(vertices), len(vertices)

    def neighbours(vertex: int) -> set[int]:
        return {corner for index in around[vertex] for corner in triangles[index]} - {vertex}

    def cost(gone: int, kept: int) -> float:
        point = homogeneous[kept]
        error = point @ (quadrics[gone] + quadrics[kept]) @ point / (weight[gone] + weight[kept])
        return error + (EVENNESS * np.linalg.norm(vertices[gone] - vertices[kept])) ** 2

    def entries(vertex: int) -> list[tuple]:
        pairs = ((a, b) for other in neighbours(vertex) for a, b in ((vertex, other), (other, vertex)))
        return [(cost(a, b), a, b, version[a], version[b]) for a, b in pairs]

    def normal(face: tuple[int, ...]) -> np.ndarray:
        a, b, c = vertices[list(face)]
        (ux, uy, uz), (vx, vy, vz) = b - a, c - a
        return np.array([uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx])

    heap = [entry for vertex in range(len(vertices)) for entry in entries(vertex) if entry[1] == vertex]
    heapq.heapify(heap)
    while alive > count:
        _, gone, kept, version_gone, version_kept = heapq.heappop(heap)
        if (version[gone], version[kept]) != (version_gone, version_kept):
            continue
        if len(neighbours(gone) & neighbours(kept)) != 2:
            continue
        moved = {
            i: tuple(kept if c == gone else c for c in triangles[i]) for i in around[gone] - around[kept]
        }
        turned = [(normal(triangles[i]), normal(face)) for i, face in moved.items()]
        if any(a @ b <= 0.2 * np.sqrt((a @ a) * (b @ b)) for a, b in turned):
            continue
        for index in around[gone] & around[kept]:
            for corner in triangles[index]:
                around[corner].discard(index)
        for index, face in moved.items():
            triangles[index] = face
            around[kept].add(index)
        around[gone] = set()
        quadrics[kept] += quadrics[gone]
        weight[kept] += weight[gone]
        version[gone] = -1
        version[kept] += 1
        alive -= 1
        for entry in entries(kept):
            heapq.heappush(heap, entry)
    stays = np.array([vertex for vertex, at in enumerate(around) if at])
    left = sorted({index for at in around for index in at})
    new = np.full(len(vertices), -1)
    new[stays] = np.arange(len(stays))
    return stays, new[np.array([triangles[index] for index in left])]


def fit_h36m(body, stays: np.ndarray, crown: int, samples: int, near: int = 150) -> np.ndarray:
    """Non-negative weights (17, 6890), summing to one, that find the joints of random posed bodies."""
    generator = torch.Generator().manual_seed(0)
    betas = torch.randn(samples, NUM_BETAS, generator=generator, dtype=torch.float64)
    rotvec = 0.4 * torch.randn(samples, 22, 3, generator=generator, dtype=torch.float64)
    vertices, joints = (x.numpy() for x in body(betas, roma.rotvec_to_rotmat(rotvec)))
    rest = body.rest_vertices(torch.zeros(1, NUM_BETAS, dtype=torch.float64))[0].numpy()
    still = (
        body(torch.zeros(1, NUM_BETAS).double(), torch.eye(3).double().expand(1, 22, 3, 3)).joints[0].numpy()
    )
    regressor = np.zeros((len(H36M), len(stays)))
    for row, names in enumerate(H36M):
        if not names:
            regressor[row, np.flatnonzero(stays == crown)] = 1
            continue
        chosen = [JOINT_NAMES.index(name) for name in names]
        distance = np.linalg.norm(rest[stays] - still[chosen].mean(0), axis=1)
        columns = np.argsort(distance, kind="stable")[:near]
        if row == 0:  # between the hips, there is as much to choose from on either side
            columns = np.argsort(distance, kind="stable")[: 3 * near]
        points, target = vertices[:, stays[columns]], joints[:, chosen].mean(1)
        system = np.concatenate(
            [points.transpose(0, 2, 1).reshape(-1, len(columns)), np.ones((1, len(columns)))]
        )
        weights, _ = scipy.optimize.nnls(system, np.append(target.reshape(-1), 1.0))
        regressor[row, columns] = weights / weights.sum()
    return regressor


def save_sparse(path: Path, matrix: np.ndarray | scipy.sparse.spmatrix) -> None:
    with replacing(path) as temporary, open(temporary, "wb") as file:
        scipy.sparse.save_npz(file, scipy.sparse.csr_matrix(matrix, dtype=np.float32))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=OPEN_BODY.parents[1] / "smpl", help="folder to write to")
    parser.add_argument("--poses", type=int, default=24, help="random bodies that the joints are fitted to")
    args = parser.parse_args()
    arrays, body = read_body(OPEN_BODY), load_body(OPEN_BODY).double()
    template = arrays["v_template"].astype(np.float64)

    stays, faces = simplify(template, arrays["f"].astype(np.int64), SMPL_VERTICES)
    crown = stays[template[stays, 1].argmax()]
    print(f"{len(stays)} vertices and {len(faces)} faces stay")

    weights = arrays["weights"][stays].astype(np.float32)
    folded = np.zeros((len(stays), 24), np.float32)
    onto = [*range(22), 15, 15, 15, *[22] * 15, *[23] * 15]
    np.add.at(folded.T, np.array(onto), weights.T)
    shapedirs = np.zeros((len(stays), 3, COLUMNS), np.float16)
    shapedirs[..., :NUM_BETAS] = arrays["shapedirs"][stays, :, :NUM_BETAS]
    directions = shapedirs[..., :NUM_BETAS].astype(np.float64).transpose(2, 0, 1)

    # SMPL's hand joints: the mean of the four knuckles.
    fingers = ("index", "middle", "ring", "pinky")
    knuckles = [[JOINT_NAMES.index(f"{side}_{f}1") for f in fingers] for side in ("left", "right")]
    sources = [[j] for j in range(22)] + knuckles
    regressor = arrays["J_regressor"].astype(np.float64)
    ours = np.stack([regressor[s].mean(0) for s in sources])  # (24, V) of the open body
    all_directions = arrays["shapedirs"][..., :NUM_BETAS].astype(np.float64).transpose(2, 0, 1)
    joint_mean, joint_directions = ours @ template, np.einsum("jv,cvk->cjk", ours, all_directions)
    smpl_regressor = fit_regressor(template[stays], directions, joint_mean, joint_directions)

    smpl = {
        "v_template": arrays["v_template"][stays],
        "shapedirs": shapedirs,
        "posedirs": np.zeros((len(stays), 3, 9 * 23), np.int8),
        "J_regressor": smpl_regressor.astype(np.float32),
        "weights": folded.astype(np.float16),
        "kintree_table": np.array([[2**32 - 1, *SMPL_PARENTS[1:]], range(24)], np.uint32),
        "f": faces.astype(np.uint32),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    with replacing(args.out / "SMPL_NEUTRAL.npz") as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **smpl)
    rows = np.arange(len(stays))
    selection = scipy.sparse.csr_matrix(
        (np.ones(len(stays)), (rows, stays)), shape=(len(stays), len(template))
    )
    save_sparse(args.out / "smplx2smpl.npz", selection)
    h36m = fit_h36m(body, stays, crown, args.poses)
    save_sparse(args.out / "J_regressor_h36m.npz", np.where(h36m > 1e-4, h36m, 0))
    for path in sorted(args.out.iterdir()):
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
