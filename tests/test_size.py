"""Counts of parameters and work against hand formulas and the numbers in the literature."""

import pytest
import torch
from lightning.pytorch.utilities.model_summary.model_summary import get_human_readable_count

from dpose import DPose, preset
from dpose.model.published import HMR2, TokenHMR, ViTH, discriminator
from dpose.model.size import multiply_adds, network_size


def on_meta(build):
    with torch.device("meta"):
        return build()


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_the_vit_h_has_the_parameters_of_a_hand_formula():
    dim, depth, patch, tokens = 1280, 32, 16, 16 * 12
    layer = 4 * dim**2 + 4 * dim + 8 * dim**2 + 5 * dim + 4 * dim  # attention, MLP, two norms
    embedding = 3 * patch**2 * dim + dim + (tokens + 1) * dim

    assert parameters(on_meta(ViTH)) == depth * layer + embedding + 2 * dim


def test_the_vit_h_has_the_multiply_adds_of_a_hand_formula():
    dim, depth, patch, tokens = 1280, 32, 16, 16 * 12
    layer = tokens * 12 * dim**2 + 2 * tokens**2 * dim

    network, image = on_meta(lambda: (ViTH(), torch.zeros(1, 3, 256, 192)))

    assert multiply_adds(network, image) == depth * layer + tokens * 3 * patch**2 * dim


def test_a_multiply_add_is_one_product_and_one_sum():
    linear, x = on_meta(lambda: (torch.nn.Linear(5, 7), torch.zeros(3, 5)))

    assert multiply_adds(linear, x) == 3 * 5 * 7


def test_the_papers_numbers_follow_with_the_discriminator_and_without_the_pose_tokenizer():
    hmr2, tokenhmr = on_meta(HMR2), on_meta(TokenHMR)
    ours = network_size("paper")
    published = (
        parameters(hmr2) + parameters(on_meta(discriminator)),
        parameters(tokenhmr) - parameters(tokenhmr.tokenizer),
        ours.parameters + ours.buffers,
    )

    assert [get_human_readable_count(number) for number in published] == ["672 M", "681 M", "81.2 M"]


@pytest.mark.parametrize("network", [HMR2, TokenHMR])
def test_a_published_network_predicts_24_rotations_10_betas_and_a_camera(network):
    model, image = on_meta(lambda: (network(), torch.zeros(2, 3, 256, 192)))

    assert [tuple(out.shape) for out in model(image)] == [(2, 144), (2, 10), (2, 3)]


@pytest.mark.parametrize(
    ("name", "expected"),  # counted with the code that the authors published, layer for layer
    [("HMR2.0", (670_459_037, 125_547_352_064)), ("TokenHMR", (687_636_837, 126_041_951_232))],
)
def test_a_published_network_has_the_size_and_work_of_its_authors_code(name, expected):
    size = network_size(name)

    assert (size.parameters, size.multiply_adds) == expected
    assert size.image_size == (256, 192)


def test_the_memory_of_a_preset_is_that_of_all_the_numbers_in_its_checkpoint():
    numbers = sum(tensor.numel() for tensor in on_meta(lambda: DPose(preset("mini"))).state_dict().values())
    size = network_size("mini")

    assert (size.weight_bytes(), size.weight_bytes(16)) == (4 * numbers, 2 * numbers)


def test_an_unknown_network_is_named():
    with pytest.raises(ValueError, match="HMR3"):
        network_size("HMR3")
