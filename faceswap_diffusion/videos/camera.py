"""Records from a camera, so that what it saw can be swapped, and gone on with, like any other video."""

import sys
from pathlib import Path
from typing import Any

import av

from faceswap_diffusion.videos.frames import Seconds
from faceswap_diffusion.writing import whole_file

DEVICES = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}
"""FFmpeg's input device and the name of a camera, by platform."""

OPTIONS = {"preset": "ultrafast", "crf": "10"}


def record_camera(index: int, seconds: Seconds, path: Path) -> None:
    """Records what a camera sees into a file, there whole or not at all.

    Args:
        index (`int`): Of the camera, 0 being the first.
        seconds (`float`): For how long.
        path (`Path`): A Matroska file.

    Raises:
        ValueError: If there is no such camera, or it cannot be used.
    """
    kind, name = DEVICES.get(sys.platform, DEVICES["linux"])
    try:
        camera = av.open(name.format(index), format=kind)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot open camera {index}: {error}; connect it, or name a video") from None
    with camera, whole_file(path) as unfinished:
        record(camera, seconds, unfinished)


def record(camera: Any, seconds: Seconds, path: Path) -> None:
    """Encodes the frames of an opened input from its first one on, for some seconds."""
    stream = camera.streams.video[0]
    with av.open(str(path), "w", format="matroska") as container:
        video: Any = container.add_stream("libx264", rate=stream.average_rate or 25, options=OPTIONS)
        video.width, video.height, video.pix_fmt = stream.width, stream.height, "yuv420p"
        first = None
        for frame in camera.decode(stream):
            first = frame.pts if first is None else first
            frame.pts -= first
            if frame.pts * frame.time_base >= seconds:
                break
            frame.pict_type = 0
            container.mux(video.encode(frame.reformat(format="yuv420p")))
        container.mux(video.encode(None))
