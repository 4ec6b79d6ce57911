"""Drawn things in front of faces, with what they hide: glasses, hands, hair, masks, and what people hold.

In the manner of NatOcc and RandOcc (Voo et al. 2022), but that all objects are drawn, and none is cut out of a photo.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from faceswap_diffusion.faces.mesh_topology import EYES_478, FACE_OVAL_478
from faceswap_diffusion.occluders.blobs import Occluder, draw_occluder, random_surface
from faceswap_diffusion.occluders.drawing import (
    FINE,
    Layers,
    Scene,
    any_colour,
    any_surface,
    coarsely,
    finely,
    finish,
    rounded,
)

EYE_WIDTH = 3.0  # cm between the corners
FOREHEAD = FACE_OVAL_478[-9:] + FACE_OVAL_478[:9]
JAW_BELOW_MASK = FACE_OVAL_478[9:28]
CHEEKS = (50, 280)
HAIR_COLOURS = (
    *((18, 15, 14), (45, 30, 22), (90, 60, 40), (150, 110, 70)),
    *((205, 175, 125), (160, 155, 150), (110, 45, 20)),
)
FRAME_COLOURS = (
    *((15, 15, 17), (15, 15, 17), (40, 25, 18), (85, 50, 30)),
    *((170, 140, 80), (170, 170, 175), (110, 20, 30)),
)
MASK_COLOURS = ((235, 238, 240), (150, 190, 215), (25, 25, 28), (120, 160, 150), (220, 180, 190))


def _lens(scene: Scene, side: int, half_width: float, half_height: float, form: dict[str, float]) -> np.ndarray:
    """Outline (48, 2) of a lens before an eye; it starts at its outer end and goes round below first."""
    eye = scene.landmarks[list(EYES_478[side])]
    inwards = eye[8] - eye[0]
    turned = np.clip(np.linalg.norm(inwards) / (EYE_WIDTH * scene.cm), 0.25, 1.1)
    inwards = inwards / np.linalg.norm(inwards) * scene.cm * turned
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    across, down = (
        np.sign(wave) * np.abs(wave) ** (2 / form["squareness"]) for wave in (np.cos(angles), np.sin(angles))
    )
    across *= 1 - form["taper"] * down
    down = down - form["lift"] * np.clip(across, 0, 1) * (down < 0) + form["drop"] * np.clip(down, 0, 1) ** 2
    centre = eye.mean(axis=0) + form["below"] * scene.axes[1] - form["outwards"] * inwards
    return centre - half_width * across[:, None] * inwards + half_height * down[:, None] * scene.axes[1]


def _spectacles(scene: Scene, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    """Outlines of two lenses, and the mask of the frame."""
    form = {
        "squareness": rng.uniform(1.8, 5.0), "taper": rng.uniform(-0.03, 0.18), "lift": rng.choice([0, 0, 0.25]),
        "drop": rng.choice([0, 0, 0.3]), "below": rng.uniform(-0.1, 0.8), "outwards": rng.uniform(-0.1, 0.3),
    }  # fmt: skip
    half_width, ratio = rng.uniform(2.1, 3.4), rng.uniform(0.5, 1.0)
    lenses = [_lens(scene, side, half_width, half_width * ratio, form) for side in (0, 1)]
    width = rng.choice([rng.uniform(0.1, 0.18), rng.uniform(0.18, 0.38), rng.uniform(0.4, 0.75)], p=[0.45, 0.35, 0.2])
    rim = rng.choice(["full", "half", "none"], p=[0.72, 0.2, 0.08])
    frame = np.zeros(scene.pixels.shape[:2], np.float32)
    if rim == "full":
        frame = scene.stroke(lenses, width, closed=True)
    elif rim == "half":
        frame = scene.stroke([np.concatenate([lens[22:], lens[:2]]) for lens in lenses], width)
    inner = rng.integers(25, 32)
    ends = [lens[inner] for lens in lenses]
    arch = np.mean(ends, axis=0) - rng.uniform(0, 0.5) * scene.axes[1]
    bars = [np.stack([ends[0], arch, ends[1]])]
    if rng.random() < 0.15:
        bars.append(np.stack([lens[35] for lens in lenses]))
    for lens, ear in zip(lenses, (127, 356), strict=True):
        hinge, behind = lens[rng.integers(40, 48)], scene.landmarks[ear] + rng.uniform(-0.6, 0.8) * scene.axes[1]
        if (behind - hinge) @ (hinge - np.mean(ends, axis=0)) > 0:
            bars.append(np.stack([hinge, hinge + 1.15 * (behind - hinge)]))
    return lenses, np.maximum(frame, scene.stroke(bars, max(width * rng.uniform(0.6, 1.0), 0.08)))


def _add_frame(scene: Scene, layers: Layers, frame: np.ndarray, rng: np.random.Generator) -> None:
    colour = any_colour(rng) if rng.random() < 0.2 else np.array(FRAME_COLOURS[rng.integers(len(FRAME_COLOURS))])
    glints = cv2.GaussianBlur(rng.normal(0, 1, frame.shape).astype(np.float32), (0, 0), 0.6 * scene.cm)
    glints = np.clip(glints / glints.std() - rng.uniform(0.5, 2), 0, 1)[..., None] * rng.uniform(0, 180)
    layers.add(frame, np.clip(colour * rng.uniform(0.7, 1.2) + glints, 0, 255))


def draw_eyeglasses(scene: Scene, rng: np.random.Generator) -> Occluder:
    """Glasses to see through: the frame and strong reflections hide, the lens does not."""
    lenses, frame = _spectacles(scene, rng)
    layers, inside = Layers(scene.size), scene.fill(*lenses)
    if rng.random() < 0.5:
        layers.add(inside * rng.uniform(0, 0.3), any_colour(rng))
    hidden = frame
    if rng.random() < 0.35:
        where = np.concatenate(lenses)[rng.integers(96)]
        streak = np.array([[-0.5, -3], [0.5, -3], [1.0, 3], [-1.0, 3]]) * [rng.uniform(0.3, 2), rng.uniform(0.2, 1)]
        glare = scene.fill(scene.place(streak, where, rng.uniform(-1.2, 1.2))) * inside
        glare = cv2.GaussianBlur(glare, (0, 0), rng.uniform(0.3, 2)) * rng.uniform(0.3, 0.95)
        layers.add(glare, np.array([235, 240, 250]) * rng.uniform(0.7, 1.05))
        hidden = np.maximum(frame, np.clip((glare - 0.35) * 4, 0, 1))
    _add_frame(scene, layers, frame, rng)
    return finish(scene, layers, rng, covered=hidden, distance=0.5)


def draw_sunglasses(scene: Scene, rng: np.random.Generator) -> Occluder:
    """Dark or mirrored lenses: all of them hides."""
    lenses, frame = _spectacles(scene, rng)
    layers, inside = Layers(scene.size), scene.fill(*lenses)
    colour = any_colour(rng) * rng.uniform(0.1, 0.5)
    surface = np.broadcast_to(colour, scene.pixels.shape)
    if rng.random() < 0.4:
        surface = 0.5 * random_surface(scene.other, rng)[:: rng.choice([-1, 1])] * rng.uniform(0.4, 1.6) + 0.4 * colour
    fade = np.linspace(1, rng.uniform(0.8, 1.0), scene.size, dtype=np.float32)[:, None]
    layers.add(inside * fade * rng.uniform(0.78, 1.0), np.clip(surface, 0, 255))
    _add_frame(scene, layers, frame, rng)
    return finish(scene, layers, rng, covered=np.maximum(frame, inside), distance=0.5)


def _skin(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Skin (S, S, 3) of this or another person, enlarged."""
    size = scene.size
    side = max(6, round(size * 0.12))
    own = rng.random() < 0.65
    middle = scene.landmarks[rng.choice(CHEEKS)] if own else np.array([rng.choice([0.38, 0.62]), 0.6]) * size
    left, top = np.clip(np.round(middle - side / 2).astype(int), 0, size - side)
    patch = (scene.pixels if own else scene.other)[top : top + side, left : left + side]
    tone = rng.uniform(0.75, 1.15) * (1 + rng.normal(0, 0.03, 3))
    return cv2.resize(patch, (size, size), interpolation=cv2.INTER_LINEAR) * tone.astype(np.float32)


