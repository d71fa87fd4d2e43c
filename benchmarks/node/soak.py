"""Whether memory stays flat: one node, the nominal traffic, minute after minute."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.node.cases import CASES
from benchmarks.node.measure import NODE, running, start
from benchmarks.node.processes import Sensors

WARM_UP_SHARE = 0.2
SAMPLE_S = 2.0


def soak(model: Path, minutes: float, logs: Path, advance: Callable[[float], None]) -> dict:
    """Resident memory of the node every two seconds; the slope is a least-squares line behind the first fifth."""
    logs.mkdir(parents=True, exist_ok=True)
    (system,) = start(CASES[0], model, [NODE], logs)
    sensors = Sensors([NODE], jpeg=False)
    at_s, rss_mb = [], []
    with running([system], sensors, CASES[0].traffic) as sink:
        sink.received[NODE].clear()
        sensors.play(NODE, 60 * minutes + 2, CASES[0].traffic.as_dict())
        began = time.monotonic()
        while (now_s := time.monotonic() - began) < 60 * minutes:
            sink.spin_for(SAMPLE_S)
            at_s.append(now_s)
            rss_mb.append(system.rss_mb())
            advance(SAMPLE_S)
        answers = len(sink.received[NODE])
        sent = len(sensors.answer()["camera"])
    kept = np.array(at_s) >= WARM_UP_SHARE * 60 * minutes
    slope = float(np.polyfit(np.array(at_s)[kept] / 3600, np.array(rss_mb)[kept], 1)[0])
    return {
        "minutes": minutes,
        "slope_mb_per_h": slope,
        "first_mb": float(np.array(rss_mb)[kept][0]),
        "last_mb": rss_mb[-1],
        "predictions": answers,
        "frames": sent,
    }
