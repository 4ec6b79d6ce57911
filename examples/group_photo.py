"""Swaps faces in a photo of several people: one source onto all of them, then two sources onto chosen faces."""

from pathlib import Path

from faceswap_diffusion import FaceSwapper

IMAGES = Path(__file__).parent / "images"
OUTPUTS = Path("outputs")
OUTPUTS.mkdir(exist_ok=True)

swapper = FaceSwapper.from_pretrained()

result = swapper.swap(source=IMAGES / "p010_portrait.jpg", target=IMAGES / "group.jpg", target_face="all")
result.save(OUTPUTS / "group_all.png")
print(f"swapped faces {result.swapped} of {len(result.faces)}: {OUTPUTS / 'group_all.png'}")

# Faces are numbered from the left, starting with 0. Here face 1 becomes source 0, and face 3 becomes source 1.
result = swapper.swap(
    source=[IMAGES / "p005_portrait.jpg", IMAGES / "p006_portrait.jpg"],
    target=IMAGES / "group.jpg",
    mapping={1: 0, 3: 1},
)
result.save(OUTPUTS / "group_two.png")
print(f"swapped faces {result.swapped} of {len(result.faces)}: {OUTPUTS / 'group_two.png'}")