def draw_hand(scene: Scene, rng: np.random.Generator, where: np.ndarray | None = None) -> Occluder:
    """A hand with some of its fingers, often with the wrist: palm and fingers are capsules with round shading."""
    touched = scene.landmarks[rng.integers(468)] if where is None else where
    angle, scale = rng.normal(0, 1.1), rng.uniform(0.8, 1.1)
    mirrored = rng.choice([-1, 1])
    reach = np.array([rng.uniform(-3, 3), rng.uniform(-14, 3)])  # from the palm to what is touched; fingers point up
    skin, layers = _skin(scene, rng), Layers(scene.size)

    def add(points: Sequence[Sequence[float]], width: float, surface: np.ndarray) -> None:
        line = scene.place((np.array(points) - reach) * [mirrored, 1] * scale, touched, angle)
        part = scene.stroke([line], width * scale)
        layers.add(part, surface * rounded(part, 0.5 * width * scale * scene.cm, rng.uniform(0.35, 0.75)))

    if rng.random() < 0.7:
        sleeve = rng.random() < 0.3
        add([(0, 5), (rng.normal(0, 2), 25)], rng.uniform(5.5, 7), any_surface(scene, rng) if sleeve else skin)
    add([(-1.3, -0.5), (-1, 3), (1, 3), (1.3, -0.5)], 4.8, skin)
    spread, curl = rng.uniform(-0.02, 0.12), rng.choice([rng.uniform(0.25, 0.5), rng.uniform(0.7, 1.0)])
    for finger in rng.permutation(5)[: rng.integers(1, 6)]:
        _add_finger(add, finger, spread, curl, skin, rng)
    return finish(scene, layers, rng, distance=rng.uniform(0.2, 1.5))


