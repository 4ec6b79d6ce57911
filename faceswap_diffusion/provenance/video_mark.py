"""The invisible mark in a video: looked for in several frames, which are judged together.

Frames of one video show the same faces, so what looks a little like a mark in one of them may do so in others, and
how sure several frames are does not follow from how sure one is. Other keys tell: nobody has laid a mark with them, so
what they find in the same frames is what a video like this one has without a mark.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from faceswap_diffusion.provenance.watermark import (
    FALSE_ALARM_SCALE,
    FALSE_ALARMS,
    Evidence,
    carriers,
    false_alarm_rate,
    look_for_mark,
    read_bits,
)

OTHER_KEYS = (b"another key 0", b"another key 1")
"""Each gives 17 pilots to compare with."""

Look = tuple[np.ndarray, Sequence[np.ndarray]]
"""A frame (H, W, 3) uint8 RGB, and for each of its faces a matrix (2, 3) as for [`find_mark`]."""

DEVIATION = np.pi / np.sqrt(6)
"""Standard deviation of a Gumbel distribution of scale 1."""


@dataclass(frozen=True)
class VideoMark:
    """What was found of a mark in frames of a video.

    Args:
        looked_at (`int`): How many frames were looked at.
        with_face (`int`): How many of them show a face.
        found_in (`int`): How many of them have a mark, each judged by itself as a picture is.
        score (`float`): Mean, over the frames with a face, of the highest score in each.
        probability (`float`): 1 less the share of videos without a mark that have such a score.
        payload (`int`): 16 bits, read from all frames together; they mean nothing unless `found`.
        payload_probability (`float`): That all bits are right if there is a mark.
    """

    looked_at: int
    with_face: int = 0
    found_in: int = 0
    score: float = 0.0
    probability: float = 0.0
    payload: int = 0
    payload_probability: float = 0.0

    @property
    def found(self) -> bool:
        """Whether there is a mark, with at most `FALSE_ALARMS` false alarms."""
        return self.probability >= 1 - FALSE_ALARMS


def find_video_mark(frames: Iterable[Look]) -> VideoMark:
    """Looks for a mark in frames.

    Args:
        frames (`Iterable[Look]`): Each with its faces.
    """
    seen = evidence_in(frames)
    known = [one for one in seen if one is not None]
    return judge(known, len(seen)) if known else VideoMark(len(seen))


def evidence_in(frames: Iterable[Look]) -> list[Evidence | None]:
    """What each frame tells; `None` for those without a face."""
    looks = [[look_for_mark(rgb, matrix, _other_pilots()) for matrix in matrices] for rgb, matrices in frames]
    return [_of_frame(look) if look else None for look in looks]


def judge(seen: Sequence[Evidence], looked_at: int) -> VideoMark:
    """Judges frames together.

    The less the mean scores of other keys differ, the more independent of each other are the frames, and the lower is
    the score that a mark needs. They cannot be more independent than frames of different videos.

    Args:
        seen (`Sequence[Evidence]`): Of each frame with a face.
        looked_at (`int`): How many frames were looked at.
    """
    score = float(np.mean([one.score for one in seen]))
    others = np.mean([one.others for one in seen], axis=0)
    deviation = max(float(np.std(others, ddof=1)), FALSE_ALARM_SCALE * DEVIATION / np.sqrt(len(seen)))
    scale = deviation / DEVIATION
    alarms = false_alarm_rate(score, float(np.mean(others)) - np.euler_gamma * scale, scale)
    noise = min(scale / FALSE_ALARM_SCALE, 1.0)  # of the mean of bits, by that of one frame
    payload, certain = read_bits(np.mean([one.bits for one in seen], axis=0) / noise)
    return VideoMark(
        looked_at,
        with_face=len(seen),
        found_in=sum(false_alarm_rate(one.score) <= FALSE_ALARMS for one in seen),
        score=score,
        probability=1 - alarms,
        payload=payload,
        payload_probability=certain,
    )


def _of_frame(faces: Sequence[Evidence]) -> Evidence:
    """What the face of a frame that is most like a marked one tells; each key chooses its own."""
    best = max(faces, key=lambda face: face.score)
    return Evidence(best.score, best.bits, np.max([face.others for face in faces], axis=0))


@cache
def _other_pilots() -> np.ndarray:
    return np.concatenate([carriers(key) for key in OTHER_KEYS])
