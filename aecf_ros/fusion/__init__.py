"""Sensor fusion over embeddings, with torch and nothing else: `from aecf_ros.fusion import AECF`."""

from aecf_ros.fusion.layer import AECF, GATES
from aecf_ros.fusion.output import FusionOutput

__all__ = ["AECF", "GATES", "FusionOutput"]