def _add_finger(
    add: Callable, finger: int, spread: float, curl: float, skin: np.ndarray, rng: np.random.Generator
) -> None:
    """Adds one of four fingers, or the thumb (4), of three joints, with lines across them and sometimes a nail."""
    thumb = finger == 4
    point = np.array([3.6, 2.0]) if thumb else np.array([-3.0 + 2 * finger, -2.0])
    heading = rng.uniform(0.3, 1.1) if thumb else (finger - 1.5) * spread + rng.normal(0, 0.08)
    length = (6.0 if thumb else (7.0, 8.2, 7.8, 6.2)[3 - finger]) * np.clip(curl * rng.uniform(0.85, 1.15), 0.2, 1)
    width, bend, points = (2.0 if thumb else 1.75) * rng.uniform(0.85, 1.05), rng.normal(0, 0.12), [point]
    for share in (0.45, 0.3, 0.25):
        point = point + length * share * np.array([np.sin(heading), -np.cos(heading)])
        heading += bend
        points.append(point)
    add(points, width, skin * rng.uniform(0.9, 1.08))
    direction = (points[-1] - points[-2]) / max(np.linalg.norm(points[-1] - points[-2]), 1e-6)
    across = np.array([-direction[1], direction[0]])
    for joint in points[1:3]:
        add([joint - 0.35 * across, joint + 0.35 * across], 0.12, skin * rng.uniform(0.6, 0.9))
    if rng.random() < 0.5:
        nail = (
            any_colour(rng) if rng.random() < 0.25 else np.array([1.08, 1.02, 1.02]) * skin * rng.uniform(0.95, 1.15)
        )
        add(
            [points[-1] - 0.3 * direction, points[-1] + 0.25 * direction],
            0.55 * width,
            np.clip(nail + 0 * skin, 0, 255),
        )


