"""The microphone node over real PortAudio and ALSA: an ALSA device of type `file` that reads a FIFO, which a thread
fills in real time.

What is not real: the kernel driver. The device vanishes by leaving ALSA's configuration and by the end of its FIFO,
on which ALSA delivers
zeros without end; a USB microphone ends the stream with an error instead, which `test_pulseaudio_server_dies` has.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from .alsa import CHUNK, CHUNK_S, NAME, RATE_HZ, AlsaMicrophone
from .conftest import ROOT, WAIT_S, Peer
from .processes import NodeProcess

pytest.importorskip(
    "sounddevice",
    reason="PortAudio is not installed: apt install libportaudio2, pip install sounddevice",
    exc_type=OSError,
)

from audio_common_msgs.msg import AudioDataStamped, AudioInfo  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402

from aecf_ros.modalities.messages import stamp_to_ns  # noqa: E402
from aecf_ros.nodes.drivers.devices import Backoff, DeviceError, InputDevice, SampleClock, choose_device  # noqa: E402
from aecf_ros.nodes.drivers.microphone_node import MICROPHONE  # noqa: E402
from aecf_ros.nodes.fusion.inputs import LATCHED_QOS  # noqa: E402
from aecf_ros.nodes.ros.shared_memory import orphans  # noqa: E402

MODULE = "aecf_ros.nodes.drivers.microphone_node"


class Listener:
    """Everything the node says."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.chunks: list[tuple[AudioDataStamped, int]] = []
        self.infos: list[AudioInfo] = []
        self.diagnostics: list[dict[str, str]] = []
        self._clock = peer.node.get_clock()
        peer.node.create_subscription(AudioDataStamped, "audio", self._on_audio, 100)
        peer.node.create_subscription(AudioInfo, "audio_info", self.infos.append, LATCHED_QOS)
        peer.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 20)

    def _on_audio(self, message: AudioDataStamped) -> None:
        self.chunks.append((message, self._clock.now().nanoseconds))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.diagnostics.append(
                {
                    "message": status.message,
                    "level": str(int.from_bytes(status.level, "big")),
                    **{v.key: v.value for v in status.values},
                }
            )

    def wait_for_chunks(self, more: int) -> list[tuple[AudioDataStamped, int]]:
        start = len(self.chunks)
        self.peer.wait_for(lambda: len(self.chunks) >= start + more, f"{more} more chunks")
        return self.chunks[start:]


def samples(chunks: list[tuple[AudioDataStamped, int]]) -> np.ndarray:
    return np.concatenate([np.frombuffer(bytes(m.audio.data), "<i2") for m, _ in chunks])


@pytest.fixture
def recording() -> np.ndarray:
    """20 s of noise: any 16 samples say where they are."""
    return np.random.default_rng(5).integers(-8000, 8000, 20 * RATE_HZ, dtype=np.int16)


@pytest.fixture
def microphone(tmp_path: Path, domain: int, recording: np.ndarray) -> Iterator[AlsaMicrophone]:
    one = AlsaMicrophone(tmp_path, recording)
    yield one
    one.unplug()


@pytest.fixture
def start(microphone: AlsaMicrophone, tmp_path: Path) -> Iterator:
    started: list[NodeProcess] = []

    def start_one(*parameters: str) -> NodeProcess:
        started.append(
            NodeProcess(
                MODULE, tmp_path / f"microphone{len(started)}.log", *parameters, environment=microphone.environment
            )
        )
        return started[-1]

    yield start_one
    for one in started:
        one.end()


@pytest.fixture
def listener(peer: Peer) -> Listener:
    return Listener(peer)


