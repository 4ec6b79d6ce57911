"""The benchmark against REFace, of which no code is here: our side at reduced size, and the table."""

import sys
from pathlib import Path

import pytest
import torch

from benchmarks import against_reface
from benchmarks.against_reface import OURS, PARTS, THEIRS
from faceswap_diffusion.conversion.compvis import UNET_PREFIX, compvis_shape, unet_keys
from tests.parity.reduced import REDUCED

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_our_side_makes_predictions_latents_and_pictures(dtype: torch.dtype):
    inputs = against_reface.made_up_inputs(REDUCED, 64, CPU, dtype)
    parts = against_reface.our_parts(REDUCED, 3.5, CPU, dtype)
    made = {name: parts[name](inputs) for name in PARTS}
    shapes = {name: tuple(part.shape) for name, part in made.items()}
    assert shapes == {"step": (1, 4, 8, 8), "encode": (1, 4, 8, 8), "decode": (1, 3, 64, 64)}
    assert {part.dtype for part in made.values()} == {dtype}


def test_weights_go_into_a_network_with_other_names_and_share_its_memory():
    ours = torch.nn.Sequential(torch.nn.Linear(3, 2))
    theirs = torch.nn.ModuleDict({"there": torch.nn.Linear(3, 2, device="meta")})
    against_reface.fill(theirs, ours, {"0.weight": "net.there.weight", "0.bias": "net.there.bias"}, "net.")
    assert theirs["there"].weight.data_ptr() == ours[0].weight.data_ptr()


def test_both_sides_have_the_same_weights_and_every_weight_has_a_name():
    first, second = (against_reface.build_networks(REDUCED, CPU)[0] for _ in range(2))
    assert torch.equal(first.conv_in.weight, second.conv_in.weight)
    keys = unet_keys(list(first.state_dict()), first.config)
    assert all(key.startswith(UNET_PREFIX) for key in keys.values())
    assert compvis_shape(keys["conv_in.weight"], (32, 9, 3, 3)) == (32, 9, 3, 3)


def test_the_table_has_ratios_of_medians_by_hand():
    figures = {
        "seconds": {
            "step": {OURS: [1.0, 2.0, 9.0], THEIRS: [4.0, 4.0, 36.0]},
            "encode": {OURS: [0.5], THEIRS: [1.0]},
            "decode": {OURS: [1.5], THEIRS: [1.0]},
        },
        "difference": dict.fromkeys(PARTS, 1e-5),
        "peak_memory": {OURS: 3_000_000_000, THEIRS: 6_000_000_000},
    }
    assert against_reface.whole_swap(figures, OURS, 4) == 10  # 0.5 + 4 x 2 + 1.5
    assert against_reface.table_lines(figures, 4, 50)[2:] == [
        "| step | 2 s | 4 s | 0.250 x | 0.33 x | 1.0e-05 |",
        "| encode | 0.5 s | 1 s | 0.500 x |  | 1.0e-05 |",
        "| decode | 1.5 s | 1 s | 1.500 x |  | 1.0e-05 |",
        "| swap, 4 steps to 50 | 10 s | 202 s | 0.050 x | 0.03 x | |",
        "| peak memory | 3.00 GB | 6.00 GB | 0.50 x | 0.6 x | |",
    ]


def test_a_folder_without_reface_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert against_reface.main(["--reface", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.endswith("none is no folder: pass a clone of github.com/Sanoojan/REFace\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(ValueError, match=r"cannot import REFace's code from .*No module named 'ldm"):
        against_reface.import_networks(tmp_path, REDUCED)
