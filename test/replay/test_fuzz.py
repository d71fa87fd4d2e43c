"""Two hundred thousand messages that no driver should send: nothing escapes, memory stays where it is."""

import resource
import tracemalloc
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from aecf_ros.modalities.audio.pcm import SAMPLE_BYTES
from aecf_ros.modalities.messages import UnknownFormatError
from aecf_ros.runtime.pipeline import Pipeline
from test.replay.simulated import START_NS, FreeBackend, manifest, raw_record

MESSAGES = 200_000
MANY_BYTES = 64 * 2**20
ENCODINGS = (
    "rgb8",
    "bgr8",
    "rgba8",
    "bgra8",
    "mono8",
    "mono16",
    "16UC1",
    "rgb16",
    "uyvy",
    "yuyv",
    "yuv422",
    "nv12",
    "bayer_rggb8",
    "bayer_gbrg16",
    "32FC1",
    "8UC3",
    "",
    "jpeg",
    "\x00",
    "é" * 300,
)
FORMATS = (*SAMPLE_BYTES, "", "mp3", "S16", "X" * 500)
SIZES = (0, 1, 2, 3, 5, 8, 48, 64, 65, 1000, 2**16, 2**31, 2**32 - 1)
STAMPS = (0, 1, START_NS, START_NS + 10**15, 2**63, START_NS - 10**18)


