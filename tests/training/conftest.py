"""Faces prepared once for all tests of training: real photos of people who do not exist, two pictures of some."""

from pathlib import Path

import pytest

from tests.training.example_faces import prepare_examples


@pytest.fixture(scope="session")
def prepared_faces(tmp_path_factory, example_images) -> Path:
    return prepare_examples(example_images, tmp_path_factory.mktemp("prepared") / "faces")


@pytest.fixture(scope="session")
def one_person(tmp_path_factory, example_images) -> Path:
    return prepare_examples(example_images, tmp_path_factory.mktemp("one") / "faces", pattern="p001*.jpg")
