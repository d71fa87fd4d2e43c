"""Sensor fusion over embeddings; needs only torch: `from aecf_ros.fusion import AECF`."""

from aecf_ros.fusion.crossfit import CrossFitConfig, ModalitySamples, fit_reliability, recalibrate, settle
from aecf_ros.fusion.layer import AECF, GATES
from aecf_ros.fusion.objective import EXPERTS_ONLY, PUBLISHED, FusionBatch, FusionObjective, ObjectiveConfig
from aecf_ros.fusion.output import FusionOutput

__all__ = [
    "AECF",
    "EXPERTS_ONLY",
    "GATES",
    "PUBLISHED",
    "CrossFitConfig",
    "FusionBatch",
    "FusionObjective",
    "FusionOutput",
    "ModalitySamples",
    "ObjectiveConfig",
    "fit_reliability",
    "recalibrate",
    "settle",
]
