"""Sound in the other package named audio_common_msgs, and in foxglove_msgs, over DDS.

An environment has one of the two packages of that name. Set-up builds the other into a prefix of its own, which
these processes put before it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray

from aecf_msgs.msg import FusedPrediction
from aecf_ros.core.types import StreamState

from .alsa import NAME, RATE_HZ, AlsaMicrophone
from .conftest import MODEL, RECORDING, ROOT, Peer
from .processes import NodeProcess

PREFIX = Path(sys.prefix) / "other_dialect"
pytestmark = pytest.mark.skipif(
    not PREFIX.is_dir(),
    reason="the other audio_common_msgs is not built; `make test` builds it where ROS 2 is not installed",
)

SEND = """
import array, random, sys, time, rclpy
from std_msgs.msg import Header
rclpy.init()
node = rclpy.create_node("sender")
if sys.argv[1] == "dialect":
    from audio_common_msgs.msg import Audio, AudioData, AudioInfo, AudioStamped as Type
    def message(stamp, samples):
        data = AudioData(float32_data=array.array("f", [s / 32768 for s in samples]))
        info = AudioInfo(format=1, channels=1, rate=16000, chunk=1600)
        return Type(header=Header(stamp=stamp), audio=Audio(audio_data=data, info=info))
else:
    from foxglove_msgs.msg import RawAudio as Type
    def message(stamp, samples):
        data = array.array("B", array.array("h", samples).tobytes())
        return Type(timestamp=stamp, data=data, format="pcm-s16", sample_rate=16000, number_of_channels=1)
publisher = node.create_publisher(Type, "audio", 5)
while True:
    publisher.publish(message(node.get_clock().now().to_msg(), [random.randint(-2000, 2000) for _ in range(1600)]))
    time.sleep(0.1)
"""


@pytest.fixture
def environment(domain: int) -> dict[str, str]:
    packages = PREFIX / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    return {
        **os.environ,
        "PYTHONPATH": f"{packages}:{ROOT}",
        "LD_LIBRARY_PATH": f"{PREFIX / 'lib'}:{os.environ.get('LD_LIBRARY_PATH', '')}",
    }


class Watcher:
    """State of the sound as the newest prediction has it, and what diagnostics say."""

    def __init__(self, peer: Peer) -> None:
        self.state: StreamState | None = None
        self.diagnoses: list[str] = []
        peer.node.create_subscription(FusedPrediction, "/fusion_node/prediction", self._on_prediction, 10)
        peer.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def _on_prediction(self, message: FusedPrediction) -> None:
        self.state = next(StreamState(m.state) for m in message.modalities if m.name == "audio")

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.diagnoses += [f"{s.name}: {s.message}" for s in message.status]


@pytest.fixture
def fusion(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., NodeProcess]]:
    started = []

    def start(*parameters: str) -> NodeProcess:
        started.append(
            NodeProcess("aecf_ros.nodes.fusion.node", tmp_path / "fusion.log", *parameters, environment=environment)
        )
        return started[-1]

    yield start
    for one in started:
        one.end()


@pytest.mark.parametrize("kind", ["dialect", "foxglove"])
def test_sound_in_another_message_is_found_and_heard(
    kind: str, fusion, peer: Peer, environment: dict[str, str]
) -> None:
    watcher = Watcher(peer)
    fusion()
    sender = subprocess.Popen([sys.executable, "-c", SEND, kind], env=environment)
    expected = {"dialect": "audio_common_msgs/msg/AudioStamped", "foxglove": "foxglove_msgs/msg/RawAudio"}[kind]
    try:
        peer.wait_for(lambda: watcher.state is StreamState.OK, f"sound to be OK; it is {watcher.state}")
        assert {info.topic_type for info in peer.node.get_subscriptions_info_by_topic("/audio")} == {expected}
    finally:
        sender.terminate()
        sender.wait()
    peer.wait_for(lambda: watcher.state is StreamState.DROPPED, "the sound to be DROPPED when its sender is gone")


def test_the_microphone_node_speaks_the_dialect_that_is_installed(
    fusion, peer: Peer, environment: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip(
        "sounddevice",
        reason="PortAudio is not installed: apt install libportaudio2, pip install sounddevice",
        exc_type=OSError,
    )
    watcher = Watcher(peer)
    microphone = AlsaMicrophone(tmp_path, np.random.default_rng(5).integers(-8000, 8000, 20 * RATE_HZ, dtype=np.int16))
    driver = NodeProcess(
        "aecf_ros.nodes.drivers.microphone_node",
        tmp_path / "microphone.log",
        f"device:={NAME}",
        environment={**environment, **{k: v for k, v in microphone.environment.items() if k.startswith("ALSA")}},
    )
    try:
        fusion("audio.message:=dialect")
        peer.wait_for(
            lambda: watcher.state is StreamState.OK, f"sound to be OK; it is {watcher.state}; {driver.output()}"
        )
        assert driver.stop() == 0, driver.output()
    finally:
        driver.end()
        microphone.unplug()


@pytest.mark.parametrize(("kind", "name"), [("stamped", "AudioDataStamped"), ("plain", "AudioData")])
def test_a_message_type_that_is_not_installed_is_said_in_one_line(kind: str, name: str, fusion) -> None:
    """Of ``AudioData`` there is another, which does not say its rate."""
    node = fusion(f"audio.message:={kind}")
    assert node.process.wait(60) == 1
    assert f"parameter audio.message is '{kind}', but audio_common_msgs/msg/{name} is not installed" in node.output()


def test_a_recording_in_a_message_that_is_not_installed_is_not_played(
    environment: dict[str, str], tmp_path: Path
) -> None:
    played = subprocess.run(
        [
            sys.executable,
            "-m",
            "aecf_ros.nodes.tools.player_node",
            "--bag",
            str(RECORDING),
            "--model",
            str(MODEL),
            "--log",
            str(tmp_path / "played.json"),
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert played.returncode == 1
    assert "the recording holds audio_common_msgs/msg/AudioDataStamped, which is not installed here" in played.stderr, (
        played.stderr
    )
