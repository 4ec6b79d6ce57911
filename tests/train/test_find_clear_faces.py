"""Listing clear faces: those of the examples are, those with a bar are not."""

import cv2
import numpy as np
import torch

from faceswap_diffusion.masks.occlusion import load_occlusion_network
from faceswap_diffusion.training.data.dataset import FaceRecord, PreparedFaces
from tests.train.scripts import load_script

finding = load_script("find_clear_faces")


def test_clear_faces_are_listed_by_name(prepared_faces, tmp_path):
    arguments = ["--train_data_dir", str(prepared_faces), "--output", str(tmp_path / "names.txt")]
    finding.main([*arguments, "--largest_share", "0.03"])
    listed = (tmp_path / "names.txt").read_text().splitlines()
    faces = PreparedFaces([prepared_faces], 64)
    assert set(listed) <= {faces[row].name for row in range(len(faces))}
    assert len(listed) >= 6


def test_a_covered_face_has_a_share(prepared_faces):
    face = PreparedFaces([prepared_faces], 64)[0]
    pixels = np.ascontiguousarray(face.pixels.permute(1, 2, 0).numpy())
    start, end = (np.round(face.landmarks[point]).astype(int).tolist() for point in (123, 288))
    cv2.line(pixels, start, end, (30, 60, 140), 7)
    barred = FaceRecord(**{**vars(face), "pixels": torch.from_numpy(pixels).permute(2, 0, 1)})
    assert finding.covered_share(load_occlusion_network(), barred) > 0.08
