"""One step of training, as a `LightningModule`: batch, losses, gradients, optimizer.

Nothing in a step waits for the device: losses are summed there and read back only when a row of the log is
written (`dpose.training.callbacks`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import lightning.pytorch as lightning
import torch
from torch import Tensor

from dpose.batch import Batch
from dpose.body import Body
from dpose.data.loader import make_loader
from dpose.losses import compute_losses
from dpose.model.hrnet import HRNet
from dpose.model.inference import run_network, to_device
from dpose.model.network import DPose
from dpose.training.config import TrainConfig
from dpose.training.environment import PRECISIONS, set_up_process
from dpose.training.recipe import learning_rate


class Training(lightning.LightningModule):
    """A network, its losses and its optimizer. Only `model` has state: checkpoints hold no body.

    Args:
        model: the network, with its starting weights.
        body: the body that the data name.
        config: resolved.
        ranks: what the checkpoint to resume recorded for each process.

    Attributes:
        losses: every term of the last step, on the device.
        grad_norm: of the last step, before clipping.
        loader: the training data; None before the run.
    """

    def __init__(
        self, model: DPose, body: Body, config: TrainConfig, ranks: list[dict[str, Any]] | None = None
    ) -> None:
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last)
        unused = []
        if model.attention is not None:
            unused.append(model.attention.conv_shape_cam)  # in the published weights, but in no output
        if isinstance(model.encoder, HRNet):
            unused.append(model.encoder.final_layer)
        elif config.recipe.backbone_lr == 0:
            unused.append(model.encoder.backbone)
        for module in unused:  # DDP would wait for gradients that never come
            module.requires_grad_(False)
        self.config = config
        self.ranks = ranks
        self._body = [body]  # in a list, so that it is no submodule
        self.losses: dict[str, Tensor] = {}
        self.grad_norm: Tensor | None = None
        self.loader: Iterable[Batch] | None = None

    def setup(self, stage: str) -> None:
        set_up_process(self.config.precision, self.config.accelerator)

    def train_dataloader(self) -> Iterable[Batch]:
        config = self.config
        self.loader = make_loader(
            config.data,
            "train",
            self.model.config,
            config.batch_size // (self.trainer.world_size * config.accumulate),
            train=True,
            seed=config.seed,
            workers=config.workers,
            mix=config.mix,
            augment=config.recipe.augmentation,
            depth_rule=config.recipe.depth_rule,
            max_bad=config.max_bad,
            resume=self.ranks and [rank["loader"] for rank in self.ranks],
            pin_memory=self.device.type == "cuda",
        )
        return self.loader

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return to_device(batch, device)

    def on_fit_start(self) -> None:
        self._body[0] = self._body[0].to(self.device)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        (optimizer,) = self.trainer.optimizers
        rate = learning_rate(self.trainer.global_step, self.config.recipe)
        for group in optimizer.param_groups:  # without a scheduler, whose state would keep an old rate
            group["lr"] = rate * group.get("factor", 1.0)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        wanted = self._body[0].name
        for key, body in zip(batch["key"], batch["body"], strict=True):
            if body != wanted:
                raise ValueError(f"sample {key} belongs to the body {body!r}, other data to {wanted!r}")
        prediction = run_network(self.model, batch, bf16=PRECISIONS[self.config.precision].bf16)
        terms = compute_losses(prediction, batch, self._body[0], self.config.recipe.weights)
        self.losses = {name: value.detach() for name, value in terms.items()}
        return terms["total"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        recipe, encoder = self.config.recipe, self.model.encoder
        pretrained = set() if isinstance(encoder, HRNet) else set(encoder.backbone.parameters())
        groups = [{"params": [p for p in self._trained() if p not in pretrained]}]
        if slow := [p for p in self._trained() if p in pretrained]:
            groups.append({"params": slow, "factor": recipe.backbone_lr})
        return torch.optim.Adam(groups, lr=recipe.lr, fused=True)

    def configure_gradient_clipping(
        self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None
    ) -> None:
        # not the Trainer's `gradient_clip_val`, which does not return the norm
        self.grad_norm = torch.nn.utils.clip_grad_norm_(
            self._trained(), self.config.recipe.clip, foreach=True
        )

    def _trained(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]
