"""Measures this package's networks against REFace's own code, on the same random weights, in one run.

    git clone https://github.com/Sanoojan/REFace
    pip install einops omegaconf
    python benchmarks/against_reface.py --reface REFace

A denoising step with guidance, encoding and decoding are timed by turns, so that a busy machine slows both alike: on a
CPU in processor seconds, else in seconds. A whole swap is their sum; what makes the conditions is the same on both
sides and left out. Each side has a process of its own, so that memory is told apart.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from faceswap_diffusion.conversion.compvis import UNET_PREFIX, VAE_PREFIX, compvis_shape, unet_keys, vae_keys
from faceswap_diffusion.conversion.reface import PUBLISHED, Architecture, stable_diffusion_scheduler
from faceswap_diffusion.devices import DTYPES, network_layout, resolve_device
from faceswap_diffusion.evaluation.command import positive
from faceswap_diffusion.memory import peak_memory
from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.pipelines.latents import posterior, unscale

OURS, THEIRS = "this package", "REFace"
PARTS = ("step", "encode", "decode")
STEP_GOAL, SWAP_GOAL, MEMORY_GOAL = 0.33, 0.03, 0.6
TIMESTEP = 501

Prediction = Callable[[dict[str, torch.Tensor]], torch.Tensor]


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python benchmarks/against_reface.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--reface", type=Path, required=True, metavar="FOLDER", help="a clone of github.com/Sanoojan/REFace")
    add("--device", help="cuda, mps or cpu (default: what is there)")
    add("--dtype", choices=DTYPES, default="float32",
        help="of this package's networks; REFace's stay in float32 (default: %(default)s)")  # fmt: skip
    add("--size", type=positive, default=512, metavar="PIXELS", help="of the crops (default: 512)")
    add("--num_inference_steps", type=positive, default=4, metavar="N", help="of our swap (default: 4)")
    add("--reface_steps", type=positive, default=50, metavar="N", help="of REFace's swap (default: 50)")
    add("--guidance_scale", type=float, default=3.5, metavar="SCALE", help="(default: 3.5)")
    add("--runs", type=positive, default=3, metavar="N", help="whose median ratio is taken (default: 3)")
    add("--output", type=Path, metavar="JSON", help="write the figures")
    return parser


def build_networks(architecture: Architecture, device: torch.device) -> tuple[UNet2DConditionModel, AutoencoderKL]:
    """UNet and autoencoder with random weights, the same at each call."""
    with device:
        torch.manual_seed(0)
        unet, vae = UNet2DConditionModel(**architecture.unet), AutoencoderKL(**architecture.vae)
    return unet.eval(), vae.eval()


def made_up_inputs(
    architecture: Architecture, size: int, device: torch.device, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """Noise for every input: neither seconds nor memory depend on what a picture shows."""
    generator, side = torch.Generator().manual_seed(1), size // 8
    draw = lambda *shape: torch.randn(*shape, generator=generator).to(device, dtype)  # noqa: E731
    width = architecture.unet["cross_attention_dim"]
    return {
        "latents": draw(1, 4, side, side),
        "masked_image_latents": draw(1, 4, side, side),
        "mask_latents": (draw(1, 1, side, side) > 0).to(dtype),
        "condition_embeds": draw(1, 1, width),
        "negative_condition_embeds": draw(1, 1, width),
        "pixel_values": draw(1, 3, size, size).clamp(-1, 1),
    }


def our_parts(
    architecture: Architecture, guidance_scale: float, device: torch.device, dtype: torch.dtype
) -> dict[str, Prediction]:
    """What is timed of this package, in the layout that `FaceSwapper.from_pretrained` gives its networks."""
    layout = network_layout(device)
    unet, vae = build_networks(architecture, device)
    unet = unet.to(dtype=dtype, memory_format=layout)  # pyright: ignore[reportCallIssue]
    vae = vae.to(dtype=dtype, memory_format=layout)  # pyright: ignore[reportCallIssue]
    pipeline = FaceSwapInpaintPipeline(
        vae, unet, None, None, None, stable_diffusion_scheduler(), **{**architecture.pipeline, "crop_size": None}
    )
    pipeline._guidance_scale = guidance_scale
    autoencoder: Any = vae  # diffusers declares its latents as of one type of the CPU

    def step(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return pipeline.predict_noise(
            inputs["latents"],
            torch.tensor(TIMESTEP, device=device),
            inputs["condition_embeds"],
            inputs["mask_latents"],
            inputs["masked_image_latents"],
            inputs["negative_condition_embeds"],
        )

    return {
        "step": step,
        "encode": lambda inputs: posterior(vae, inputs["pixel_values"]).mode(),
        "decode": lambda inputs: autoencoder.decode(unscale(vae, inputs["latents"]), return_dict=False)[0],
    }


def their_parts(
    clone: Path, architecture: Architecture, guidance_scale: float, device: torch.device
) -> dict[str, Prediction]:
    """What is timed of REFace, with our weights in its networks, as its DDIM sampler calls them.

    Raises:
        ValueError: If the clone cannot be imported.
    """
    unet, vae = build_networks(architecture, device)
    their_unet, their_vae = import_networks(clone, architecture)
    fill(their_unet, unet, unet_keys(list(unet.state_dict()), unet.config), UNET_PREFIX)
    fill(their_vae, vae, vae_keys(list(vae.state_dict()), vae.config), VAE_PREFIX)
    factor = architecture.vae["scaling_factor"]

    def step(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        parts = inputs["latents"], inputs["masked_image_latents"], 1 - inputs["mask_latents"]
        timesteps = torch.full((2,), TIMESTEP, device=device)
        contexts = torch.cat([inputs["negative_condition_embeds"], inputs["condition_embeds"]])
        without, with_condition = their_unet(torch.cat([torch.cat(parts, dim=1)] * 2), timesteps, contexts).chunk(2)
        return without + guidance_scale * (with_condition - without)

    return {
        "step": step,
        "encode": lambda inputs: their_vae["quant_conv"](their_vae["encoder"](inputs["pixel_values"])).chunk(2, 1)[0],
        "decode": lambda inputs: their_vae["decoder"](their_vae["post_quant_conv"](inputs["latents"] / factor)),
    }


def import_networks(clone: Path, architecture: Architecture) -> tuple[nn.Module, nn.ModuleDict]:
    """REFace's UNet and autoencoder, without weights.

    Raises:
        ValueError: If the clone cannot be imported.
    """
    sys.path.insert(0, str(clone))
    try:
        from ldm.modules.diffusionmodules.model import Decoder, Encoder  # pyright: ignore[reportMissingImports]
        from ldm.modules.diffusionmodules.openaimodel import UNetModel  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(
            f"cannot import REFace's code from {clone} ({error}): pass a clone of github.com/Sanoojan/REFace, and "
            "pip install einops omegaconf"
        ) from None
    unet, vae = architecture.unet, architecture.vae
    width, channels = unet["block_out_channels"][0], vae["latent_channels"]
    sizes = {
        "ch": vae["block_out_channels"][0],
        "ch_mult": [level // vae["block_out_channels"][0] for level in vae["block_out_channels"]],
        "num_res_blocks": vae["layers_per_block"],
        "attn_resolutions": [],
        "in_channels": 3,
        "out_ch": 3,
        "resolution": vae["sample_size"],
        "z_channels": channels,
        "double_z": True,
    }
    with torch.device("meta"):
        network = UNetModel(
            image_size=unet["sample_size"],
            in_channels=unet["in_channels"],
            out_channels=unet["out_channels"],
            model_channels=width,
            attention_resolutions=[4, 2, 1],
            num_res_blocks=2,
            channel_mult=[level // width for level in unet["block_out_channels"]],
            num_heads=unet["attention_head_dim"],
            use_spatial_transformer=True,
            transformer_depth=1,
            context_dim=unet["cross_attention_dim"],
            use_checkpoint=False,  # it saves memory in training alone
            legacy=False,
        )
        autoencoder = nn.ModuleDict({"encoder": Encoder(**sizes), "decoder": Decoder(**sizes)})
        autoencoder["quant_conv"] = nn.Conv2d(2 * channels, 2 * channels, 1)
        autoencoder["post_quant_conv"] = nn.Conv2d(channels, channels, 1)
    return network.eval(), autoencoder.eval()


def fill(theirs: nn.Module, ours: nn.Module, keys: dict[str, str], prefix: str) -> None:
    """Puts our weights into a network of REFace's; they share the memory."""
    weights = {
        keys[name].removeprefix(prefix): weight.reshape(compvis_shape(keys[name], tuple(weight.shape)))
        for name, weight in ours.state_dict().items()
    }
    theirs.load_state_dict(weights, assign=True)


