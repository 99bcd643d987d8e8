"""Fixtures that several test files share: a tiny data set, and a network trained on it for a moment."""

from pathlib import Path

import pytest
import torch
from random_people import write_random_people


@pytest.fixture(scope="session")
def people(tmp_path_factory) -> Path:
    """A data root with 16 training, 4 validation and 7 test people."""
    return write_random_people(tmp_path_factory.mktemp("people"), train=16, test=7)


@pytest.fixture(scope="session")
def trained(people, tmp_path_factory):
    """The result of a run of 6 steps on `people`."""
    from dpose.training import TrainConfig, train

    torch.set_num_threads(1)
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
