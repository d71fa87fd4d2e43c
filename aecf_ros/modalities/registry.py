"""Every kind of sensor. A new kind is a line here; nothing else lists them."""

from __future__ import annotations

from aecf_ros.modalities.audio.modality import AUDIO
from aecf_ros.modalities.base import Modality
from aecf_ros.modalities.image.modality import IMAGE
from aecf_ros.modalities.vector.modality import VECTOR

MODALITIES: dict[str, Modality] = {kind.name: kind for kind in (IMAGE, AUDIO, VECTOR)}
"""By the ``kind`` of manifests and datasets."""
