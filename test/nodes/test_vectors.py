"""The node with a stream of vectors, over DDS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from aecf_msgs.msg import EmbeddingStamped, FusedPrediction
from aecf_ros.core.types import StreamState
from aecf_ros.nodes.fusion.node import PREDICTION_QOS
from test.conftest import LABELS, SIDE, write_bundle

from .conftest import FusionProcess, Peer

UNPACED = tuple(
    f"{stream}.{check}:=0.0" for stream in ("camera", "text") for check in ("min_rate_ratio", "max_lost", "max_jitter")
)
NOISE = np.random.default_rng(0)


class Robot:
    """A camera, something that publishes vectors, and what the node says."""

    def __init__(self, peer: Peer) -> None:
        self.peer, node = peer, peer.node
        self.newest: FusedPrediction | None = None
        self.images = node.create_publisher(Image, "camera/image", 5)
        self.texts = node.create_publisher(EmbeddingStamped, "text", 5)
        node.create_subscription(
            FusedPrediction, "/fusion_node/prediction", lambda message: setattr(self, "newest", message), PREDICTION_QOS
        )

    def header(self) -> Header:
        return Header(stamp=self.peer.node.get_clock().now().to_msg())

    def show(self, label: int) -> None:
        image = NOISE.integers(0, 8, (SIDE, SIDE, 3), np.uint8)
        image[..., label] += 200
        self.images.publish(
            Image(header=self.header(), encoding="rgb8", height=SIDE, width=SIDE, step=3 * SIDE, data=image.tobytes())
        )

    def say(self, *numbers: float) -> None:
        self.texts.publish(EmbeddingStamped(header=self.header(), values=list(numbers)))

    def mean(self, label: int) -> None:
        """A vector of a label, never twice the same."""
        self.say(*(np.eye(3)[label] + NOISE.normal(0, 0.01, 3)))

    def state(self, name: str) -> StreamState | None:
        return (
            None
            if self.newest is None
            else next(StreamState(m.state) for m in self.newest.modalities if m.name == name)
        )

    def says(self, label: int) -> bool:
        return self.newest is not None and self.newest.label == LABELS[label] and not self.newest.abstain


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "told", {"camera": "image", "text": "vector"})


def test_a_topic_of_vectors_is_fused_with_a_camera_and_watched(
    start_node: Callable[..., FusionProcess], peer: Peer, bundle: Path
) -> None:
    robot = Robot(peer)
    node = start_node(
        f"model:={bundle}",
        *UNPACED,
        "text.stale_after_s:=5.0",
        "text.dropped_after_s:=10.0",
        "text.frozen_after_s:=0.4",
    )
    wait_for = peer.wait_for
    wait_for(lambda: robot.says(1), "an answer from vectors alone", lambda: robot.mean(1))
    assert robot.state("camera") is StreamState.WAITING

    def both() -> None:
        robot.show(2)
        robot.mean(2)

    wait_for(lambda: robot.says(2) and all(m.used for m in robot.newest.modalities), "an answer from both", both)
    wait_for(
        lambda: robot.state("text") is StreamState.REJECTED,
        "NaN to be rejected",
        lambda: (robot.show(2), robot.say(float("nan"), 0.0, 0.0)),
    )
    wait_for(
        lambda: [m.used for m in robot.newest.modalities] == [True, False],
        "an answer without it",
        lambda: robot.show(2),
    )
    wait_for(lambda: robot.state("text") is StreamState.OK, "the stream to recover", both)
    wait_for(
        lambda: robot.state("text") is StreamState.REJECTED,
        "vectors that are too long to be rejected",
        lambda: (robot.show(2), robot.say(0, 0, 1, 0)),
    )
    wait_for(lambda: robot.state("text") is StreamState.OK, "the stream to recover", both)
    wait_for(
        lambda: robot.state("text") is StreamState.FROZEN,
        "one vector again and again to be noticed",
        lambda: (robot.show(2), robot.say(0, 0, 1)),
    )
    wait_for(lambda: robot.state("text") is StreamState.OK, "the stream to recover", both)
    assert node.stop() == 0
    assert "a vector of 4 numbers where 3 are due" in node.output() and "1 of 3 numbers are NaN" in node.output()
