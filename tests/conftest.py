"""Fixtures that several test files share: a tiny data set, and a network trained on it for a moment."""

from pathlib import Path

import cv2
import pytest
import torch
from random_people import write_random_people

from dpose.body import OPEN_FILES, files

# A forked process would wait for ever for the threads of its parent.
torch.set_num_threads(1)
cv2.setNumThreads(1)


@pytest.fixture(scope="session", autouse=True)
def shipped_bodies_are_read_once():
    """Decompression is most of the time of `load_body`, which the tests call a thousand times."""
    read, kept = files.read_body, {}

    def read_once(path):
        if path not in OPEN_FILES.values():
            return read(path)
        if path not in kept:
            kept[path] = read(path)
        return {name: array.copy() for name, array in kept[path].items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "read_body", read_once)
        yield


@pytest.fixture(scope="session")
def people(tmp_path_factory) -> Path:
    """A data root with 16 training, 4 validation and 7 test people."""
    return write_random_people(tmp_path_factory.mktemp("people"), train=16, test=7)


@pytest.fixture(scope="session")
def trained(people, tmp_path_factory):
    """The result of a run of 6 steps on `people`."""
    from dpose.training import TrainConfig, train

    return train(
        TrainConfig(
            preset="mini",
            data=people,
            out=tmp_path_factory.mktemp("run"),
            steps=6,
            batch_size=4,
            workers=0,
            accelerator="cpu",
            log_every=2,
            progress=False,
        )
    )


@pytest.fixture
def quick(people, tmp_path):
    """The configuration of a run of 4 steps on `people`, in one process."""
    from dpose.training import TrainConfig

    return TrainConfig(
        preset="mini",
        data=people,
        out=tmp_path / "run",
        steps=4,
        batch_size=2,
        workers=0,
        accelerator="cpu",
        log_every=1,
        progress=False,
    )
