"""Make a short clip with sound, swap the face in it, be killed on the way, and go on.

The clip is a photo of `examples/images` over which a camera moves. The process that swaps is killed as soon as the
first part is finished, with the signal that no program can catch; a second one goes on with that part. Writes
outputs/video.mp4, with the clip's own sound, and outputs/video.png, a sheet of some of its frames.
"""

import multiprocessing
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from faceswap_diffusion import load_photo, swap_video

IMAGES = Path(__file__).parent / "images"
OUTPUTS = Path("outputs")
CLIP, SWAPPED = OUTPUTS / "clip.mp4", OUTPUTS / "video.mp4"
SIDE, RATE, FRAMES = 224, 6, 8


def draw(index: int, photo: np.ndarray) -> np.ndarray:
    """What a camera shows that moves over a photo (H, W, 3), slowly to the left and closer."""
    progress = index / (FRAMES - 1)
    scale = SIDE / photo.shape[1] * (1 + 0.15 * progress)
    move = np.array([[scale, 0, -30 * progress], [0, scale, -10 - 25 * progress]])
    return cv2.warpAffine(photo, move, (SIDE, SIDE), flags=cv2.INTER_AREA)


def write_clip(path: Path) -> None:
    """Writes frames, and a tone that rises."""
    photo = load_photo(IMAGES / "p010_selfie.jpg").rgb
    seconds = np.arange(16_000 * FRAMES // RATE) / 16_000
    tone = 0.2 * np.sin(2 * np.pi * (330 + 110 * seconds) * seconds).astype(np.float32)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=RATE, options={"crf": "12"})
        audio = container.add_stream("aac", rate=16_000, layout="mono")
        video.width = video.height = SIDE
        for index in range(FRAMES):
            container.mux(video.encode(av.VideoFrame.from_ndarray(draw(index, photo), format="rgb24")))
        container.mux(video.encode())
        sound = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
        sound.sample_rate, sound.pts, sound.time_base = 16_000, 0, Fraction(1, 16_000)
        container.mux(audio.encode(sound))
        container.mux(audio.encode())


def swap():
    """Swaps the face of the clip, in parts of half a second; goes on where it was stopped."""
    source = IMAGES / "p001_portrait.jpg"
    return swap_video(source, CLIP, SWAPPED, every=2, segment_seconds=0.5)


def sound_of(path: Path) -> list[bytes]:
    """The packets of a video's sound."""
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0)]


def main() -> None:
    """Makes the clip, swaps, kills, and goes on."""
    OUTPUTS.mkdir(exist_ok=True)
    write_clip(CLIP)
    worker = multiprocessing.get_context("spawn").Process(target=swap)
    worker.start()
    first_part = SWAPPED.with_name(f"{SWAPPED.name}.parts") / "000000"
    while worker.is_alive() and not first_part.exists():
        time.sleep(0.05)
    worker.kill()
    worker.join()
    print(f"killed; there is {first_part}")
    result = swap()
    assert result.resumed > 0, "nothing was gone on with"
    assert sound_of(SWAPPED) == sound_of(CLIP), "the sound is another one"
    print(
        f"{result.output}: {result.swapped} of {result.frames} frames swapped, {result.resumed} before it was killed"
    )


if __name__ == "__main__":
    main()
