"""The checkpoint in the package, and what tells one checkpoint from another; without PyTorch."""

import hashlib
from pathlib import Path

EMBEDDED_CHECKPOINT = Path(__file__).parents[1] / "checkpoints" / "faceswap-small"
FEW_STEPS_FOLDER, PARSER_FOLDER = "few_steps", "face_parser"
"""Where in a checkpoint its few-step version and its own face parser are, if it has them."""


def weights_digest(folder: Path) -> str:
    """Prefix of the SHA-256 over a folder's safetensors files; "" for a Hub id, which identifies itself."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16] if folder.is_dir() else ""