class Fuzz:
    """Draws messages of every shape that carries a stream; most of their fields are wrong."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        picture = self.rng.integers(0, 255, (12, 16, 3)).astype(np.uint8)
        self._files = [cv2.imencode(ending, picture)[1].ravel() for ending in (".jpg", ".png", ".bmp")]
        self._noise = self.rng.integers(0, 256, 1 << 16, dtype=np.uint8)

    def pick(self, values: tuple) -> Any:
        return values[int(self.rng.integers(len(values)))]

    def data(self, least: int = 0) -> np.ndarray:
        size = least if self.rng.random() < 0.5 else int(self.rng.integers(0, 3000))
        at = int(self.rng.integers(0, len(self._noise) - min(size, 60_000)))
        return self._noise[at : at + size]

    def time(self, now_ns: int) -> Any:
        ns = self.pick(STAMPS) if self.rng.random() < 0.3 else now_ns - int(self.rng.integers(0, 10**8))
        return SimpleNamespace(sec=ns // 10**9, nanosec=ns % 10**9)

    def image(self, now_ns: int) -> Any:
        header = SimpleNamespace(stamp=self.time(now_ns), frame_id=self.pick(("", "camera", "é" * 300)))
        if self.rng.random() < 0.3:
            data = self.pick(tuple(self._files)).copy()
            if self.rng.random() < 0.5:
                data[self.rng.integers(0, len(data), 3)] = self.rng.integers(0, 256, 3)
            if self.rng.random() < 0.3:
                data = data[: int(self.rng.integers(0, len(data)))]
            return SimpleNamespace(
                header=header, format=self.pick(("jpeg", "png", "rgb8; jpeg compressed bgr8", "tiff", "")), data=data
            )
        plausible = self.rng.random() < 0.6
        height, width = (
            (int(self.rng.integers(1, 12)), int(self.rng.integers(1, 12)))
            if plausible
            else (self.pick(SIZES), self.pick(SIZES))
        )
        step = width * self.pick((1, 2, 3, 4, 6)) if plausible else self.pick(SIZES)
        return SimpleNamespace(
            header=header,
            height=height,
            width=width,
            encoding=self.pick(ENCODINGS),
            is_bigendian=self.pick((0, 1, 255)),
            step=step,
            data=self.data(height * step if plausible else 0),
        )

    def sound(self, now_ns: int) -> tuple[Any, Any]:
        header = SimpleNamespace(stamp=self.time(now_ns), frame_id=self.pick(("", "camera", "é" * 300)))
        info = (
            None
            if self.rng.random() < 0.05
            else SimpleNamespace(
                channels=self.pick((0, 1, 2, 8, 64, 255)),
                sample_rate=self.pick((0, 1, 8000, 16000, 44100, 48000, 2**32 - 1)),
                sample_format=self.pick(FORMATS),
                bitrate=0,
                coding_format=self.pick(("wave", "wave", "wave", "mp3", "")),
            )
        )
        shape = self.rng.random()
        data = self.data(self.pick((0, 64, 480, 3200)))
        if shape < 0.4:
            return SimpleNamespace(header=header, audio=SimpleNamespace(data=data)), info
        if shape < 0.6:
            return SimpleNamespace(data=data), info
        if shape < 0.8:
            return SimpleNamespace(
                timestamp=header.stamp,
                data=data,
                format=self.pick(("pcm-s16", "opus", "")),
                sample_rate=self.pick((0, 16000)),
                number_of_channels=self.pick((0, 1, 2)),
            ), None
        floats = self.rng.normal(0, 1, 40).astype(np.float32)
        floats[self.rng.random(40) < 0.02] = self.pick((np.nan, np.inf, -1e38))
        arrays = SimpleNamespace(
            float32_data=floats,
            int32_data=floats.view(np.int32),
            int16_data=floats.view(np.int16),
            int8_data=floats.view(np.int8),
            uint8_data=floats.view(np.uint8),
        )
        return SimpleNamespace(
            header=header,
            audio=SimpleNamespace(
                audio_data=arrays,
                info=SimpleNamespace(
                    format=self.pick((1, 2, 8, 16, 32, 0, -5)),
                    channels=self.pick((1, 2, 0, -1)),
                    rate=self.pick((16000, 0, -8000)),
                    chunk=0,
                ),
            ),
        ), None


def test_whatever_a_message_holds_the_pipeline_goes_on_in_bounded_memory() -> None:
    fuzz, pipeline = Fuzz(0), Pipeline(manifest(), FreeBackend())
    resident_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # of codecs too, which tracemalloc does not see
    now_ns, rejected, used = START_NS, 0, 0
    pipeline.step(now_ns)
    tracemalloc_from = MESSAGES - 20_000  # tracing costs; what grows shows in the last tenth as well as in the whole
    for i in range(MESSAGES):
        if i == tracemalloc_from:
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
        now_ns += int(fuzz.rng.integers(0, 60_000_000)) if i % 500 else 3_000_000_000
        camera = fuzz.rng.random() < 0.5
        message, info = (fuzz.image(now_ns), None) if camera else fuzz.sound(now_ns)
        if fuzz.rng.random() < 0.002:  # a message on the wrong topic
            camera = not camera
        stream = "camera" if camera else "audio"
        try:
            seen = pipeline.observe(stream, raw_record(message, info, now_ns), now_ns)
        except UnknownFormatError as error:
            seen = pipeline.reject(stream, str(error), now_ns)
        rejected += seen.rejected is not None
        if seen.due and i % 4 == 0:
            used += pipeline.step(now_ns).subset != "none"
    grown, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - before < MANY_BYTES and grown - before < 2**20
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident_kib < 4 * MANY_BYTES / 2**10
    )  # a picture may claim up to 64 million pixels
    assert MESSAGES * 0.3 < rejected < MESSAGES * 0.9 and used > 0  # it was told apart, both ways


def test_a_message_that_claims_two_billion_pixels_allocates_nothing() -> None:
    pipeline = Pipeline(manifest(), FreeBackend())
    header = SimpleNamespace(stamp=SimpleNamespace(sec=1_700_000_000, nanosec=0), frame_id="")
    jpeg = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].ravel()
    at = int(np.flatnonzero((jpeg[:-1] == 0xFF) & (jpeg[1:] == 0xC0))[0]) + 5
    jpeg[at : at + 4] = (0xB5, 0x05, 0xB5, 0x05)  # 46341 x 46341
    claims = [
        SimpleNamespace(
            header=header,
            height=2**16,
            width=2**15,
            encoding="rgb8",
            is_bigendian=0,
            step=3 * 2**15,
            data=np.zeros(300, np.uint8),
        ),
        SimpleNamespace(header=header, format="jpeg", data=jpeg),
    ]
    tracemalloc.start()
    for message in claims:
        seen = pipeline.observe("camera", raw_record(message, None, START_NS), START_NS)
        assert seen.rejected is not None and "46341" in seen.rejected or "65536" in seen.rejected
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20