def test_what_is_published_are_the_samples_of_the_device_and_stamps_count_them(
    start, listener: Listener, recording: np.ndarray
) -> None:
    node = start(f"device:={NAME}", "frame_id:=head_mic")
    listener.wait_for_chunks(3)  # the first ones show what the pipe held before anybody listened
    chunks = listener.wait_for_chunks(15)
    heard = samples(chunks)
    assert len(heard) == 15 * CHUNK, node.output()
    starts = np.flatnonzero(recording[:-1] == heard[0])
    start_at = next(int(s) for s in starts if recording[s + 1] == heard[1] and recording[s + 2] == heard[2])
    assert np.array_equal(heard, np.take(recording, range(start_at, start_at + len(heard)), mode="wrap"))

    stamps = np.array([stamp_to_ns(m.header.stamp) for m, _ in chunks])
    advance_s = np.diff(stamps) / 1e9
    assert np.median(np.abs(advance_s - CHUNK_S)) < 0.02, (
        advance_s
    )  # a busy machine may feed the pipe late now and then
    age_s = np.array([received - stamp for (_, received), stamp in zip(chunks, stamps, strict=True)]) / 1e9
    assert age_s.min() > 0.0  # a chunk is never stamped in the future
    assert np.median(age_s) < WAIT_S, age_s  # and of this clock
    assert {m.header.frame_id for m, _ in chunks} == {"head_mic"}


def test_format_is_latched_and_diagnostics_say_device_rate_and_level(
    start, listener: Listener, recording: np.ndarray
) -> None:
    start(f"device:={NAME}", "diagnostics_period_s:=0.5")
    listener.wait_for_chunks(12)
    info = listener.infos[-1]
    assert (info.channels, info.sample_rate, info.sample_format, info.coding_format, info.bitrate) == (
        1,
        RATE_HZ,
        "S16LE",
        "wave",
        256000,
    )
    listener.peer.wait_for(lambda: len(listener.diagnostics) > 3, "diagnostics")
    told = listener.diagnostics[-1]
    expected_dbfs = 20 * np.log10(np.sqrt(np.mean((recording / 32768.0) ** 2)))
    assert told["level"] == "0" and told["device"] == NAME and told["overflows"] == "0"
    assert float(told["level (dBFS RMS)"]) == pytest.approx(expected_dbfs, abs=1.0)


def test_unplugged_and_replugged_microphone_is_recovered(start, listener: Listener, microphone: AlsaMicrophone) -> None:
    node = start(f"device:={NAME}")
    listener.wait_for_chunks(5)
    microphone.unplug()
    listener.peer.wait_for(
        lambda: listener.diagnostics and listener.diagnostics[-1]["level"] == "2", "diagnostics to be an ERROR"
    )
    listener.peer.wait_for(lambda: "no microphone named" in listener.diagnostics[-1]["message"], "the reason")
    chunks, told = len(listener.chunks), len(listener.diagnostics)
    listener.peer.wait_for(lambda: len(listener.diagnostics) > told + 1, "two more diagnoses")
    assert len(listener.chunks) == chunks  # the endless zeros were cut off
    microphone.plug()
    plugged_s = time.monotonic()
    listener.wait_for_chunks(1)
    print(f"recovered after {time.monotonic() - plugged_s:.2f} s")
    chunks = listener.wait_for_chunks(5)
    assert np.abs(samples(chunks[-3:])).max() > 1000
    listener.peer.wait_for(lambda: listener.diagnostics[-1]["level"] == "0", "diagnostics to be well again")
    assert int(listener.diagnostics[-1]["opened (times)"]) >= 2
    output = node.output()
    assert output.count("trying to open it again") == 1 and output.count("is back after") == 1, output
    assert node.stop() == 0


