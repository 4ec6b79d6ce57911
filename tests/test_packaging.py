"""What a wheel contains and requires, and that links lead to files that exist."""

import ast
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

from faceswap_diffusion.weights.folders import EMBEDDED_CHECKPOINT
from faceswap_diffusion.weights.registry import MODEL_FILES

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "faceswap_diffusion"

DISTRIBUTIONS = {"cv2": "opencv-python-headless", "PIL": "pillow"}  # where the import's name is another
REPOSITORY = "faceswap-diffusion/faceswap-diffusion/"
FORBIDDEN = {"torchvision", "pickle", "mediapipe", "sklearn"}
# Imported only where one asks for it.
EXTRAS = {
    "demo": {"gradio"},
    "evaluation": {"jinja2"},
    "faces": {"insightface"},
    "memory.py": {"psutil"},
    "metrics": {"onnxruntime", "scipy", "skimage"},
    "photos": {"pillow_heif"},
    "provenance": {"c2pa", "cryptography"},
    "training": {
        "bitsandbytes",
        "datasets",
        "jsonargparse",
        "matplotlib",
        "pyarrow",
        "tflite",
        "trackio",
        "yaml",
    },
    "videos": {"av"},
}


@pytest.fixture(scope="module")
def wheel() -> WheelBuilder:
    return WheelBuilder(str(ROOT))


@pytest.fixture(scope="module")
def packed(wheel: WheelBuilder) -> set[str]:
    return {file.distribution_path for file in wheel.recurse_included_files()}


