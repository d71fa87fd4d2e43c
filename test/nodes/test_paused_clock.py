"""Under `use_sim_time` silence is measured on /clock: a recording that is paused raises no alarm, one that goes on
without its camera does.
"""

from __future__ import annotations

import time

from rclpy.qos import QoSProfile
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from aecf_msgs.msg import FusedPrediction
from aecf_ros.core.types import StreamState
from aecf_ros.nodes.fusion.node import PREDICTION_QOS

from .conftest import UNPACED, Peer
from .test_fusion_node import card

START_NS, TICK_NS = 1_700_000_000_000_000_000, 50_000_000
PAUSED_S = 1.5  # of the wall clock; longer than any silence that is allowed


class Simulation:
    """A camera that sends a frame with every tick of a clock that goes when it is told to."""

    def __init__(self, peer: Peer) -> None:
        self.peer, self.now_ns = peer, START_NS
        self.predictions: list[FusedPrediction] = []
        self.clock = peer.node.create_publisher(Clock, "/clock", QoSProfile(depth=10))
        self.images = peer.node.create_publisher(Image, "camera/image", 5)
        peer.node.create_subscription(
            FusedPrediction, "/fusion_node/prediction", self.predictions.append, PREDICTION_QOS
        )

    def stamp(self):
        return Time(nanoseconds=self.now_ns).to_msg()

    def tell_time(self) -> None:
        self.clock.publish(Clock(clock=self.stamp()))

    def tick(self) -> None:
        self.now_ns += TICK_NS
        self.tell_time()

    def show(self) -> None:
        self.images.publish(
            Image(
                header=Header(stamp=self.stamp()),
                encoding="rgb8",
                height=120,
                width=160,
                step=480,
                data=card().tobytes(),
            )
        )

    def frame(self) -> None:
        """One tick and its frame, answered: a busy machine only makes this slower."""
        self.tick()
        stamp = self.stamp()
        self.show()
        self.peer.wait_for(
            lambda: any(p.header.stamp == stamp for p in self.predictions), "the answer to a frame", self.tell_time
        )

    def states(self) -> set[StreamState]:
        return {StreamState(p.modalities[0].state) for p in self.predictions}


def test_a_paused_clock_raises_no_alarm_and_one_that_goes_on_without_frames_does(start_node, peer: Peer) -> None:
    start_node("use_sim_time:=true", *UNPACED)  # a frame may overtake the tick before it
    world = Simulation(peer)

    def begin() -> None:
        world.tick()
        world.show()

    peer.wait_for(lambda: StreamState.OK in world.states(), "the camera to be OK", begin)
    for _ in range(20):
        world.frame()
    world.predictions.clear()

    resumes_s = time.monotonic() + PAUSED_S
    peer.wait_for(lambda: time.monotonic() >= resumes_s, "the pause to be over", world.tell_time)
    for _ in range(10):
        world.frame()
    assert world.states() == {StreamState.OK}

    peer.wait_for(lambda: StreamState.DROPPED in world.states(), "the camera to be DROPPED", world.tick)
    assert {StreamState.STALE, StreamState.DROPPED} <= world.states()