def draw_hair(scene: Scene, rng: np.random.Generator) -> Occluder:
    """A fringe, a lock, or single hairs, from the forehead's edge down."""
    kind = rng.choice(["fringe", "lock", "strays"], p=[0.4, 0.4, 0.2])
    count = {"fringe": rng.integers(60, 200), "lock": rng.integers(15, 60), "strays": rng.integers(3, 12)}[kind]
    length = {"fringe": rng.uniform(3, 8), "lock": rng.uniform(6, 20), "strays": rng.uniform(5, 18)}[kind]
    edge = scene.landmarks[list(FOREHEAD)]
    middle = scene.landmarks[168]
    first, breadth = (
        rng.uniform(0, 14),
        {"fringe": rng.uniform(4, 16), "lock": rng.uniform(0.5, 2.5), "strays": 12}[kind],
    )
    colour = np.array(HAIR_COLOURS[rng.integers(len(HAIR_COLOURS))]) if rng.random() < 0.85 else any_colour(rng)
    drift, curve, width = rng.normal(0, 2), rng.normal(0, 1.5), rng.uniform(0.05, 0.22)
    colours = np.zeros((scene.size * FINE,) * 2 + (3,), np.uint8)
    alpha = np.zeros(colours.shape[:2], np.uint8)
    for _ in range(count):
        position = np.clip(first + rng.uniform(0, breadth), 0, len(edge) - 1.001)
        low, share = int(position), position % 1
        root = middle + rng.uniform(1.05, 1.4) * ((1 - share) * edge[low] + share * edge[low + 1] - middle)
        fall = length * rng.uniform(0.7, 1.1)
        tip = root + np.array([drift + rng.normal(0, 0.5), fall]) @ scene.axes
        bow = (root + tip) / 2 + np.array([curve + rng.normal(0, 0.3), 0]) @ scene.axes
        way = np.linspace(0, 1, 9)[:, None]
        line = [finely((1 - way) ** 2 * root + 2 * way * (1 - way) * bow + way**2 * tip)]
        thickness = max(1, round(width * rng.uniform(0.7, 1.4) * scene.cm * FINE))
        shade = np.clip(colour * rng.uniform(0.55, 1.5) + rng.uniform(0, 12), 0, 255).tolist()
        cv2.polylines(colours, line, False, shade, thickness)
        cv2.polylines(alpha, line, False, 255, thickness)
    layers = Layers(scene.size)
    mask = coarsely(alpha, scene.size)
    premultiplied = cv2.resize(colours, (scene.size,) * 2, interpolation=cv2.INTER_AREA).astype(np.float32)
    layers.add(mask * rng.uniform(0.85, 1), premultiplied / np.maximum(mask, 0.05)[..., None])
    return finish(scene, layers, rng, distance=0.4)


def _ellipse(width: float, height: float) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return np.stack([width * np.cos(angles), height * np.sin(angles)], axis=1)


def _box(width: float, height: float, narrowing: float = 0.0) -> np.ndarray:
    return np.array(
        [[-width, -height], [width, -height], [width * (1 - narrowing), height], [-width * (1 - narrowing), height]]
    )


