"""A microphone for tests: an ALSA device of type `file` that reads a FIFO, which a thread fills in real time."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path

import numpy as np

RATE_HZ, CHUNK = 16000, 1600
CHUNK_S = CHUNK / RATE_HZ
NAME = "robot_mic"


class AlsaMicrophone:
    """An ALSA capture device that plays ``recording`` in real time, and can be pulled out and put back."""

    def __init__(self, folder: Path, recording: np.ndarray) -> None:
        self.config, self._fifo, self.recording = folder / "asoundrc", folder / "fifo", recording
        os.mkfifo(self._fifo)
        self.environment = {**os.environ, "ALSA_CONFIG_PATH": str(self.config)}
        self._running: threading.Event | None = None
        self.stalled = False
        self.plug()

    def plug(self) -> None:
        self._running = threading.Event()
        fifo = os.open(self._fifo, os.O_RDWR | os.O_NONBLOCK)
        fcntl.fcntl(fifo, fcntl.F_SETPIPE_SZ, 4096)  # as a sound card holds little
        self._thread = threading.Thread(target=self._feed, args=(fifo, self._running))
        self._thread.start()
        self._list(
            f'pcm.{NAME} {{ type file\n slave.pcm {{ type null }}\n file "/dev/null"\n '
            f'infile "{self._fifo}"\n format "raw"\n hint.show on }}\n'
        )

    def unplug(self) -> None:
        self._list("")
        self.withdraw_writer()

    def withdraw_writer(self) -> None:
        self._running.set()
        self._thread.join()

    def _list(self, pcm: str) -> None:
        new = self.config.with_suffix(".new")
        new.write_text("pcm.default { type null }\n" + pcm)
        new.replace(self.config)

    def _feed(self, fifo: int, ended: threading.Event) -> None:
        position, next_s = 0, time.monotonic()
        while not ended.wait(max(0.0, next_s - time.monotonic())):
            next_s += CHUNK_S
            if self.stalled:
                continue
            try:
                os.write(fifo, self.recording[position : position + CHUNK].tobytes())
            except BlockingIOError:  # nobody reads
                continue
            position = (position + CHUNK) % len(self.recording)
        os.close(fifo)