def imports(path: Path) -> set[str]:
    """Top-level names of all modules that a file imports, its own package aside."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names - {PACKAGE.name}


def requirement_names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!~; ]", requirement)[0].lower() for requirement in requirements}


def test_wheel_carries_everything_in_the_package(packed):
    here = {path for path in PACKAGE.rglob("*") if path.is_file() and not path.parts[-2].startswith((".", "__"))}
    on_disk = {str(path.relative_to(ROOT)) for path in here if not any(part[0] == "." for part in path.parts)}
    assert packed == on_disk


def test_wheel_carries_the_models(packed):
    wanted = {f"assets/{model.filename}" for model in MODEL_FILES.values() if model.shipped}
    wanted |= {f"checkpoints/{EMBEDDED_CHECKPOINT.name}/{name}" for name in ("model_index.json", "README.md")}
    wanted |= {
        f"checkpoints/{EMBEDDED_CHECKPOINT.name}/{part}/{file}"
        for part, file in {
            "unet": "diffusion_pytorch_model.safetensors",
            "vae": "diffusion_pytorch_model.safetensors",
            "conditioner": "diffusion_pytorch_model.safetensors",
            "image_encoder": "model.safetensors",
        }.items()
    }
    wanted |= {
        "checkpoints/face_parser/diffusion_pytorch_model.safetensors",
        "checkpoints/occlusion/diffusion_pytorch_model.safetensors",
        "checkpoints/age_probe/model.safetensors",
        f"checkpoints/{EMBEDDED_CHECKPOINT.name}/safety_checker/diffusion_pytorch_model.safetensors",
    }
    wanted |= {"py.typed"}
    assert {f"{PACKAGE.name}/{name}" for name in wanted} <= packed


def test_weights_are_small_and_none_is_pickled(packed):
    checkpoints = sum(path.stat().st_size for path in (PACKAGE / "checkpoints").rglob("*.safetensors"))
    assert checkpoints <= 48e6
    assert not {name for name in packed if name.endswith((".bin", ".ckpt", ".pt", ".pth", ".pkl"))}


def test_licences_go_with_the_wheel(wheel):
    core = wheel.metadata.core
    assert (
        core.license_expression
        == "Apache-2.0 AND MIT AND BSD-2-Clause AND LicenseRef-research-no-commercial-clearance"
    )
    licences = [*(PACKAGE / "assets" / "licenses").iterdir(), EMBEDDED_CHECKPOINT / "LICENSE"]
    assert set(core.license_files) == {"LICENSE", *(str(path.relative_to(ROOT)) for path in licences)}


def test_licence_of_weights_that_are_not_ours_to_give_is_named_as_in_their_card(wheel):
    name = re.search(r"^license_name: (.+)$", (EMBEDDED_CHECKPOINT / "README.md").read_text("utf-8"), re.MULTILINE)
    assert name is not None
    assert f"LicenseRef-{name[1]}" in wheel.metadata.core.license_expression.split()
    assert (EMBEDDED_CHECKPOINT / "LICENSE").read_text("utf-8").startswith(f"LicenseRef-{name[1]}\n")


def test_citation_is_of_this_version_and_of_the_paper(wheel):
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    assert citation["version"] == wheel.metadata.version
    assert citation["repository-code"] == wheel.metadata.core.urls["Source"]
    (paper,) = citation["references"]
    assert (len(paper["authors"]), paper["url"]) == (5, "https://arxiv.org/abs/2409.07269")


def test_source_archive_carries_what_its_own_tests_read():
    packed = {file.distribution_path for file in SdistBuilder(str(ROOT)).recurse_included_files()}
    folders = ("benchmarks", "docs", "examples", "faceswap_diffusion", "pipelines", "tests", "tools", "train")
    wanted = {str(path.relative_to(ROOT)) for folder in folders for path in (ROOT / folder).rglob("*")
              if path.is_file() and "__pycache__" not in path.parts}  # fmt: skip
    wanted |= {
        "CHANGELOG.md",
        "CITATION.cff",
        "CONTRIBUTING.md",
        "Makefile",
        "SECURITY.md",
    }  # hatchling adds what it reads itself
    assert wanted <= packed


def test_every_file_parses_on_the_oldest_python(wheel):
    oldest = tuple(map(int, wheel.metadata.core.requires_python.removeprefix(">=").split(".")))
    for folder in ("benchmarks", "examples", "faceswap_diffusion", "pipelines", "tests", "tools", "train"):
        for path in (ROOT / folder).rglob("*.py"):
            ast.parse(path.read_text("utf-8"), filename=str(path), feature_version=oldest)


def test_command_is_there(wheel):
    assert wheel.metadata.core.scripts == {"faceswap-diffusion": "faceswap_diffusion.cli.main:main"}
    module, _, function = wheel.metadata.core.scripts["faceswap-diffusion"].partition(":")
    assert callable(getattr(import_module(module), function))


def test_core_needs_one_headless_opencv_and_no_compiler(wheel):
    core = requirement_names(wheel.metadata.core.dependencies)
    assert {name for name in core if "opencv" in name} == {"opencv-python-headless"}
    assert not core & {"torchvision", "mediapipe", "dlib", "insightface", "onnxruntime", "xformers"}
    assert set(wheel.metadata.core.optional_dependencies) == {
        "demo",
        "c2pa",
        "heif",
        "insightface",
        "video",
        "xformers",
        "train",
        "eval",
        "docs",
        "dev",
    }


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_package_imports_what_it_declares(path, wheel):
    declared = requirement_names(wheel.metadata.core.dependencies)
    from_extras = EXTRAS.get(path.relative_to(PACKAGE).parts[0], set())
    imported = imports(path) - sys.stdlib_module_names - from_extras
    assert {DISTRIBUTIONS.get(name, name).replace("_", "-") for name in imported} <= declared


def test_nothing_imports_what_must_stay_out():
    files = [path for folder in (PACKAGE, ROOT / "train", ROOT / "examples") for path in folder.rglob("*.py")]
    assert {path.name: found for path in files if (found := imports(path) & FORBIDDEN)} == {}


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/images/README.md"])
def test_links_lead_to_files(document):
    links = re.findall(r"\]\(([^)#]+)", (ROOT / document).read_text(encoding="utf-8"))
    ours = [ROOT / link.partition("/main/")[2] for link in links if REPOSITORY in link and "/main/" in link]
    local = [(ROOT / document).parent / link for link in links if "://" not in link]
    assert [path for path in ours + local if not path.exists()] == []


def test_readme_links_work_on_pypi():
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert [link for link in links if not link.startswith("https://")] == []


def test_every_example_picture_is_described(example_images):
    described = re.findall(r"^\| `([\w.]+)`", (example_images / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(described) == sorted(path.name for path in example_images.glob("*.jpg"))
