"""What the store's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from leanmodel_store.artifacts import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def manifest_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "manifest"
    folder.mkdir()
    return folder