def worker(side: str, settings: dict[str, Any], connection: Connection) -> None:
    """Answers with seconds and result of the parts that are asked for, and in the end with the peak of memory."""
    device, architecture = torch.device(settings["device"]), settings["architecture"]
    dtype = DTYPES[settings["dtype"]] if side == OURS else torch.float32
    before = peak_memory(device)
    try:
        if side == OURS:
            parts = our_parts(architecture, settings["guidance_scale"], device, dtype)
        else:
            parts = their_parts(settings["reface"], architecture, settings["guidance_scale"], device)
    except ValueError as error:
        connection.send(str(error))
        return
    inputs = made_up_inputs(architecture, settings["size"], device, dtype)
    connection.send(None)
    while (part := connection.recv()) is not None:
        started = seconds_of(device)
        with torch.no_grad():
            result = parts[part](inputs)
        connection.send((seconds_of(device) - started, result.float().cpu().numpy()))
    connection.send(peak_memory(device) - before)


def seconds_of(device: torch.device) -> float:
    """A clock: of this process' processors on a CPU, which others do not disturb much."""
    if device.type == "cpu":
        return time.process_time()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def compare(settings: dict[str, Any], runs: int) -> dict[str, Any]:
    """Measures both sides by turns.

    Args:
        settings (`dict[str, Any]`): `reface`, `architecture`, `size`, `guidance_scale`, `device` and `dtype`.
        runs (`int`): How often each part is measured, after one call that counts for nothing.

    Returns:
        `dict[str, Any]`: For each part and side its `seconds`, for each side its `peak_memory` in bytes, and for each
        part the greatest `difference` of the results.

    Raises:
        ValueError: If the clone cannot be imported.
    """
    context = multiprocessing.get_context("spawn")
    links, processes = {}, []
    for side in (OURS, THEIRS):
        links[side], end = context.Pipe()
        processes.append(context.Process(target=worker, args=(side, settings, end), daemon=True))
        processes[-1].start()
    refusals = [refusal for link in links.values() if (refusal := link.recv()) is not None]
    if refusals:
        raise ValueError(refusals[0])
    figures: dict[str, Any] = {"seconds": {part: {side: [] for side in links} for part in PARTS}, "difference": {}}
    for part in PARTS:
        for run in range(runs + 1):
            results = {side: ask(link, part) for side, link in links.items()}
            for side, (seconds, _) in results.items():
                if run:
                    figures["seconds"][part][side].append(seconds)
        (_, ours), (_, theirs) = results.values()
        figures["difference"][part] = float(abs(ours - theirs).max())
    figures["peak_memory"] = {side: ask(link, None) for side, link in links.items()}
    for process in processes:
        process.join()
    return figures


