"""Data flows one way: a module imports only from layers below its own. Lazy imports count: the source is read."""

import ast
from pathlib import Path

import pytest

PACKAGE = "faceswap_diffusion"
ROOT = Path(__file__).parents[1] / PACKAGE

# From low to high. A unit is a module or a subpackage; units of one layer know nothing of each other.
LAYERS = (
    {"writing"},
    {"console", "devices", "memory", "photos", "versions", "weights"},
    {"faces", "videos"},
    {"masks", "safety"},
    {"conditioning"},
    {"pipelines"},
    {"provenance"},
    {"conversion", "swapping"},
    {"metrics", "occluders"},
    {"demo", "evaluation", "training"},
    {"cli"},
    {"__main__"},
)
LEVELS = {unit: level for level, units in enumerate(LAYERS) for unit in units}
# Not the package's own `__init__`, which names everything, nor what a checkpoint carries for the Hub.
SOURCES = sorted({*ROOT.rglob("*.py")} - {ROOT / "__init__.py", *ROOT.joinpath("checkpoints").rglob("*.py")})


def imported_modules(source: str, package: str) -> list[str]:
    """Absolute dotted names that source code of a module in `package` imports, with the names taken from them."""
    modules = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            origin = ".".join(part for part in (base, node.module) if part)
            modules += [f"{origin}.{alias.name}" for alias in node.names]
    return modules


def unit_of(module: str) -> str | None:
    """The unit of ours that a dotted name belongs to, `None` if it is not ours; all of the package is the unit ""."""
    package, _, rest = module.partition(".")
    return rest.split(".")[0] if package == PACKAGE and rest != "__version__" else None


def upward_imports(source: str, path: Path) -> list[str]:
    """What a module at `path`, relative to the package, imports from its own layer's other units or from above."""
    unit = path.parts[0].removesuffix(".py")
    allowed = {None, unit, *(other for other, level in LEVELS.items() if level < LEVELS[unit])}
    modules = imported_modules(source, ".".join((PACKAGE, *path.parts[:-1])))
    return [module for module in modules if unit_of(module) not in allowed]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_imports_only_from_below(path: Path):
    assert upward_imports(path.read_text(encoding="utf-8"), path.relative_to(ROOT)) == []


@pytest.mark.parametrize(
    ("source", "path", "expected"),
    [
        (
            "from faceswap_diffusion.swapping.swapper import FaceSwapper",
            "faces/analyzer.py",
            ["swapping.swapper.FaceSwapper"],
        ),
        ("def f():\n    from ..masks import regions", "faces/analyzer.py", ["masks.regions"]),
        ("import faceswap_diffusion.cli.main", "swapping/swapper.py", ["cli.main"]),
        ("import faceswap_diffusion", "faces/analyzer.py", [""]),
        ("from ..swapping.compositing import paste_back", "provenance/save.py", ["swapping.compositing.paste_back"]),
        ("from faceswap_diffusion import FaceSwapper", "cli/main.py", ["FaceSwapper"]),
        ("from . import alignment\nfrom ..weights.registry import model_path\nimport numpy", "faces/analyzer.py", []),
        ("from faceswap_diffusion import __version__", "photos/loading.py", []),
    ],
)
def test_upward_imports_are_recognised(source: str, path: str, expected: list[str]):
    assert upward_imports(source, Path(path)) == [f"{PACKAGE}.{name}".rstrip(".") for name in expected]
