"""What a picture tells of its origin, by metadata, by the mark alone, or not at all."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.cli import main as cli
from faceswap_diffusion.faces.alignment import ffhq_matrix
from faceswap_diffusion.faces.analyzer import Face, MeshFaceAnalyzer
from faceswap_diffusion.provenance.save import save_image
from faceswap_diffusion.provenance.verify import verify
from faceswap_diffusion.provenance.watermark import SIZE, lay_mark, payload_of


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, example_images: Path) -> Path:
    """A marked face with metadata and without, metadata without a mark, and a photo with neither."""
    folder = tmp_path_factory.mktemp("pictures")
    with Image.open(example_images / "p001_portrait.jpg") as photo:
        small = photo.convert("RGB").resize((384, 384))
    rgb = np.asarray(small)
    (face,) = MeshFaceAnalyzer().analyze(rgb)
    matrix = ffhq_matrix(face.landmarks68, SIZE)
    marked = Image.fromarray(lay_mark(rgb, np.ones(rgb.shape[:2], np.float32), matrix, payload_of("tiny")))
    facts = {"checkpoint": "tiny", "seed": 3, "consent": "both agreed"}
    save_image(marked, folder / "swap.png", provenance=facts)
    marked.crop((60, 20, 340, 380)).save(folder / "stripped.jpg", quality=85)
    save_image(small, folder / "metadata.png", provenance={"checkpoint": "tiny"})
    small.save(folder / "photo.png")
    Image.new("RGB", (64, 64)).save(folder / "wall.png")
    return folder


def test_metadata_and_mark_are_told_in_words(pictures: Path):
    found = verify(pictures / "swap.png")
    assert found.is_marked
    assert found.marked_faces == [0]
    headline, metadata, credentials, mark = found.lines()
    assert credentials.startswith("  Content Credentials: valid, by faceswap-diffusion, signed by ")
    assert headline == f"{pictures / 'swap.png'}: made with AI"
    assert metadata.endswith("(checkpoint tiny, seed 3, consent both agreed)")
    assert f"payload {payload_of('tiny'):04x}, which agrees with the metadata" in mark


def test_a_stripped_and_cropped_picture_is_known_by_its_mark_alone(pictures: Path):
    found = verify(pictures / "stripped.jpg")
    assert found.metadata is None
    assert found.is_marked
    assert found.marks[0].found


def test_exit_codes(pictures: Path, capsys: pytest.CaptureFixture):
    known, unknown = [str(pictures / name) for name in ("metadata.png", "stripped.jpg")], str(pictures / "photo.png")
    assert cli.main(["verify", *known, "--quiet"]) == 0
    assert cli.main(["verify", known[0], unknown]) == 3
    told = capsys.readouterr().out
    assert f"{unknown}: nothing found" in told
    assert "mark: none in face 0 (score " in told
    assert cli.main(["verify", str(pictures / "wall.png")]) == 3
    assert "no face is found to look in" in capsys.readouterr().out
    assert cli.main(["verify", str(pictures / "gone.png"), known[0]]) == 2
    output = capsys.readouterr()
    assert output.err.startswith("faceswap-diffusion: error: cannot read ")
    assert "metadata.png: made with AI" in output.out


def test_faces_of_any_analyzer_are_looked_at(pictures: Path):
    class Twice:
        def analyze(self, image: np.ndarray) -> list[Face]:
            return MeshFaceAnalyzer().analyze(image) * 2

    assert verify(pictures / "stripped.jpg", Twice()).marked_faces == [0, 1]