def test_lost_input_is_counted_and_warned_of_once(
    microphone: AlsaMicrophone, listener: Listener, tmp_path: Path
) -> None:
    node = NodeProcess(
        "test.nodes.mock_overflow",
        tmp_path / "log",
        f"device:={NAME}",
        "diagnostics_period_s:=0.3",
        environment=microphone.environment,
    )
    try:
        listener.peer.wait_for(lambda: listener.diagnostics and listener.chunks, "sound")
        node.process.send_signal(signal.SIGUSR1)
        listener.peer.wait_for(
            lambda: any(d["level"] == "0" and d["overflows"] == "2" for d in listener.diagnostics),
            "two overflows, then well again",
        )
        warned = [d for d in listener.diagnostics if d["level"] == "1"]
        assert warned and all("sound was lost because this machine is too busy" in d["message"] for d in warned)
        assert sum(int(d["message"].split()[0]) for d in warned) == 2
        assert node.stop() == 0, node.output()
    finally:
        node.end()


def test_device_that_never_returns_from_closing_ends_the_node_with_1(
    start, listener: Listener, microphone: AlsaMicrophone
) -> None:
    node = start(f"device:={NAME}", "silent_after_s:=0.5")
    listener.wait_for_chunks(3)
    microphone.stalled = True  # ALSA's file device now blocks in read() for ever
    assert node.process.wait(WAIT_S) == 1
    assert "has sent nothing for 0.5 s" in node.output() and "does not release it" in node.output()
    assert "Traceback" not in node.output()


def test_device_that_never_opens_ends_the_node_with_1(start, microphone: AlsaMicrophone) -> None:
    microphone.withdraw_writer()  # opening the FIFO now blocks for ever
    node = start(f"device:={NAME}", "open_within_s:=2.0")
    assert node.process.wait(WAIT_S) == 1
    assert "has not opened within 2 s" in node.output() and "Traceback" not in node.output()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_node_with_0_and_nothing_in_shared_memory(how: signal.Signals, start, domain: int) -> None:
    peer = Peer(domain)
    listener = Listener(peer)
    node = start(f"device:={NAME}")
    listener.wait_for_chunks(2)
    mapped = node.segments()
    peer.close()
    assert node.stop(how) == 0, node.output()
    assert "Traceback" not in node.output()
    assert mapped and not orphans(mapped)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        (("device:=robot_mike",), "no microphone named 'robot_mike'; did you mean 'robot_mic'? input devices: "),
        ((f"device:={NAME}", "channels:=0"), "channels is 0; give a value of type int from 1 to 64"),
        ((f"device:={NAME}", "rate_hz:=fast"), "rate_hz is 'fast'; give a value of type int"),
    ],
)
def test_a_node_that_cannot_start_says_why_in_one_line(parameters: tuple[str, ...], says: str, start) -> None:
    node = start(*parameters)
    assert node.process.wait(WAIT_S) == 1
    assert len([line for line in node.output().splitlines() if says in line]) == 1, node.output()
    assert "Traceback" not in node.output()


@pytest.mark.skipif(
    not (shutil.which("pulseaudio") and shutil.which("pactl")), reason="pulseaudio and pactl are not installed"
)
def test_pulseaudio_server_dies_and_comes_back(tmp_path: Path, listener: Listener) -> None:
    runtime = tmp_path / "pulse"
    runtime.mkdir(mode=0o700)
    rc = tmp_path / "asoundrc"
    rc.write_text(
        f'pcm.default {{ type null }}\npcm.{NAME} {{ type pulse\n server "unix:{runtime}/native"\n '
        'device "hall.monitor"\n hint.show on }\n'
    )
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(runtime),
        "ALSA_CONFIG_PATH": str(rc),
        "PULSE_SERVER": f"unix:{runtime}/native",
    }

    def server() -> subprocess.Popen:
        return subprocess.Popen(
            [
                "pulseaudio",
                "-n",
                "--daemonize=no",
                "--exit-idle-time=-1",
                "--log-target=null",
                "-L",
                "module-null-sink sink_name=hall rate=16000 channels=1",
                "-L",
                f"module-native-protocol-unix auth-anonymous=1 socket={runtime}/native",
            ],
            env=environment,
        )

    pulse = server()
    try:
        listener.peer.wait_for(lambda: (runtime / "native").exists(), "PulseAudio")
        node = NodeProcess(MODULE, tmp_path / "node.log", f"device:={NAME}", environment=environment)
        try:
            chunks = listener.wait_for_chunks(10)
            advance_s = np.diff([stamp_to_ns(m.header.stamp) for m, _ in chunks[4:]]) / 1e9
            assert np.median(np.abs(advance_s - CHUNK_S)) < 0.05, advance_s
            pulse.kill()
            pulse.wait()
            (runtime / "native").unlink()
            listener.peer.wait_for(
                lambda: listener.diagnostics and listener.diagnostics[-1]["level"] == "2", "diagnostics to be an ERROR"
            )
            pulse = server()
            listener.wait_for_chunks(5)
            assert node.output().count("is back after") == 1, node.output()
            assert node.stop() == 0, node.output()
        finally:
            node.end()
    finally:
        pulse.kill()
        pulse.wait()


