"""Counted memory: formulas by hand, kept activations against real tensors, the sizes of the published model."""

import pytest
import torch
from torch import nn

from faceswap_diffusion.conversion.reface import PUBLISHED, build_empty_pipeline
from faceswap_diffusion.training.engine.memory import (
    ParameterCounts,
    SavedTensors,
    count_activations,
    count_memory,
    count_parameters,
)
from faceswap_diffusion.training.engine.trainable import select_trainable
from tests.tiny import CROP_SIZE, CROSS_ATTENTION_DIM, tiny_pipeline

COUNTS = ParameterCounts(trained=100, held=60, frozen=10, largest_unit=20)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # weights, gradients, optimizer, running average, exchange
        ({}, [4 * 170, 400, 800, 400, 0]),
        ({"use_8bit_adam": True}, [4 * 170, 400, 200, 400, 0]),
        ({"strategy": "ddp", "num_gpus": 4}, [4 * 170, 400, 800, 400, 400]),
        ({"strategy": "fsdp", "num_gpus": 4}, [160 + 40, 100, 200, 100, 240]),
    ],
)
def test_bytes_of_each_strategy(arguments, expected):
    assert list(count_memory(COUNTS, **arguments).values()) == expected


def test_an_unknown_strategy_is_an_error():
    with pytest.raises(ValueError, match="choose one of one, ddp, fsdp"):
        count_memory(COUNTS, "zero_3")


def test_the_published_model_has_the_parameters_that_are_known_of_it():
    pipeline = build_empty_pipeline(PUBLISHED)
    select_trainable(pipeline, "full")
    counts = count_parameters(pipeline)
    unet = sum(parameter.numel() for parameter in pipeline.unet.parameters())
    assert unet == 859_535_364
    assert counts.trained > unet
    assert counts.trained + counts.held + counts.frozen == pytest.approx(1_327_599_000, rel=0.001)


@pytest.mark.parametrize("mode", ["full", "attention", "lora"])
def test_trained_parameters_are_those_of_the_mode(mode):
    pipeline = tiny_pipeline()
    select_trainable(pipeline, mode, lora_rank=2)
    counts, parts = count_parameters(pipeline), [pipeline.unet, pipeline.conditioner]
    assert counts.trained == sum(p.numel() for part in parts for p in part.parameters() if p.requires_grad)
    assert (counts.held < 1000) == (mode == "full"), "buffers for landmarks are not trained"


def test_weights_of_the_recognizer_count_though_they_are_buffers():
    pipeline = tiny_pipeline()
    select_trainable(pipeline, "full")
    others = sum(p.numel() for part in (pipeline.vae, pipeline.image_encoder) for p in part.parameters())
    assert count_parameters(pipeline).frozen - others == pytest.approx(9.63e6, rel=0.01)


def test_each_kept_storage_counts_once_and_weights_do_not():
    layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    kept = SavedTensors(layers.parameters())
    kept.run(lambda: layers(torch.zeros(3, 4)).sum())
    assert kept.num_bytes == 4 * (3 * 4 + 3 * 8)  # the input, and what ReLU returns, which it and the next layer keep


def test_activations_are_those_of_real_networks():
    pipeline = tiny_pipeline()
    counted = count_activations(pipeline)
    unet, vae = pipeline.unet.train(), pipeline.vae.requires_grad_(False)
    side = CROP_SIZE // 2
    context = torch.zeros(1, 1, CROSS_ATTENTION_DIM, requires_grad=True)
    kept = SavedTensors(unet.parameters())
    output = kept.run(lambda: unet(torch.zeros(1, 9, side, side), torch.zeros(1), context).sample)
    assert output.shape == (1, 4, side, side)
    assert counted.unet == kept.num_bytes
    kept = SavedTensors(vae.parameters())
    kept.run(lambda: vae.decode(torch.zeros(1, 4, side, side, requires_grad=True)).sample)
    assert counted.decoder == kept.num_bytes


def test_checkpointing_keeps_less():
    counted = count_activations(build_empty_pipeline(PUBLISHED))
    assert counted.unet_checkpointed < counted.unet / 3
    assert counted.decoder_checkpointed < counted.decoder
