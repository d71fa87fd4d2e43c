"""Scores a running fusion node against a label topic, and writes the summary.json of `aecf evaluate` when it is
stopped.

For `ros2 bag play` beside the node itself (launch/replay.launch.py); `aecf evaluate` needs neither and is exact. It
says "ready to score" on its standard output once the fusion node has a model; what is played after that is heard from
its beginning.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import String

from aecf_msgs.msg import FusedPrediction
from aecf_ros.core.bundle import BundleError, load_manifest
from aecf_ros.core.types import NANOSECONDS, Prediction
from aecf_ros.nodes.drivers.driver import declare
from aecf_ros.nodes.fusion.inputs import LATCHED_QOS
from aecf_ros.nodes.fusion.node import PREDICTION_QOS
from aecf_ros.nodes.fusion.parameters import Parameter, ParameterError, shipped_model
from aecf_ros.nodes.ros.convert import prediction_from_message
from aecf_ros.nodes.ros.process import NodeEnd, ros_process, spin
from aecf_ros.nodes.ros.qos import OVERRIDABLE
from aecf_ros.replay.faults.schedule import FaultError, load_faults
from aecf_ros.replay.report.html import write_comparison
from aecf_ros.replay.scoring.driver import stream_kinds
from aecf_ros.replay.scoring.ground_truth import ground_truth
from aecf_ros.replay.scoring.prediction_log import as_prediction_log
from aecf_ros.replay.scoring.score import Run, published_predictions, summarize

PARAMETERS = (
    Parameter(
        "model", "", "Directory of the model bundle that the fusion node runs; empty takes the shipped av_digits"
    ),
    Parameter("label_topic", "label", "std_msgs/String topic with the label that is true now, empty for none"),
    Parameter("prediction_topic", "fusion_node/prediction", "The fusion node's predictions"),
    Parameter("faults", "", "Faults file that the recording was played with; empty for none"),
    Parameter("wait_s", 60.0, "Longest wait for the fusion node to have a model", "s", (1.0, 3600.0)),
    Parameter("out", "out/replay", "Folder for summary.json and report.html"),
)


class EvaluatorNode(Node):
    """Collects predictions and labels; :meth:`write` scores them."""

    def __init__(self) -> None:
        super().__init__("evaluator_node")
        declared = declare(self, PARAMETERS)
        self._wait_s = float(declared.pop("wait_s"))
        values = {name: str(value) for name, value in declared.items()}
        self._manifest = load_manifest(Path(values["model"]) if values["model"] else shipped_model())
        self._faults = load_faults(values["faults"], stream_kinds(self._manifest)) if values["faults"] else ()
        self._out = Path(values["out"])
        self._received: list[tuple[Prediction, int]] = []
        self._labels: list[tuple[int, str]] = []
        self._first_s = 0.0
        self._waiting = self.create_timer(self._wait_s, self._give_up, clock=Clock(clock_type=ClockType.STEADY_TIME))
        fusion_node = values["prediction_topic"].rpartition("/")[0]
        self.create_subscription(
            String, f"{fusion_node}/model_info", self._on_model, LATCHED_QOS, qos_overriding_options=OVERRIDABLE
        )
        self.create_subscription(
            FusedPrediction,
            values["prediction_topic"],
            self._on_prediction,
            PREDICTION_QOS,
            qos_overriding_options=OVERRIDABLE,
        )
        if values["label_topic"]:
            self.create_subscription(
                String, values["label_topic"], self._on_label, 50, qos_overriding_options=OVERRIDABLE
            )

    def _on_model(self, _: String) -> None:
        self._waiting.cancel()
        print(f"evaluator_node: ready to score {self._manifest.name}", flush=True)

    def _give_up(self) -> None:
        print(
            f"evaluator_node: no fusion node had a model within {self._wait_s:g} s; see its log, and the parameter"
            " prediction_topic",
            file=sys.stderr,
            flush=True,
        )
        raise NodeEnd(1)

    def _on_prediction(self, message: FusedPrediction) -> None:
        received = prediction_from_message(message)
        if received[1] > 0:  # before the first /clock there is no time
            self._first_s = self._first_s or time.monotonic()
            self._received.append(received)

    def _on_label(self, message: String) -> None:
        self._labels.append((self.get_clock().now().nanoseconds, message.data))

    @property
    def received(self) -> int:
        """How many predictions there are to score."""
        return len(self._received)

    def write(self) -> str:
        """Write the reports; gives one line that says where."""
        start_ns = min([self._received[0][1], *(at_ns for at_ns, _ in self._labels)])
        duration_s = (self._received[-1][1] - start_ns) / NANOSECONDS
        truth = (
            ground_truth([((at_ns - start_ns) / NANOSECONDS, name) for at_ns, name in self._labels], self._manifest)
            if self._labels
            else None
        )
        log = as_prediction_log(
            published_predictions(self._received, start_ns, duration_s, self._manifest), self._manifest
        )
        factor = duration_s / (time.monotonic() - self._first_s)
        summary = summarize(log, truth, self._faults, self._manifest, duration_s, factor)
        title = "replay over ROS"
        run = Run(title, self._manifest, summary, log, truth, tuple(self._faults), duration_s)
        paths = write_comparison(self._out, [run], title)
        return "wrote " + " and ".join(map(str, paths))


def main(args: list[str] | None = None) -> None:
    """Listen until SIGINT or SIGTERM, then write."""
    code = 0
    with ros_process(args) as stopping:
        try:
            node = EvaluatorNode()
        except (BundleError, FaultError, ParameterError) as error:
            print(f"evaluator_node: {error}", file=sys.stderr)
            sys.exit(1)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        try:
            spin(executor, stopping)
            if node.received:
                print(node.write(), flush=True)
            else:
                print(
                    "evaluator_node: no prediction was received; is the fusion node active, and its prediction topic"
                    " that of the parameter prediction_topic?",
                    file=sys.stderr,
                )
                code = 1
        except NodeEnd as end:
            code = end.code
        executor.shutdown()
        node.destroy_node()
    sys.exit(code)


if __name__ == "__main__":
    main()