def ask(link: Connection, part: str | None) -> Any:
    """What a side answers."""
    link.send(part)
    return link.recv()


def whole_swap(figures: dict[str, Any], side: str, num_inference_steps: int) -> float:
    """Seconds of a swap: encoding once, the steps, decoding once."""
    step, encode, decode = (statistics.median(figures["seconds"][part][side]) for part in PARTS)
    return encode + num_inference_steps * step + decode


def table_lines(figures: dict[str, Any], num_inference_steps: int, reface_steps: int) -> list[str]:
    """The figures as a table, ours over theirs."""
    lines = [
        f"| what | {OURS} | {THEIRS} | ratio | goal | greatest difference |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for part in PARTS:
        sides = figures["seconds"][part]
        ours, theirs = (statistics.median(sides[side]) for side in (OURS, THEIRS))
        ratio = statistics.median(one / other for one, other in zip(sides[OURS], sides[THEIRS], strict=True))
        goal = f"{STEP_GOAL} x" if part == "step" else ""
        lines.append(
            f"| {part} | {ours:.3g} s | {theirs:.3g} s | {ratio:.3f} x | {goal} | {figures['difference'][part]:.1e} |"
        )
    ours, theirs = whole_swap(figures, OURS, num_inference_steps), whole_swap(figures, THEIRS, reface_steps)
    name = f"swap, {num_inference_steps} steps to {reface_steps}"
    lines.append(f"| {name} | {ours:.3g} s | {theirs:.3g} s | {ours / theirs:.3f} x | {SWAP_GOAL} x | |")
    ours, theirs = (figures["peak_memory"][side] / 1e9 for side in (OURS, THEIRS))
    return [*lines, f"| peak memory | {ours:.2f} GB | {theirs:.2f} GB | {ours / theirs:.2f} x | {MEMORY_GOAL} x | |"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and writes; 2 for a user's error."""
    args = build_parser().parse_args(arguments)
    try:
        if not args.reface.is_dir():
            raise ValueError(f"--reface {args.reface} is no folder: pass a clone of github.com/Sanoojan/REFace")
        settings = {
            "reface": args.reface.resolve(),
            "architecture": PUBLISHED,
            "size": args.size,
            "guidance_scale": args.guidance_scale,
            "device": str(resolve_device(args.device)),
            "dtype": args.dtype,
        }
        figures = compare(settings, args.runs)
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    load, lines = os.getloadavg()[0], table_lines(figures, args.num_inference_steps, args.reface_steps)
    conditions = f"{settings['device']}, {args.size} px, ours in {args.dtype}, load after: {load:.1f}"
    sys.stdout.write("\n".join([*lines, "", conditions]) + "\n")
    if args.output:
        args.output.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
