"""The protocol `video`: how much swaps flicker in clips made from photos, and whose face they show over time."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw

from faceswap_diffusion.evaluation.clips import Clip, ClipOptions, make_clip
from faceswap_diffusion.evaluation.description import Networks, find_face
from faceswap_diffusion.evaluation.protocol import Pair, checked, pictures_in, ring_of_pairs
from faceswap_diffusion.evaluation.report import markdown_table
from faceswap_diffusion.faces.alignment import keypoints_from_landmarks
from faceswap_diffusion.faces.analyzer import SAME_FACE, Face, mesh_box, overlap
from faceswap_diffusion.faces.mesh_topology import dlib68
from faceswap_diffusion.faces.selection import NoFaceFoundError
from faceswap_diffusion.memory import peak_memory
from faceswap_diffusion.metrics.flicker import change_along_motion, flicker_ratio
from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.provenance.save import save_image
from faceswap_diffusion.swapping.coherence import CoherenceOptions, TemporalCoherence
from faceswap_diffusion.swapping.options import SwapOptions
from faceswap_diffusion.swapping.source_identity import SourceIdentity
from faceswap_diffusion.swapping.swapper import FaceSwapper
from faceswap_diffusion.writing import write_text

NUM_CLIPS = 3
NUM_FRAMES = 24
TONE_SIGMA = 4.0  # pixels: what is wider than grain
SHEET_COLUMNS = 6

VARIANTS: dict[str, CoherenceOptions | None] = {
    "frame by frame": None,
    "tracked": CoherenceOptions(mesh=False, tone=False, masks=False, fade=False),
    "coherent": CoherenceOptions(),
}
"""What is compared: every frame a photo of its own, faces followed, and what is estimated smoothed as well."""


@dataclass(eq=False)
class SwappedClip:
    """A clip with swapped faces.

    Args:
        frames (`list[np.ndarray]`): (H, W, 3) uint8 RGB each.
        masks (`list[np.ndarray]`): (H, W) float32 in [0, 1] each, where they are new.
        found (`list[bool]`): Whether the face was found where it is.
        tracks (`set[int]`): The numbers that it had.
        seconds (`float`): All of it.
    """

    frames: list[np.ndarray] = field(default_factory=list)
    masks: list[np.ndarray] = field(default_factory=list)
    found: list[bool] = field(default_factory=list)
    tracks: set[int] = field(default_factory=set)
    seconds: float = 0.0


def swap_clip(
    swapper: FaceSwapper,
    clip: Clip,
    identity: SourceIdentity,
    coherence: CoherenceOptions | None,
    options: SwapOptions | None = None,
) -> SwappedClip:
    """Swaps the faces of a clip.

    Args:
        swapper ([`FaceSwapper`]): What swaps.
        clip ([`Clip`]): From `make_clip`.
        identity ([`SourceIdentity`]): Who its faces become.
        coherence ([`CoherenceOptions`], *optional*): What is smoothed; `None` for every frame as a photo.
        options ([`SwapOptions`], *optional*): As for photos.
    """
    tracker, memory = swapper.new_tracker(), TemporalCoherence(coherence)
    swapped, options, started = SwappedClip(), options or SwapOptions(), time.perf_counter()
    for rgb, mesh, when in zip(clip.frames, clip.meshes, clip.times, strict=True):
        if coherence is None:
            faces, states = swapper.find_faces(rgb), None
        else:
            tracked = tracker.update(rgb, when)
            faces, states = [face.face for face in tracked], memory.advance(tracked, when)
            swapped.tracks |= {face.track for face in tracked}
        made = swapper.swap_faces(rgb, faces, [identity] * len(faces), options, states=states)
        swapped.frames.append(made.rgb)
        swapped.masks.append(made.mask)
        swapped.found.append(any(overlap(mesh_box(f.landmarks), mesh_box(mesh)) > SAME_FACE for f in faces))
    swapped.seconds = time.perf_counter() - started
    return swapped


def flicker(clip: Clip, swapped: SwappedClip, sigma: float = 0.0) -> float:
    """Change along the true motion of a clip's swapped faces, over that of the clip itself.

    Args:
        clip ([`Clip`]): From `make_clip`.
        swapped ([`SwappedClip`]): From `swap_clip`.
        sigma (`float`): In pixels; frames are blurred by it first, so that grain does not count.
    """

    def changes(frames: Sequence[np.ndarray]) -> list[float]:
        seen = [cv2.GaussianBlur(f.astype(np.float32), (0, 0), sigma) if sigma else f for f in frames]
        pairs = [i for i in range(len(frames) - 1) if not clip.hidden[i] and not clip.hidden[i + 1]]
        return [
            change_along_motion(seen[i], clip.meshes[i], seen[i + 1], clip.meshes[i + 1], swapped.masks[i])
            for i in pairs
        ]

    return flicker_ratio(changes(swapped.frames), changes(clip.frames))


def identity_over_time(networks: Networks, clip: Clip, swapped: SwappedClip, source: np.ndarray) -> dict[str, Any]:
    """Cosine to the source for each recogniser: its mean over the frames, the lowest, and in which frame that is.

    Args:
        networks ([`Networks`]): The networks that measure.
        clip ([`Clip`]): Whose meshes say where the faces are.
        swapped ([`SwappedClip`]): Of it.
        source (`np.ndarray`): (H, W, 3) uint8 RGB, the photo of who they became.
    """
    shown = [index for index, hidden in enumerate(clip.hidden) if not hidden]
    figures: dict[str, Any] = {}
    for name, recognizer in networks.recognizers.items():
        wanted = recognizer(source, known_face(networks, source))
        embeddings = [recognizer(swapped.frames[index], true_face(clip.meshes[index])) for index in shown]
        cosines = np.array([e @ wanted / (np.linalg.norm(e) * np.linalg.norm(wanted)) for e in embeddings])
        figures[f"identity_{name}"] = float(cosines.mean())
        figures[f"worst_{name}"] = float(cosines.min())
        figures[f"worst_frame_{name}"] = shown[int(cosines.argmin())]
    return figures


def known_face(networks: Networks, photo: np.ndarray) -> Face:
    """The largest face of a photo (H, W, 3) uint8 RGB.

    Raises:
        NoFaceFoundError: If there is none.
    """
    face = find_face(networks, photo)
    if face is None:
        raise NoFaceFoundError("no face found in a photo of the protocol video: leave out photos without one")
    return face


def true_face(mesh: np.ndarray) -> Face:
    """A face of a made clip by its mesh (478, 2)."""
    return Face(mesh_box(mesh), 1.0, keypoints_from_landmarks(mesh), mesh, dlib68(mesh))


def measure_clip(networks: Networks, clip: Clip, swapped: SwappedClip, source: np.ndarray) -> dict[str, Any]:
    """All figures of a swapped clip, by name.

    Args:
        networks ([`Networks`]): The networks that measure.
        clip ([`Clip`]): From `make_clip`.
        swapped ([`SwappedClip`]): From `swap_clip`.
        source (`np.ndarray`): (H, W, 3) uint8 RGB, the source's photo.
    """
    seen = [found for found, hidden in zip(swapped.found, clip.hidden, strict=True) if not hidden]
    return {
        "flicker": flicker(clip, swapped),
        "tone_flicker": flicker(clip, swapped, TONE_SIGMA),
        **identity_over_time(networks, clip, swapped, source),
        "lost_frames": len(seen) - sum(seen),
        "tracks": len(swapped.tracks),
        "frames_per_second": len(clip.frames) / swapped.seconds,
        "peak_megabytes": peak_memory(torch.device("cpu")) / (1 << 20),
    }


def video_pairs(folder: Path, count: int = NUM_CLIPS) -> list[Pair]:
    """Sources and targets, each a photo of a folder; the second and every other clip moves with the camera."""
    photos = pictures_in(folder)
    return checked(ring_of_pairs("video", photos, photos)).pairs[:count]


def evaluate_videos(
    swapper: FaceSwapper,
    networks: Networks,
    pairs: Sequence[Pair],
    output: Path,
    options: SwapOptions | None = None,
    clip_options: ClipOptions | None = None,
) -> dict[str, Any]:
    """Makes clips, swaps their faces in all `VARIANTS`, measures them, and writes table and contact sheet.

    Args:
        swapper ([`FaceSwapper`]): What swaps.
        networks ([`Networks`]): The networks that measure.
        pairs (`Sequence[Pair]`): From `video_pairs`.
        output (`Path`): Folder for `video.json`, `video.md` and `video.png`.
        options ([`SwapOptions`], *optional*): As for photos.
        clip_options ([`ClipOptions`], *optional*): What the clips are like.

    Returns:
        `dict[str, Any]`: By the name of the variant, a list with the figures of each clip.
    """
    clip_options = clip_options or ClipOptions(num_frames=NUM_FRAMES)
    figures: dict[str, list[dict[str, Any]]] = {name: [] for name in VARIANTS}
    rows = []
    for index, pair in enumerate(pairs):
        source, target = (load_photo(path).rgb for path in (pair.source, pair.target))
        like = replace(clip_options, camera=index % 2 == 1)
        clip = make_clip(target, known_face(networks, target), seed=index, options=like)
        identity = swapper.encode_source([pair.source])
        rows.append((f"target {pair.target.stem}", clip.frames))
        for name, coherence in VARIANTS.items():
            swapped = swap_clip(swapper, clip, identity, coherence, options)
            names = {"source": pair.source.name, "target": pair.target.name}
            figures[name].append({**names, **measure_clip(networks, clip, swapped, source)})
            rows.append((name, swapped.frames))
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / "video.json", json.dumps({"clips": asdict(clip_options), "figures": figures}, indent=2))
    write_text(output / "video.md", video_table(figures) + "\n")
    save_image(contact_sheet(rows), output / "video.png", provenance={"checkpoint": swapper.name, "protocol": "video"})
    return figures


def video_table(figures: dict[str, list[dict[str, Any]]]) -> str:
    """The figures of all clips as a Markdown table, and the means of each variant."""
    recognizers = [name.removeprefix("identity_") for name in _first(figures) if name.startswith("identity_")]
    header = ["clip", "", "flicker", "of tone", *recognizers, "worst frame", "frames lost", "frames/s", "peak MB"]
    rows = []
    for index in range(len(next(iter(figures.values())))):
        for variant, clips in figures.items():
            rows.append([Path(clips[index]["target"]).stem, variant, *_cells(clips[index], recognizers)])
    for variant, clips in figures.items():
        means = {name: float(np.mean([clip[name] for clip in clips])) for name in ("flicker", "tone_flicker")} | {
            f"identity_{name}": float(np.mean([clip[f"identity_{name}"] for clip in clips])) for name in recognizers
        }
        cells = [f"{means[name]:.2f}" for name in means]
        rows.append(["mean", variant, *cells, "", str(sum(clip["lost_frames"] for clip in clips)), "", ""])
    return markdown_table(header, rows)


def _first(figures: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    return next(iter(figures.values()))[0]


def _cells(clip: dict[str, Any], recognizers: Sequence[str]) -> list[str]:
    worst = [f"{clip[f'worst_frame_{name}']} ({name} {clip[f'worst_{name}']:.2f})" for name in recognizers[:2]]
    identity = [f"{clip[f'identity_{name}']:.2f}" for name in recognizers]
    flickers = [f"{clip['flicker']:.2f}", f"{clip['tone_flicker']:.2f}"]
    speed = [f"{clip['frames_per_second']:.2f}", f"{clip['peak_megabytes']:.0f}"]
    return [*flickers, *identity, ", ".join(worst), str(clip["lost_frames"]), *speed]


def contact_sheet(rows: Sequence[tuple[str, Sequence[np.ndarray]]], side: int = 128) -> Image.Image:
    """Frames of clips, evenly chosen, a row for each clip with its name.

    Args:
        rows (`Sequence[tuple[str, Sequence[np.ndarray]]]`): Names and frames, (H, W, 3) uint8 RGB.
        side (`int`): Of each small picture in pixels.
    """
    drawn = []
    for _, frames in rows:
        chosen = np.linspace(0, len(frames) - 1, SHEET_COLUMNS).round().astype(int)
        small = [cv2.resize(frames[index], (side, side), interpolation=cv2.INTER_AREA) for index in chosen]
        drawn.append(np.concatenate(small, axis=1))
    sheet = Image.fromarray(np.concatenate(drawn))
    draw = ImageDraw.Draw(sheet)
    for index, (name, _) in enumerate(rows):
        draw.text((4, index * side + 2), name, fill=(255, 255, 255), stroke_width=2, stroke_fill=(0, 0, 0))
    return sheet