def draw_microphone(scene: Scene, rng: np.random.Generator) -> Occluder:
    """A ball of mesh or foam on a stick, near the mouth."""
    where = scene.landmarks[14] + rng.normal(0, 2, 2) @ scene.axes
    angle, radius, layers = rng.normal(0, 0.7), rng.uniform(1.5, 3), Layers(scene.size)
    stick = scene.stroke([scene.place([(0, 1), (0, 20)], where, angle)], rng.uniform(1.2, 3))
    layers.add(stick, any_colour(rng) * 0.5 * rounded(stick, scene.cm))
    ball = scene.fill(scene.place(_ellipse(radius, radius * rng.uniform(1, 1.4)), where, angle))
    mesh = 1 + rng.normal(0, rng.uniform(0, 0.35), (*ball.shape, 1))
    layers.add(
        ball, np.clip(any_colour(rng) * rng.uniform(0.3, 0.9) * mesh * rounded(ball, radius * scene.cm), 0, 255)
    )
    return finish(scene, layers, rng, distance=1.5)


def draw_cup(scene: Scene, rng: np.random.Generator) -> Occluder:
    """A cup, mug, glass or bottle at the mouth."""
    half, tall = rng.uniform(1.5, 4.5), rng.uniform(3, 7)
    angle = rng.normal(0, 0.4)
    where = scene.place(
        [(0, tall * rng.uniform(0.6, 1.0))], scene.landmarks[13] + rng.normal(0, 1, 2) @ scene.axes, angle
    )[0]
    layers, body = Layers(scene.size), scene.fill(scene.place(_box(half, tall, rng.uniform(0, 0.3)), where, angle))
    if rng.random() < 0.4:
        handle = scene.place(_ellipse(1.8, 2.5) + np.array([half * rng.choice([-1, 1]), 0]), where, angle)
        layers.add(scene.stroke([handle], 0.9, closed=True), any_colour(rng))
    layers.add(body, any_surface(scene, rng) * rounded(body, half * scene.cm, 0.5))
    rim = scene.fill(scene.place(_ellipse(half, half * rng.uniform(0.1, 0.35)) - [0, tall], where, angle))
    layers.add(rim, any_colour(rng))
    return finish(scene, layers, rng, distance=1.0)


def draw_device(scene: Scene, rng: np.random.Generator) -> Occluder:
    """A phone, a card or a camera before an eye or a cheek."""
    where = scene.landmarks[rng.integers(468)] + rng.normal(0, 3, 2) @ scene.axes
    angle, layers = rng.normal(0, 0.8), Layers(scene.size)
    half, tall = (
        (rng.uniform(3, 4), rng.uniform(6, 8)) if rng.random() < 0.6 else (rng.uniform(4, 8), rng.uniform(3, 5))
    )
    body = scene.fill(scene.place(_box(half, tall), where, angle))
    layers.add(body, any_surface(scene, rng) * rng.uniform(0.3, 1.0))
    if rng.random() < 0.6:
        layers.add(scene.fill(scene.place(_box(half * 0.9, tall * 0.9), where, angle)), any_surface(scene, rng))
    for radius in rng.uniform(0.3, 3, rng.integers(0, 3)):
        lens = scene.fill(scene.place(_ellipse(radius, radius) + rng.normal(0, 1.5, 2), where, angle))
        layers.add(lens, any_colour(rng) * 0.4 * rounded(lens, radius * scene.cm))
    return finish(scene, layers, rng, distance=1.5)


def draw_bar(scene: Scene, rng: np.random.Generator) -> Occluder:
    """Something long and plain: a stick, a cable, a censor's bar."""
    where = scene.landmarks[rng.integers(468)]
    tilt, layers, width = (
        rng.uniform(0, np.pi),
        Layers(scene.size),
        rng.choice([rng.uniform(0.2, 1), rng.uniform(1, 6)]),
    )
    ends = np.array([[-rng.uniform(2, 20), rng.normal(0, 1)], [0, rng.normal(0, 0.5)], [rng.uniform(2, 20), 0]])
    bar = scene.stroke([scene.place(ends, where, tilt)], width)
    layers.add(bar, any_surface(scene, rng) * rounded(bar, width * scene.cm / 2, rng.uniform(0.4, 1.0)))
    return finish(scene, layers, rng, distance=1.0)


