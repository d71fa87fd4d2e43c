"""The node's parameters, declared once: name, default, description, unit, bounds. They become one frozen record."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.node import Node

from aecf_ros.core.bundle import Manifest
from aecf_ros.core.streams import StreamThresholds
from aecf_ros.runtime.backends import BACKENDS, DEVICES

Value = str | int | float | bool


class ParameterError(ValueError):
    """A parameter whose value cannot be used; names the parameter, the value and what is allowed."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One declaration. ``choices`` or ``bounds`` (inclusive) limit the value; ``unit`` goes into the description."""

    name: str
    default: Value
    description: str
    unit: str = ""
    bounds: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()

    def declare(self, node: Node) -> Value:
        """Declare on ``node`` and give the value in force.

        Raises:
            ParameterError: the value has another type, is out of bounds or is not one of the choices.
        """
        try:
            value = node.declare_parameter(self.name, self.default, self._descriptor()).value
        except ParameterException:
            bounds = f" from {self.bounds[0]:g} to {self.bounds[1]:g}" if self.bounds else ""
            given = node._parameter_overrides.get(self.name)  # noqa: SLF001 (rclpy gives no other access to an undeclared override)
            raise ParameterError(f"parameter {self.name} is {getattr(given, 'value', given)!r}; "
                                 f"give a value of type {type(self.default).__name__}{bounds}") from None
        if self.choices and value not in self.choices:
            raise ParameterError(f"parameter {self.name} is '{value}'; use one of {', '.join(self.choices)}")
        return value

    def _descriptor(self) -> ParameterDescriptor:
        text = self.description + (f" [{self.unit}]" if self.unit else "")
        descriptor = ParameterDescriptor(description=text, read_only=True)
        if self.choices:
            descriptor.additional_constraints = "one of: " + ", ".join(self.choices)
        if self.bounds is not None and isinstance(self.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=self.bounds[0], to_value=self.bounds[1])]
        elif self.bounds is not None:
            descriptor.integer_range = [IntegerRange(from_value=int(self.bounds[0]), to_value=int(self.bounds[1]))]
        return descriptor


NODE = (
    Parameter("model", "", "Directory of the model bundle; empty takes the shipped av_digits"),
    Parameter("backend", "onnxruntime", "What runs the graphs", choices=tuple(BACKENDS)),
    Parameter("device", "auto", "Where the graphs run; anything but auto fails rather than falling back", choices=DEVICES),
    Parameter("threads", 1, "CPU threads of each graph; one is best for small encoders", bounds=(1, 64)),
    Parameter("max_gap_s", 0.2, "Longest time without a prediction, whatever the streams do", "s", (0.01, 10.0)),
    Parameter("diagnostics_period_s", 1.0, "Time between diagnostics while no state changes", "s", (0.1, 60.0)),
    Parameter("waiting_grace_s", 10.0, "A stream that has sent nothing for so long is an ERROR in diagnostics", "s", (0.0, 3600.0)),
)

STREAM = (
    Parameter("stale_after_s", 0.35, "Silence after which the stream is STALE and leaves the fusion", "s", (0.01, 60.0)),
    Parameter("dropped_after_s", 1.0, "Silence after which the stream is DROPPED", "s", (0.01, 600.0)),
    Parameter("recover_samples", 3, "Good messages in a row that end a fault", "messages", (1, 1000)),
    Parameter("reject_after", 3, "Undecodable messages in a row that make the stream REJECTED", "messages", (1, 1000)),
)

IMAGE = (
    Parameter("transport", "raw", "Message type of the image topic: sensor_msgs/Image or CompressedImage", choices=("raw", "compressed")),
)

AUDIO = (
    Parameter("message", "stamped", "Message type of the audio topic: audio_common_msgs/AudioDataStamped or AudioData", choices=("stamped", "plain")),
    Parameter("sample_format", "", "Sample format while no AudioInfo has arrived, for example S16LE; empty waits for AudioInfo"),
    Parameter("rate_hz", 16000, "Sample rate that goes with sample_format", "Hz", (1000, 384000)),
    Parameter("channels", 1, "Channels that go with sample_format", bounds=(1, 64)),
)


@dataclass(frozen=True, slots=True)
class StreamParameters:
    """Parameters of one stream: its thresholds, and the values of IMAGE or AUDIO by name."""

    thresholds: StreamThresholds
    options: dict[str, Value]


@dataclass(frozen=True, slots=True)
class NodeParameters:
    """Parameters that do not depend on the bundle."""

    model: Path
    backend: str
    device: str
    threads: int
    max_gap_s: float
    diagnostics_period_s: float
    waiting_grace_s: float


def declare_node_parameters(node: Node) -> NodeParameters:
    """Declare and read what does not depend on the bundle.

    Raises:
        ParameterError: a value is out of its choices.
    """
    values = {parameter.name: parameter.declare(node) for parameter in NODE}
    values["model"] = Path(str(values["model"])) if values["model"] else shipped_model()
    return NodeParameters(**values)  # type: ignore[arg-type]


def declare_stream_parameters(node: Node, manifest: Manifest) -> dict[str, StreamParameters]:
    """Declare and read ``<modality>.<name>`` for every modality of the bundle.

    Raises:
        ParameterError: a value is out of its choices, or thresholds contradict each other.
    """
    streams = {}
    for modality in manifest.modalities:
        options = IMAGE if modality.kind == "image" else AUDIO
        values = {p.name: _under(modality.name, p).declare(node) for p in (*STREAM, *options)}
        try:
            thresholds = StreamThresholds(**{p.name: values[p.name] for p in STREAM})  # type: ignore[arg-type]
        except ValueError as error:
            raise ParameterError(f"parameters of {modality.name}: {error}") from None
        streams[modality.name] = StreamParameters(thresholds, {p.name: values[p.name] for p in options})
    return streams


def _under(prefix: str, parameter: Parameter) -> Parameter:
    return Parameter(f"{prefix}.{parameter.name}", parameter.default, parameter.description, parameter.unit, parameter.bounds, parameter.choices)


def shipped(relative: str) -> Path:
    """A file or folder that comes with the package: beside the sources, or in the installed package's share folder."""
    beside = Path(__file__).resolve().parents[2] / relative
    if beside.exists():
        return beside
    from ament_index_python.packages import get_package_share_directory  # only an installed package needs the index

    return Path(get_package_share_directory("aecf_ros")) / relative


def shipped_model() -> Path:
    """Directory of the shipped bundle, av_digits."""
    return shipped("models/av_digits")
