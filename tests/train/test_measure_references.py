"""How alike references are to what they stand for, on a few faces."""

from dataclasses import asdict

import numpy as np
import pytest
import torch

from faceswap_diffusion.training.config import ReferenceConfig
from faceswap_diffusion.training.data.dataset import PreparedFaces
from faceswap_diffusion.training.data.references import TrainingReferences
from tests.train.scripts import load_script

measuring = load_script("measure_references")


def test_a_pair_is_two_photos_of_one_person():
    assert measuring.true_pairs(["a", "b", "a", "c", "a"]) == [(0, 2), (2, 4), (4, 0)]
    with pytest.raises(ValueError, match="prepare it with identities, or leave it out"):
        measuring.true_pairs(["a", "b"])


def test_every_fault_has_a_line_in_which_it_is_alone():
    kinds = measuring.kinds_of(ReferenceConfig(toned=9.0))
    assert list(kinds) == ["training", "no faults", *(f"{name} alone" for name in asdict(ReferenceConfig()))]
    assert kinds["toned alone"] == ReferenceConfig(
        cycled=0, misaligned=0, shaded=0, toned=9.0, blurred=0, holed=0, bare=0, toothless=0, occluded=0
    )
    assert not any(asdict(kinds["no faults"]).values())


def test_figures_of_a_line():
    assert measuring.line("some", np.linspace(0, 1, 11)) == ["some", "11", "0.500", "0.100", "0.500", "0.900"]


def test_faults_make_references_less_alike_and_nothing_hidden_is_the_face_itself(prepared_faces):
    faces = PreparedFaces([prepared_faces], 64)
    rows = [(row, row) for row in range(4)]

    def mean(faults: ReferenceConfig) -> float:
        return measuring.likeness(TrainingReferences(faces, faults), rows, seed=0).mean()

    best, spoilt = mean(measuring.FAULTLESS), mean(ReferenceConfig(misaligned=0.05, toned=20, holed=1))
    assert 0.5 < best < 1
    assert spoilt < best - 0.1
    target = faces[0]
    own = torch.cat([measuring.as_pixels(target), torch.ones(1, 64, 64)])
    torch.testing.assert_close(measuring.filled(target, own, faces.label_names), measuring.as_pixels(target))


def test_the_table_has_a_line_for_each_kind(prepared_faces, capsys):
    folder = str(prepared_faces)
    measuring.main(["--data_dir", folder, "--pairs_dir", folder, "--resolution", "64", "--num_faces", "2"])
    names = [cells.split("|")[1].strip() for cells in capsys.readouterr().out.splitlines()]
    assert names[2:4] == ["training", "no faults"]
    assert names[-1] == "true pairs"
    assert len(names) == 2 + 2 + len(asdict(ReferenceConfig())) + 1


def test_faces_of_another_size_are_refused_in_a_line(prepared_faces, capsys):
    with pytest.raises(SystemExit) as stopped:
        measuring.main(["--data_dir", str(prepared_faces), "--resolution", "96"])
    assert stopped.value.code == 2
    assert "96 are wanted" in capsys.readouterr().err