def _lower_face(scene: Scene, top: np.ndarray, reach: float) -> np.ndarray:
    """Outline from an upper edge (N, 2) on the viewer's left to right, and round the jaw."""
    jaw = scene.landmarks[list(JAW_BELOW_MASK)]
    nose = scene.landmarks[4]
    return np.concatenate([top, nose + reach * (jaw - nose)])


def draw_medical_mask(scene: Scene, rng: np.random.Generator) -> Occluder:
    """A mask over nose, mouth and chin, with folds and straps."""
    nose = scene.landmarks[rng.choice([6, 197, 195, 5])]
    top = np.stack([*scene.landmarks[[93, 123, 118]], nose, *scene.landmarks[[347, 352, 323]]])
    outline = _lower_face(scene, top, rng.uniform(0.85, 1.06))
    layers, mask = Layers(scene.size), scene.fill(outline)
    straps = [np.stack([scene.landmarks[a], scene.landmarks[b]]) for a, b in ((123, 127), (352, 356))]
    layers.add(scene.stroke(straps, 0.3), (225, 225, 225))
    colour = np.array(MASK_COLOURS[rng.integers(len(MASK_COLOURS))], np.float32)
    surface = random_surface(scene.other, rng) if rng.random() < 0.3 else colour
    layers.add(mask, surface * rounded(mask, rng.uniform(2, 6) * scene.cm, rng.uniform(0.5, 0.9)))
    cheeks = np.linspace(scene.landmarks[132], scene.landmarks[361], 3)
    folds = [cheeks + height * scene.axes[1] for height in rng.uniform(-2, 2, rng.integers(0, 4))]
    if folds:
        layers.add(scene.stroke(folds, 0.15) * mask * 0.6, colour * 0.6)
    return finish(scene, layers, rng, distance=0.5)


def draw_straw(scene: Scene, rng: np.random.Generator) -> Occluder:
    """A drinking straw in the mouth."""
    angle, layers = rng.normal(0, 0.8), Layers(scene.size)
    line = scene.place([(0, -0.2), (0, rng.uniform(8, 20))], scene.landmarks[14], angle)
    straw = scene.stroke([line], rng.uniform(0.4, 1.0))
    layers.add(straw, any_colour(rng) * rounded(straw, 0.4 * scene.cm))
    return finish(scene, layers, rng, distance=1.0)


def draw_spoon(scene: Scene, rng: np.random.Generator) -> Occluder:
    """A spoon or a brush at the mouth or the nose."""
    where = scene.landmarks[rng.choice([14, 4, 13])] + rng.normal(0, 0.5, 2) @ scene.axes
    angle, layers, half = rng.normal(0, 0.9), Layers(scene.size), rng.uniform(0.8, 2.0)
    handle = scene.stroke([scene.place([(0, 0), (0, rng.uniform(8, 20))], where, angle)], rng.uniform(0.3, 0.9))
    bowl = scene.fill(scene.place(_ellipse(half, half * rng.uniform(1.2, 1.7)), where, angle))
    surface = any_surface(scene, rng)
    layers.add(handle, surface * rounded(handle, 0.4 * scene.cm))
    layers.add(bowl, surface * rounded(bowl, half * scene.cm))
    return finish(scene, layers, rng, distance=1.0)


def draw_scarf(scene: Scene, rng: np.random.Generator) -> Occluder:
    """Cloth up to the mouth or the nose."""
    height = rng.uniform(0, 1)
    line = (1 - height) * scene.landmarks[[58, 214, 57, 17, 287, 434, 288]] + height * scene.landmarks[
        [93, 123, 205, 5, 425, 352, 323]
    ]
    outline = _lower_face(scene, line + rng.normal(0, 0.5, line.shape) * scene.cm, rng.uniform(1.1, 1.5))
    layers, cloth = Layers(scene.size), scene.fill(outline)
    layers.add(cloth, any_surface(scene, rng) * rounded(cloth, 3 * scene.cm))
    return finish(scene, layers, rng, distance=0.8)


