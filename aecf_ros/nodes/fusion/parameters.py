"""The node's parameters, declared once: name, default, description, unit, bounds, and when a change takes effect.

``python -m aecf_ros.nodes.tools.parameters_page`` prints them as the page docs/parameters.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.node import Node

from aecf_ros.core.bundle import Manifest, ManifestEntry
from aecf_ros.health.thresholds import (
    StreamThresholds,
)
from aecf_ros.modalities.parameters import Life, ParameterRecord, Value
from aecf_ros.modalities.registry import MODALITIES
from aecf_ros.runtime.backends import BACKENDS, DEVICES
from aecf_ros.runtime.scheduling import SCHEDULINGS

LIVES: dict[Life, str] = {
    "live": "takes effect at once",
    "activate": "takes effect at the next activation",
    "configure": "takes effect at the next configuration",
    "load": "takes effect at the next configuration or ~/reload_model",
    "start": "read once, when the node starts",
}


class ParameterError(ValueError):
    """A parameter whose value cannot be used; names the parameter, the value and what is allowed."""


@dataclass(frozen=True, slots=True)
class Parameter(ParameterRecord):
    """One declaration; ``life`` says when a change takes effect."""

    def declare(self, node: Node) -> Value:
        """Declare on ``node``, unless that was done before, and give the value in force.

        Raises:
            ParameterError: the value has another type, is out of bounds or is not one of the choices.
        """
        if node.has_parameter(self.name):
            return node.get_parameter(self.name).value
        try:
            value = node.declare_parameter(self.name, self.default, self._descriptor()).value
        except ParameterException:
            bounds = f" from {self.bounds[0]:g} to {self.bounds[1]:g}" if self.bounds else ""
            given = node._parameter_overrides.get(self.name)  # rclpy gives no other access
            raise ParameterError(
                f"parameter {self.name} is {getattr(given, 'value', given)!r}; "
                f"give a value of type {type(self.default).__name__}{bounds}"
            ) from None
        if complaint := self.complaint(value):
            raise ParameterError(complaint)
        return value

    def complaint(self, value: Value) -> str:
        """What is wrong with a value of the right type, empty if nothing is; bounds are the middleware's to check."""
        if self.choices and value not in self.choices:
            return f"parameter {self.name} is '{value}'; use one of {', '.join(c or 'empty' for c in self.choices)}"
        return ""

    def of(self, modality: str) -> Parameter:
        """This parameter for one modality: ``MODALITY.NAME``."""
        return replace(self, name=f"{modality}.{self.name}")

    def _descriptor(self) -> ParameterDescriptor:
        unit = f" [{self.unit}]" if self.unit else ""
        descriptor = ParameterDescriptor(
            description=f"{self.description}{unit}; {LIVES[self.life]}", read_only=self.life == "start"
        )
        if self.choices:
            descriptor.additional_constraints = "one of: " + ", ".join(self.choices)
        if self.bounds is not None and isinstance(self.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=self.bounds[0], to_value=self.bounds[1])]
        elif self.bounds is not None:
            descriptor.integer_range = [IntegerRange(from_value=int(self.bounds[0]), to_value=int(self.bounds[1]))]
        return descriptor


NODE = (
    Parameter("model", "", "Directory of the model bundle; empty takes the shipped av_digits", life="load"),
    Parameter("backend", "onnxruntime", "What runs the graphs", choices=tuple(BACKENDS), life="load"),
    Parameter(
        "device",
        "auto",
        "Where the encoders run; anything but auto fails rather than starting elsewhere",
        choices=DEVICES,
        life="load",
    ),
    Parameter("threads", 1, "CPU threads of each graph; one is best for small encoders", bounds=(1, 64), life="load"),
    Parameter("half", False, "Encoders in half precision; backend torch only", life="load"),
    Parameter(
        "cuda_graphs", False, "Replay each encoder as one CUDA graph; backend torch on device cuda only", life="load"
    ),
    Parameter(
        "scheduling",
        "auto",
        "Inference in the callback (inline) or in a thread of its own that takes the newest frame (worker); auto"
        " measures the graphs when they are loaded and takes the worker if they need more than 60 % of the time between"
        " frames at 30 Hz",
        choices=SCHEDULINGS,
        life="load",
    ),
    Parameter(
        "max_gap_s", 0.2, "Longest time without a prediction, whatever the streams do", "s", (0.01, 10.0), life="live"
    ),
    Parameter(
        "min_confidence",
        0.0,
        "Abstain below this confidence, also where the model itself would not; 0 leaves it to the model",
        "",
        (0.0, 1.0),
        life="live",
    ),
    Parameter(
        "drift_window_s",
        120.0,
        "How long embeddings and confidence must be unlike training, by a test that leaves no doubt, before diagnostics"
        " say so; 0 switches it off",
        "s",
        (0.0, 3600.0),
        life="live",
    ),
    Parameter("diagnostics_period_s", 1.0, "Time between diagnostics while no state changes", "s", (0.1, 60.0)),
    Parameter(
        "waiting_grace_s",
        10.0,
        "A stream that has sent nothing for so long is an ERROR in diagnostics",
        "s",
        (0.0, 3600.0),
        life="live",
    ),
)

ENABLED = Parameter(
    "enabled", True, "Publish predictions from the start; ~/set_enabled changes it while the node runs", life="start"
)
AUTOSTART = Parameter(
    "autostart", True, "Configure and activate at once; false leaves that to a lifecycle manager", life="start"
)

