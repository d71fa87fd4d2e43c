"""Sensor fusion over embeddings, with torch and nothing else: `from aecf_ros.fusion import AECF`."""

from aecf_ros.fusion.crossfit import CrossFitConfig, fit_reliability, recalibrate, settle
from aecf_ros.fusion.layer import AECF, GATES
from aecf_ros.fusion.objective import EXPERTS_ONLY, PUBLISHED, FusionObjective, ObjectiveConfig
from aecf_ros.fusion.output import FusionOutput

__all__ = [
    "AECF",
    "EXPERTS_ONLY",
    "GATES",
    "PUBLISHED",
    "CrossFitConfig",
    "FusionObjective",
    "FusionOutput",
    "ObjectiveConfig",
    "fit_reliability",
    "recalibrate",
    "settle",
]