def draw_hat(scene: Scene, rng: np.random.Generator) -> Occluder:
    """The brim of a hat or a cap, down to the brows."""
    edge = scene.landmarks[[127, 68, 9, 298, 356]] - rng.uniform(0.3, 2.5) * scene.axes[1]
    edge[2] += rng.uniform(-1, 1) * scene.axes[1]
    outline = np.concatenate([edge, scene.place([(14, -14), (-14, -14)], scene.landmarks[168])])
    layers, hat = Layers(scene.size), scene.fill(outline)
    layers.add(hat, any_surface(scene, rng) * rounded(hat, 2 * scene.cm))
    return finish(scene, layers, rng, distance=2.0)


def draw_panel(scene: Scene, rng: np.random.Generator) -> Occluder:
    """Something large from outside the face up to a wavy edge: a hood, hair, a door, somebody else's shoulder."""
    angle = rng.normal(0, 0.6) if rng.random() < 0.6 else rng.uniform(-np.pi, np.pi)
    depth, bow, x = rng.uniform(2.5, 8), rng.normal(0, 0.02), np.linspace(-16, 16, 33)
    waves = rng.normal(0, 0.5) * np.sin(x * rng.uniform(0.1, 1) + rng.uniform(0, 6))
    edge = np.stack([x, waves + bow * x**2 - depth], axis=1)
    outline = scene.place(np.concatenate([edge, [(16, -40), (-16, -40)]]), scene.landmarks[5], angle)
    layers, panel = Layers(scene.size), scene.fill(outline)
    surface = any_surface(scene, rng)
    if rng.random() < 0.4:
        surface = np.clip(surface * rng.uniform(0.1, 0.6), 0, 255)
    layers.add(panel, surface * rounded(panel, rng.uniform(0.3, 4) * scene.cm, rng.uniform(0.5, 1.0)))
    if rng.random() < 0.4:
        seam = edge - [0, rng.uniform(0.3, 3)]
        layers.add(scene.stroke([scene.place(seam, scene.landmarks[5], angle)], rng.uniform(0.1, 1)), any_colour(rng))
    return finish(scene, layers, rng, distance=rng.uniform(0.3, 2.5))


def draw_blob(scene: Scene, rng: np.random.Generator) -> Occluder:
    """See [`draw_occluder`]."""
    return draw_occluder(scene.landmarks, scene.other, rng)


KINDS: dict[str, tuple[Callable[[Scene, np.random.Generator], Occluder], float]] = {
    "eyeglasses": (draw_eyeglasses, 0.32),
    "sunglasses": (draw_sunglasses, 0.08),
    "hand": (draw_hand, 0.24),
    "hair": (draw_hair, 0.14),
    "microphone": (draw_microphone, 0.05),
    "cup": (draw_cup, 0.04),
    "device": (draw_device, 0.05),
    "bar": (draw_bar, 0.05),
    "straw": (draw_straw, 0.06),
    "medical mask": (draw_medical_mask, 0.04),
    "panel": (draw_panel, 0.08),
    "blob": (draw_blob, 0.06),
}
"""What is drawn in training, by name, and how often."""

UNSEEN_KINDS: dict[str, Callable[[Scene, np.random.Generator], Occluder]] = {
    "spoon": draw_spoon,
    "scarf": draw_scarf,
    "hat": draw_hat,
}
"""What is kept for measuring how well a network does on things that it was never shown."""


def draw_any(scene: Scene, rng: np.random.Generator) -> Occluder:
    """Draws one of `KINDS`."""
    names = list(KINDS)
    shares = np.array([share for _, share in KINDS.values()])
    draw, _ = KINDS[names[rng.choice(len(names), p=shares / shares.sum())]]
    return draw(scene, rng)
