"""The upstream package is found in its own folder, and only there."""

import importlib
import sys
from pathlib import Path

import pytest

from benchmarks.fusion import upstream

STAND_IN = """
def create_fusion_pool(embed_dim, num_modalities, mask_prob):
    raise NotImplementedError(f"{embed_dim} {num_modalities} {mask_prob}")
"""


def test_the_package_comes_from_the_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "aecf").mkdir()
    (tmp_path / "aecf" / "__init__.py").write_text(STAND_IN)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != upstream.FOLDER])
    monkeypatch.setattr(upstream, "FOLDER", str(tmp_path))
    monkeypatch.delitem(sys.modules, "aecf", raising=False)
    importlib.invalidate_caches()
    assert upstream.upstream_installed() and sys.path[-1] == str(tmp_path)
    with pytest.raises(NotImplementedError, match="8 2 0.15"):
        upstream.Upstream([8, 8], 3)
    sys.modules.pop("aecf")
