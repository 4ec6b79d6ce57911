"""Short clips made from one photo: a head that turns, speaks and moves, with the mesh of every frame known."""

from dataclasses import dataclass

import cv2
import numpy as np

from faceswap_diffusion.faces.analyzer import Face
from faceswap_diffusion.faces.mesh_topology import FACE_OVAL_478, INNER_LIPS_478
from faceswap_diffusion.faces.surface import NOTHING, face_surface, interpolate, rasterize
from faceswap_diffusion.faces.texture import smoothstep

YAW, PITCH, ROLL = 7.0, 4.0, 5.0  # degrees to either side
SHIFT, ZOOM = 0.06, 0.05  # of the face's height, and of its size
JAW = 0.10  # by how much of the face's height a mouth opens
EXPOSURE = 0.05  # by how much of its brightness a clip gets brighter and darker
RINGS = (1.3, 2.2)  # around the outline, as multiples of it: up to where hair and neck follow the head
FOLLOWING = (0.7, 0.0)  # how far they do there
INSIDE_MOUTH = (52, 18, 20)  # RGB


@dataclass(frozen=True)
class ClipOptions:
    """What a made clip is like.

    Args:
        num_frames (`int`): Frames.
        rate (`float`): Frames per second.
        camera (`bool`): Whether the camera moves, and so the background with the head; else the head moves alone.
        noise (`float`): Standard deviation of the camera's noise, of 255.
        hidden (`tuple[int, int]`, *optional*): First and last frame, counted from 0, in which a hand's width of
            something hides the face.
    """

    num_frames: int = 32
    rate: float = 25.0
    camera: bool = False
    noise: float = 1.5
    hidden: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class Clip:
    """A made clip.

    Args:
        frames (`list[np.ndarray]`): (H, W, 3) uint8 RGB each.
        times (`list[float]`): In seconds.
        meshes (`np.ndarray`): (F, 478, 2), the true landmarks in pixels.
        hidden (`list[bool]`): In which frames the face cannot be seen.
    """

    frames: list[np.ndarray]
    times: list[float]
    meshes: np.ndarray
    hidden: list[bool]


def make_clip(photo: np.ndarray, face: Face, seed: int, options: ClipOptions | None = None) -> Clip:
    """Makes a clip from a photo. The same arguments make the same clip.

    Args:
        photo (`np.ndarray`): (H, W, 3) uint8 RGB; the frames have its size.
        face ([`Face`]): Of it, with a mesh and depth.
        seed (`int`): Of motion and noise.
        options ([`ClipOptions`], *optional*): What it is like.
    """
    options, rng = options or ClipOptions(), np.random.default_rng(seed)
    times = [index / options.rate for index in range(options.num_frames)]
    curves = {name: smooth_curve(times, rng) for name in ("yaw", "pitch", "roll", "x", "y", "zoom", "jaw", "exposure")}
    frames, meshes, hidden = [], [], []
    for index in range(options.num_frames):
        pose = {name: float(curve[index]) for name, curve in curves.items()}
        frame, mesh = draw_frame(photo, face, pose, options.camera)
        hides = options.hidden is not None and options.hidden[0] <= index <= options.hidden[1]
        frame = hide_face(frame, mesh) if hides else frame
        noisy = frame * (1 + EXPOSURE * pose["exposure"]) + rng.normal(0, options.noise, frame.shape)
        frames.append(np.round(np.clip(noisy, 0, 255)).astype(np.uint8))
        meshes.append(mesh)
        hidden.append(hides)
    return Clip(frames, times, np.stack(meshes), hidden)


def smooth_curve(times: list[float], rng: np.random.Generator) -> np.ndarray:
    """Random motion (F,) in [-1, 1]: a slow and a quick swing, 0 at the start."""
    frequencies, phases = rng.uniform((0.3, 0.8), (0.7, 1.6)), rng.uniform(0, 2 * np.pi, 2)
    swings = np.sin(2 * np.pi * np.outer(times, frequencies) + phases) - np.sin(phases)
    return np.clip(swings @ (0.45, 0.2), -1, 1)


