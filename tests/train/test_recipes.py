"""The files for `train_faceswap.py --config`: read by the script's own parser, and what they come to."""

from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from faceswap_diffusion.masks.parsing import LABELS
from faceswap_diffusion.training.command_line import flatten, parse_config
from faceswap_diffusion.training.config import (
    CacheLatentsConfig,
    ReferenceConfig,
    SampleConfig,
    TrainFaceswapConfig,
)
from faceswap_diffusion.training.data.batches import SampleRoles
from faceswap_diffusion.training.data.mask_shuffling import MASK_SETS, check_mask_sets, draw_mask_set, parse_mask_sets
from faceswap_diffusion.training.engine.randomness import generator_for

TRAIN = Path(__file__).parents[2] / "train"
RECIPES = ["finetune_full", "finetune_lora", "reface", "small", "small_plain", "small_samples", "toy"]


def parsed(*arguments: str) -> SimpleNamespace:
    """Settings of train_faceswap.py, by the names of the options."""
    given = [*arguments, "--output_dir", "run"]
    return SimpleNamespace(**flatten(parse_config(TrainFaceswapConfig, "train_faceswap.py", None, given)))


def parsed_recipe(name: str) -> SimpleNamespace:
    return parsed("--config", str(TRAIN / "recipes" / f"{name}.yaml"), "--train_data_dir", "faces")


def test_every_recipe_is_tested_and_named_in_the_page():
    page = (TRAIN / "README.md").read_text()
    assert sorted(path.stem for path in (TRAIN / "recipes").iterdir()) == RECIPES
    for name in RECIPES:
        assert f"recipes/{name}.yaml" in page


@pytest.mark.parametrize("name", RECIPES)
def test_every_line_of_a_recipe_reaches_the_script(name):
    args = parsed_recipe(name)
    for key, value in yaml.safe_load((TRAIN / "recipes" / f"{name}.yaml").read_text()).items():
        assert getattr(args, key) == value, key


@pytest.mark.parametrize("name", RECIPES)
def test_the_batch_of_one_process_holds_the_roles_that_a_recipe_wants(name):
    args = parsed_recipe(name)
    SampleRoles.from_shares(args.cross_identity_share, args.self_reconstruction_share).check(
        args.train_batch_size, args.train_batch_size
    )


@pytest.mark.parametrize("name", RECIPES)
def test_the_mask_sets_of_a_recipe_are_those_of_our_parser_and_swap_whole_faces(name):
    weights = parse_mask_sets(parsed_recipe(name).mask_sets)
    check_mask_sets(weights, LABELS)
    assert draw_mask_set(weights, generator_for(0, "sample", 0), repaints_face=True) in MASK_SETS.values()


def test_the_plain_stage_of_the_small_model_can_be_trained_on_latents_of_its_samples():
    """One file says what samples are, to the script that encodes them and to the run; the other leaves that alone."""
    samples, plain = (TRAIN / "recipes" / f"small_{name}.yaml" for name in ("samples", "plain"))
    trained = parsed(f"--config={samples}", f"--config={plain}", "--latents_dir=latents")
    caching = [f"--config={samples}", "--train_data_dir=faces", "--num_samples=1", "--output_dir=latents"]
    cached = flatten(parse_config(CacheLatentsConfig, "cache_latents.py", None, caching))
    names = [field.name for field in fields(SampleConfig)]
    names += [f"reference_{field.name}" for field in fields(ReferenceConfig)]
    for name in ("crop_size", "hidden_fill", "seed", *names):
        assert getattr(trained, name) == cached[name], name
    assert (trained.cross_identity_share, trained.self_reconstruction_share) == (0, 0)
    assert trained.latent_window % 8 == 0, "the UNet halves it three times"
    assert trained.hidden_fill == "reference"


def test_the_recipe_of_reface_has_what_the_paper_and_its_released_code_say():
    """arXiv 2409.07269, section 3.3: eps-MSE + 0.3 identity + 0.1 LPIPS through four steps with gradients."""
    args = parsed_recipe("reface")
    assert (args.identity_weight, args.lpips_weight, args.coarse_weight, args.adversarial_weight) == (0.3, 0.1, 0, 0)
    assert (args.num_rollout_steps, args.rollout_depth, args.rollout_start) == ([4], "full", "target")
    assert args.num_gradient_steps is None
    assert (args.timestep_sampling, args.outside_weight, args.snr_gamma) == ("uniform", 1, None)
    assert (args.learning_rate, args.lr_scheduler, args.lr_warmup_steps) == (1e-5, "constant_with_warmup", 10_000)
    assert (args.unconditional_probability, args.pair_probability) == (0.2, 0)
    assert set(parse_mask_sets(args.mask_sets)) == {"face", "head"}
    roles = SampleRoles.from_shares(args.cross_identity_share, args.self_reconstruction_share)
    assert (roles.num_cross_identity, roles.num_self_reconstruction) == (1, 0), (
        "each GPU takes both losses in every step"
    )
    assert roles.period == args.train_batch_size