STREAM = (
    Parameter(
        "stale_after_s",
        0.35,
        "Silence after which the stream is STALE and leaves the fusion",
        "s",
        (0.01, 60.0),
        life="live",
    ),
    Parameter("dropped_after_s", 1.0, "Silence after which the stream is DROPPED", "s", (0.01, 600.0), life="live"),
    Parameter("recover_samples", 3, "Good messages in a row that end a fault", "messages", (1, 1000), life="live"),
    Parameter(
        "reject_after",
        3,
        "Undecodable messages in a row that make the stream REJECTED",
        "messages",
        (1, 1000),
        life="live",
    ),
    Parameter(
        "late_after_s",
        0.5,
        "Age at arrival that makes the stream LATE; 0 switches it off",
        "s",
        (0.0, 60.0),
        life="live",
    ),
    Parameter(
        "too_old_after_s",
        1.0,
        "Age at arrival above which data is not used, though the stream is only LATE; 0 switches it off",
        "s",
        (0.0, 600.0),
        life="live",
    ),
    Parameter(
        "future_tolerance_s",
        0.2,
        "How far ahead a stamp may be before it is a CLOCK_FAULT; 0 switches it off",
        "s",
        (0.0, 60.0),
        life="live",
    ),
    Parameter(
        "degraded_after_s",
        0.4,
        "How long content must be bad to make the stream DEGRADED",
        "s",
        (0.0, 60.0),
        life="live",
    ),
    Parameter(
        "min_rate_ratio",
        0.7,
        "Share of its learned rate below which the stream is DEGRADED; 0 switches it off",
        "",
        (0.0, 1.0),
        life="live",
    ),
    Parameter(
        "max_lost",
        0.25,
        "Share of messages lost that makes the stream DEGRADED within some 40, half of it within hundreds; 0 switches"
        " it off",
        "",
        (0.0, 1.0),
        life="live",
    ),
    Parameter(
        "max_jitter",
        0.6,
        "Mean change of transit time that makes the stream DEGRADED; 0 switches it off",
        "periods",
        (0.0, 100.0),
        life="live",
    ),
)


def options_of(kind: str) -> tuple[Parameter, ...]:
    """The parameters that streams of one kind of modality have besides :data:`STREAM`."""
    return tuple(Parameter(**asdict(option)) for option in MODALITIES[kind].parameters)


@dataclass(frozen=True, slots=True)
class NodeParameters:
    """Parameters that do not depend on the bundle."""

    model: Path
    backend: str
    device: str
    threads: int
    half: bool
    cuda_graphs: bool
    scheduling: str
    max_gap_s: float
    min_confidence: float
    drift_window_s: float
    diagnostics_period_s: float
    waiting_grace_s: float


@dataclass(frozen=True, slots=True)
class StreamParameters:
    """Parameters of one stream: its thresholds, and the values of its kind's other parameters by name."""

    thresholds: StreamThresholds
    options: Mapping[str, Value]


def declare_node_parameters(node: Node) -> NodeParameters:
    """Declare what does not depend on the bundle, and read it.

    Raises:
        ParameterError: a value is out of its choices.
    """
    values: dict[str, Any] = {parameter.name: parameter.declare(node) for parameter in NODE}
    values["model"] = Path(str(values["model"])) if values["model"] else shipped_model()
    return NodeParameters(**values)


def declare_stream_parameters(node: Node, manifest: Manifest) -> dict[str, StreamParameters]:
    """Declare ``MODALITY.NAME`` for every modality of the bundle, and read them.

    Raises:
        ParameterError: a value is out of its choices, or thresholds contradict each other.
    """
    streams = {}
    for modality in manifest.modalities:
        options = options_of(modality.kind)
        values = {p.name: p.of(modality.name).declare(node) for p in (*STREAM, *options)}
        streams[modality.name] = StreamParameters(
            _thresholds(modality, values),
            {p.name: values[p.name] for p in options if not hasattr(MODALITIES[modality.kind].thresholds, p.name)},
        )
    return streams


def check_change(node: Node, manifest: Manifest | None, changed: Mapping[str, Value]) -> dict[str, StreamThresholds]:
    """Check values that are about to be set.

    Returns:
        The thresholds of every modality as they will be.

    Raises:
        ParameterError: a value is out of its choices, or thresholds would contradict each other.
    """
    modalities = manifest.modalities if manifest is not None else ()
    known = {p.name: p for p in (*NODE, *(p.of(m.name) for m in modalities for p in (*STREAM, *options_of(m.kind))))}
    for name, value in changed.items():
        if name in known and (complaint := known[name].complaint(value)):
            raise ParameterError(complaint)
    thresholds = {}
    for m in modalities:
        names = {
            p.name: p.of(m.name).name
            for p in (*STREAM, *options_of(m.kind))
            if hasattr(MODALITIES[m.kind].thresholds, p.name)
        }
        thresholds[m.name] = _thresholds(
            m, {short: changed.get(full, node.get_parameter(full).value) for short, full in names.items()}
        )
    return thresholds


def _thresholds(modality: ManifestEntry, values: Mapping[str, Value]) -> StreamThresholds:
    usual = MODALITIES[modality.kind].thresholds
    try:
        return replace(usual, **{name: value for name, value in values.items() if hasattr(usual, name)})  # type: ignore[arg-type]
    except ValueError as error:
        raise ParameterError(f"parameters of {modality.name}: {error}") from None


def shipped(relative: str) -> Path:
    """A file or folder that comes with the package: beside the sources, or in the installed package's share folder."""
    beside = Path(__file__).resolve().parents[3] / relative
    if beside.exists():
        return beside
    from ament_index_python.packages import get_package_share_directory  # only an installed package needs the index

    return Path(get_package_share_directory("aecf_ros")) / relative


def shipped_model() -> Path:
    """Directory of the shipped bundle, av_digits."""
    return shipped("models/av_digits")
