"""The demo's API, by Gradio's client."""

from pathlib import Path

import gradio as gr
import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from faceswap_diffusion.provenance.save import read_provenance


@pytest.fixture(scope="module")
def client(page: gr.Blocks, tmp_path_factory: pytest.TempPathFactory) -> Client:
    patient = {"timeout": 60}  # on a busy machine
    folder = tmp_path_factory.mktemp("downloads")
    return Client(page.local_url, verbose=False, download_files=folder, httpx_kwargs=patient)


def test_a_program_finds_swaps_and_verifies(client: Client, photos: Path):
    target = handle_file(photos / "target.jpg")
    _, faces, _ = client.predict(target, api_name="/find_faces")
    assert faces["value"] == [0]
    source = [{"image": handle_file(photos / "source.jpg"), "caption": None}]
    settings = {"faces": [0], "region": ["eyes", "brows"], "steps": 1, "agreed": True, "consent": "both"}
    with pytest.raises(AppError, match="nobody has agreed"):
        client.predict(source, target, **{**settings, "agreed": False}, api_name="/swap")
    *_, file, text = client.predict(source, target, **settings, api_name="/swap")
    assert text.startswith("Swapped 1 of 1 faces in 1 steps")
    facts = read_provenance(file) or {}
    assert (facts["region"], facts["consent"], facts["num_inference_steps"]) == ("eyes+brows", "both", 1)
    assert client.predict(handle_file(file), api_name="/verify").startswith("swapped.png: made with AI")


def test_no_other_file_is_served_or_taken(page: gr.Blocks, client: Client, tmp_path: Path):
    (tmp_path / "secret.jpg").write_text("secret")
    assert httpx.get(f"{page.local_url}gradio_api/file={tmp_path}/secret.jpg").status_code == 403
    stolen = {"path": str(tmp_path / "secret.jpg"), "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(AppError):
        client.predict(stolen, api_name="/verify")


def test_files_that_are_too_large_are_refused(page: gr.Blocks):
    answers = [
        httpx.post(f"{page.local_url}gradio_api/upload", files={"files": ("photo.jpg", bytes(size))}).status_code
        for size in (999_000, 1_000_001)
    ]
    assert answers == [200, 413]