# --- the parts without hardware ---

DEVICES = [
    InputDevice(0, "HDA Intel PCH: ALC257 Analog (hw:0,0)", 2, 44100.0),
    InputDevice(3, "USB Audio: Camera (hw:1,0)", 1, 16000.0),
    InputDevice(4, "USB Audio: Array (hw:2,0)", 6, 16000.0),
]


@pytest.mark.parametrize(
    ("wanted", "index"), [("3", 3), ("alc257", 0), ("Array", 4), ("USB Audio: Camera (hw:1,0)", 3)]
)
def test_a_device_is_found_by_index_name_or_part_of_it(wanted: str, index: int) -> None:
    assert choose_device(DEVICES, wanted).index == index


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("usb", "give more of the name"),
        ("7", "no microphone named '7'; input devices: 0 'HDA"),
        ("USB Audio: Camara (hw:1,0)", "did you mean 'USB Audio: Camera (hw:1,0)'?"),
    ],
)
def test_a_name_that_fits_none_or_several_is_answered_with_the_list(wanted: str, says: str) -> None:
    with pytest.raises(DeviceError, match="input devices: 0") as error:
        choose_device(DEVICES, wanted)
    assert says in str(error.value)


def test_no_device_at_all_is_said() -> None:
    with pytest.raises(DeviceError, match="lists no input device"):
        choose_device([], "")


def test_stamps_smooth_jitter_follow_drift_and_never_hide_a_gap() -> None:
    rng = np.random.default_rng(0)
    clock, true_ns, worst_ns, last_ns = SampleClock(RATE_HZ), 0, 0, None
    for block in range(3000):  # five minutes of a crystal 100 ppm slow, measured up to 8 ms late
        true_ns = round(block * CHUNK_S * 1e9 * (1 + 100e-6))
        stamp_ns = clock.stamp_ns(block * CHUNK, true_ns + int(rng.integers(0, 8_000_000)))
        worst_ns = max(worst_ns, abs(stamp_ns - true_ns))
        if last_ns is not None and block > 50:
            assert abs(stamp_ns - last_ns - CHUNK_S * 1e9) < 300_000
        last_ns = stamp_ns
    assert worst_ns < 9_000_000
    gap_ns = true_ns + 3_000_000_000
    assert clock.stamp_ns(3000 * CHUNK, gap_ns) == gap_ns


def test_waits_double_up_to_the_longest_and_start_again_after_success() -> None:
    backoff = Backoff(0.25, 1.0)
    assert [backoff.next_s() for _ in range(4)] == [0.25, 0.5, 1.0, 1.0]
    backoff.succeeded()
    assert backoff.next_s() == 0.25


def test_the_shipped_parameter_file_holds_the_declared_defaults() -> None:
    shipped = yaml.safe_load((ROOT / "config" / "microphone_node.yaml").read_text())["/**"]["ros__parameters"]
    assert shipped == {p.name: p.default for p in MICROPHONE}
