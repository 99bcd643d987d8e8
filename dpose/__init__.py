"""D-PoSE: an image crop of a person to a posed SMPL-X body, with a depth map and a part segmentation.

Importing the package is fast: submodules are imported when a name is first used. The names below are the most
common ones.

    the network on one page                  dpose.model.network, its sizes in dpose.config
    a crop is cut                            dpose.data.sample
    people in photographs                    dpose.predictor, with dpose.detect; files in dpose.export
    boxes, intrinsics, projection            dpose.camera
    part labels and depth targets are made   dpose.data.targets, with dpose.render
    files of a data set become labels        dpose.data.sets, and shards in dpose.data.prepare
    batches are loaded                       dpose.data.loader
    a training step is computed              dpose.training.step, its losses in dpose.losses
    a run starts, is saved and is resumed    dpose.training.run, .callbacks, .resume
    a checkpoint is read                     dpose.model.checkpoint
    a network is measured                    dpose.evaluate, with dpose.metrics
    what its errors depend on                dpose.analysis
    open people are made                     dpose.synthetic
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "Batch": "dpose.batch",
    "DPose": "dpose.model.network",
    "FastDPose": "dpose.model.inference",
    "ModelConfig": "dpose.config",
    "PRESETS": "dpose.config",
    "Person": "dpose.predictor",
    "Prediction": "dpose.batch",
    "Predictor": "dpose.predictor",
    "load": "dpose.model.checkpoint",
    "load_body": "dpose.body",
    "parameter_table": "dpose.model.network",
    "predict": "dpose.predictor",
    "preset": "dpose.config",
    "save": "dpose.model.checkpoint",
}
_SUBMODULES = (
    "analysis body camera config data evaluate figures losses metrics model render results synthetic training"
).split()

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    """Imports a re-exported name or a submodule on first use (PEP 562)."""
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"dpose.{name}")
    raise AttributeError(f"module 'dpose' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS, *_SUBMODULES})