def draw_frame(photo: np.ndarray, face: Face, pose: dict[str, float], camera: bool) -> tuple[np.ndarray, np.ndarray]:
    """Draws a photo with its head in another pose.

    Args:
        photo (`np.ndarray`): (H, W, 3) uint8 RGB.
        face ([`Face`]): Of it.
        pose (`dict[str, float]`): In [-1, 1]: "yaw", "pitch", "roll", "x", "y", "zoom", "jaw".
        camera (`bool`): Whether the background moves along.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: The frame (H, W, 3) float32 RGB, and its mesh (478, 2).
    """
    assert face.depth is not None
    mesh, size = face.landmarks, photo.shape[1::-1]
    posed, depth = turned_mesh(mesh, face.depth, pose)
    height, middle = np.ptp(mesh[:, 1]), mesh.mean(axis=0)
    matrix = cv2.getRotationMatrix2D(tuple(middle), -ROLL * pose["roll"], 1 + ZOOM * pose["zoom"])
    matrix[:, 2] += SHIFT * height * np.array([pose["x"], pose["y"]])
    moved = posed @ matrix[:, :2].T + matrix[:, 2]
    ground = matrix if camera else np.eye(2, 3)
    still = cv2.invertAffineTransform(ground)
    y, x = np.mgrid[: size[1], : size[0]].astype(np.float32)
    grid = np.stack([x, y], axis=2) @ still[:, :2].T.astype(np.float32) + still[:, 2].astype(np.float32)
    for points, sources, triangles, nearness in _layers(mesh, moved, depth, ground):
        seen = rasterize(points, triangles, size, nearness)
        offsets = interpolate(seen, points, triangles, sources - points)
        grid[seen != NOTHING] = (np.stack([x, y], axis=2) + offsets)[seen != NOTHING]
    frame = cv2.remap(photo, grid[..., 0], grid[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    return _darken_mouth(frame.astype(np.float32), mesh, moved), moved


def turned_mesh(mesh: np.ndarray, depth: np.ndarray, pose: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Turns a mesh (478, 2) with depth (478,) about its outline, and opens its mouth."""
    points = np.column_stack([mesh, depth])
    pivot = points[list(FACE_OVAL_478)].mean(axis=0)
    yaw, pitch = np.radians([YAW * pose["yaw"], PITCH * pose["pitch"]])
    about_y = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    turned = (points - pivot) @ (about_y @ about_x).T + pivot
    uv, lips = face_surface().uv, list(INNER_LIPS_478)
    middle = uv[lips, 1].mean()
    lower = np.clip((uv[:, 1] - middle) / 0.015, 0, 1) * np.exp(-(((uv[:, 0] - 0.5) / 0.2) ** 2))
    turned[:, 1] += JAW * np.ptp(mesh[:, 1]) * max(0.0, pose["jaw"]) * lower
    return turned[:, :2], turned[:, 2]


def _layers(mesh: np.ndarray, moved: np.ndarray, depth: np.ndarray, ground: np.ndarray):
    """What is drawn over the background: the surroundings that follow the head, and the face.

    Yields points in the frame, the same in the photo, triangles, and depth.
    """
    outline = list(FACE_OVAL_478)
    rings, sources = [moved[outline]], [mesh[outline]]
    centre = mesh[outline].mean(axis=0)
    for reach, share in zip(RINGS, FOLLOWING, strict=True):
        source = centre + reach * (mesh[outline] - centre)
        still = source @ ground[:, :2].T + ground[:, 2]
        offset = moved[outline] - (mesh[outline] @ ground[:, :2].T + ground[:, 2])
        rings.append(still + share * offset)
        sources.append(source)
    count = len(outline)
    first, second = np.arange(count), np.roll(np.arange(count), -1)
    bands = [
        np.concatenate(
            [
                np.stack([first, second, second + count], axis=1) + count * band,
                np.stack([first, second + count, first + count], axis=1) + count * band,
            ]
        )
        for band in range(len(RINGS))
    ]
    yield np.concatenate(rings), np.concatenate(sources), np.concatenate(bands), None
    yield moved, mesh, face_surface().triangles, depth


def _darken_mouth(frame: np.ndarray, mesh: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Shows the inside of a mouth that is more open than the photo's."""
    lips = list(INNER_LIPS_478)
    opened = np.ptp(moved[lips, 1]) / np.ptp(moved[:, 1]) - np.ptp(mesh[lips, 1]) / np.ptp(mesh[:, 1])
    inside = np.zeros(frame.shape[:2], np.float32)
    cv2.fillPoly(inside, [np.round(moved[lips] * 16).astype(np.int32)], 1.0, cv2.LINE_8, 4)
    inside = cv2.GaussianBlur(inside, (0, 0), 0.006 * np.ptp(moved[:, 1])) * smoothstep(np.array(opened), 0.005, 0.03)
    return frame + inside[..., None] * (np.array(INSIDE_MOUTH, np.float32) - frame)


def hide_face(frame: np.ndarray, mesh: np.ndarray) -> np.ndarray:
    """Puts a plain board in front of the whole face."""
    low, high = mesh.min(axis=0), mesh.max(axis=0)
    reach = 0.1 * (high - low)
    corners = np.round([low - reach, high + reach]).astype(int)
    covered = frame.copy()
    cv2.rectangle(covered, tuple(corners[0].tolist()), tuple(corners[1].tolist()), (96, 112, 84), cv2.FILLED)
    return covered
