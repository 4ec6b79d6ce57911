"""What this installation would use: versions, device, attention kernel, models and their licences, OpenCV."""

import argparse
import json
import platform
from pathlib import Path
from typing import Any

from faceswap_diffusion import __version__
from faceswap_diffusion.cli.options import tell
from faceswap_diffusion.console import say
from faceswap_diffusion.versions import installed_versions
from faceswap_diffusion.weights.registry import MODEL_FILES, ModelFileError, model_path

SUMMARY = "say which device, attention kernel, models and OpenCV are used"
PACKAGES = (
    "torch", "diffusers", "transformers", "accelerate", "safetensors", "numpy", "pillow",
    "pillow-heif", "c2pa-python", "ai-edge-litert", "onnxruntime", "insightface", "xformers",
)  # fmt: skip
OPENCV_DISTRIBUTIONS = (
    "opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python",
)  # fmt: skip
CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Examines the installation; 1 if something is wrong with it."""
    report = examine()
    if args.json:
        say(json.dumps(report, indent=2))
    else:
        tell(args, format_report(report))
    return 1 if report["problems"] else 0


def attention_kernels(device: str) -> list[str]:
    """Names the kernels that `scaled_dot_product_attention` may choose from on a device."""
    from torch.backends import cuda

    if not device.startswith("cuda"):
        return ["cpu flash", "math"] if device == "cpu" else ["math"]
    switches = {
        "flash": cuda.flash_sdp_enabled,
        "memory-efficient": cuda.mem_efficient_sdp_enabled,
        "cudnn": cuda.cudnn_sdp_enabled,
        "math": cuda.math_sdp_enabled,
    }
    return [name for name, is_enabled in switches.items() if is_enabled()]


def model_status(name: str) -> str:
    """Says whether a registered model file is there and unaltered: "ok", "not shipped", or what is wrong."""
    if not MODEL_FILES[name].shipped:
        return "not shipped"
    try:
        model_path(name)
    except ModelFileError as error:
        return str(error)
    return "ok"


def _models() -> list[dict[str, Any]]:
    return [
        {
            "name": entry.name,
            "file": entry.filename,
            "licence": entry.licence,
            "commercial_use": entry.commercial_use,
            "origin": entry.origin,
            "status": model_status(entry.name),
        }
        for entry in MODEL_FILES.values()
    ]


def _checkpoints() -> list[dict[str, Any]]:
    return [
        {
            "name": folder.name,
            "bytes": sum(path.stat().st_size for path in folder.rglob("*.safetensors")),
            "licence": _card_licence(folder / "README.md"),
        }
        for folder in sorted(CHECKPOINTS.iterdir())
        if folder.is_dir()
    ]


def _card_licence(card: Path) -> str:
    """Reads the `license:` line of a model card's front matter."""
    lines = card.read_text(encoding="utf-8").splitlines() if card.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("license:")), "see its card")


def examine() -> dict[str, Any]:
    """Examines the installation.

    Returns:
        `dict[str, Any]`: `python`, `versions`, `device`, `device_name`, `dtype`, `attention`, `models`, `checkpoints`,
            `opencv` (version of each OpenCV distribution installed) and `problems`, a line each, empty if all is well.
    """
    import torch

    from faceswap_diffusion.devices import default_device, default_dtype

    device = default_device()
    models, opencv = _models(), installed_versions(OPENCV_DISTRIBUTIONS)
    return {
        "python": platform.python_version(),
        "versions": {"faceswap-diffusion": __version__, **installed_versions(PACKAGES)},
        "device": device,
        "device_name": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
        "dtype": str(default_dtype(device)).removeprefix("torch."),
        "attention": attention_kernels(device),
        "models": models,
        "checkpoints": _checkpoints(),
        "opencv": opencv,
        "problems": [model["status"] for model in models if model["status"] not in ("ok", "not shipped")]
        + _opencv_problems(opencv),
    }


def _opencv_problems(opencv: dict[str, str]) -> list[str]:
    if len(opencv) == 1:
        return []
    if not opencv:
        return ["no OpenCV distribution is installed: pip install opencv-python-headless"]
    return [
        f"{len(opencv)} OpenCV distributions share one cv2 folder, {', '.join(opencv)}: "
        "uninstall all of them, then install the one you want"
    ]


def format_report(report: dict[str, Any]) -> str:
    """Writes what `examine` found for people to read."""
    lines = [f"python {report['python']}"]
    lines += [f"{name} {version}" for name, version in report["versions"].items()]
    lines += ["", f"device     {report['device']} ({report['device_name']}), {report['dtype']}"]
    lines += [f"attention  PyTorch scaled_dot_product_attention, kernels: {', '.join(report['attention'])}"]
    lines += ["opencv     " + (", ".join(f"{name} {version}" for name, version in report["opencv"].items()) or "none")]
    lines += ["", "models (third-party weights, checked by SHA-256)"]
    for model in report["models"]:
        use = "commercial use allowed" if model["commercial_use"] else "no commercial use"
        lines += [f"  {model['name']:<16} {model['status']:<12} {model['licence']} ({use})  {model['file']}"]
        lines += [f"  {'':<16} {'':<12} {model['origin']}"]
    lines += ["", "checkpoints (our own training)"]
    lines += [f"  {c['name']:<16} {c['bytes'] / 1e6:5.1f} MB     {c['licence']}" for c in report["checkpoints"]]
    return "\n".join([*lines, "", *(f"PROBLEM: {problem}" for problem in report["problems"] or ["none"])])
