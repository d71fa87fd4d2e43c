"""The quick form of the node benchmark writes a result of the documented schema, with figures that can be true."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not importable: source ROS 2 or run `make test`")
pytest.importorskip("torch", reason="torch is not installed: the benchmark exports its own encoders")

from benchmarks.node import command, report, streams  # noqa: E402
from benchmarks.node.cases import NOMINAL  # noqa: E402
from benchmarks.node.measure import SYSTEMS  # noqa: E402
from benchmarks.node.naive import ApproximateTimeSynchronizer  # noqa: E402

FIGURES = {"p50_ms", "p99_ms", "cpu", "predictions_per_s", "rss_mb", "stages_ms"}


def test_the_quick_benchmark_measures_every_system_and_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in command.environment(
        0
    ).items():  # the command sets these for its processes; after the test they are as before
        monkeypatch.setenv(name, value)
    assert command.main(["--quick", "--out", str(tmp_path), "--cache", str(tmp_path / "cache")]) == 0
    results = json.loads((tmp_path / "node.json").read_text())
    assert set(results["cases"]) == {NOMINAL, "audio stopped"}
    for case in results["cases"].values():
        assert tuple(case) == SYSTEMS
        for figures in case.values():
            assert set(figures) >= FIGURES
            assert 20 < figures["rss_mb"] < 2000 and figures["cpu"] >= 0
            if figures["p50_ms"] is not None:
                assert 0 < figures["p50_ms"] <= figures["p99_ms"] <= figures["max_ms"]
        assert case["floor"]["answered"] > 0.5 and case["node"]["answered"] > 0.5
        stages = case["node"]["stages_ms"]
        assert {
            "transport camera",
            "decode camera",
            "preprocess camera",
            "encoder camera",
            "head",
            "publish",
            "total",
        } <= set(stages)
        assert stages["encoder camera"] + stages["head"] < stages["total"]
    assert "encoder audio" in results["cases"][NOMINAL]["node"]["stages_ms"]
    for naive in ("naive_default", "naive_1thread"):  # needs both, and has half of them
        assert results["cases"][NOMINAL][naive]["predictions_per_s"] > 0
        assert results["cases"]["audio stopped"][naive]["predictions_per_s"] == 0
    assert set(results["ratio_p50_to_floor"]) == set(results["head_share"]) == set(results["cases"])
    assert {t["target"] for t in results["targets"]} >= {
        "p50 <= 1.10 x the floor",
        "audio stopped: every frame answered",
    }
    assert results["cases"][NOMINAL]["node"]["p50_ms"] == pytest.approx(
        results["ratio_p50_to_floor"][NOMINAL] * results["cases"][NOMINAL]["floor"]["p50_ms"]
    )
    page = tmp_path / "benchmarks.md"
    page.write_text(f"# Benchmarks\n\nbefore\n\n{report.BEGIN}\nold\n{report.END}\n\nafter\n")
    report.write_tables(results, page)
    text = page.read_text()
    assert "before" in text and "after" in text and "old" not in text and f"### {NOMINAL}" in text


def test_cost_that_grows_linearly_is_told_from_cost_that_does_not(tmp_path: Path) -> None:
    points = [{"streams": n, "cpu": 0.05 + 0.02 * n, "total_ms": float(n * n)} for n in streams.COUNTS]
    linear, square = streams.fitted(points, "cpu"), streams.fitted(points, "total_ms")
    assert (
        linear["per_stream"] == pytest.approx(0.02)
        and linear["at_zero"] == pytest.approx(0.05)
        and linear["r2"] == pytest.approx(1)
    )
    assert square["r2"] < 0.96
    streams.draw(
        {"rate_hz": 10, "points": points, "cpu": linear, "total_ms": square}, tmp_path / "images" / "streams.png"
    )
    assert (tmp_path / "images" / "streams.png").stat().st_size > 5000


class _Stamped:
    """A message with nothing but a stamp."""

    def __init__(self, at_s: float) -> None:
        self.header = self
        self.stamp = self
        self.sec, self.nanosec = divmod(round(at_s * 1e9), 10**9)
        self.at_s = at_s


def pairs_of(images: list[float], sounds: list[float], late_s: float = 0.0) -> list[tuple[float, float]]:
    """What the stand-in for message_filters passes on; a sound arrives ``late_s`` after its stamp."""
    found: list[tuple[float, float]] = []
    synchronizer = ApproximateTimeSynchronizer(10, 0.1, lambda image, sound: found.append((image.at_s, sound.at_s)))
    for _, at_s, index in sorted([(t, t, 0) for t in images] + [(t + late_s, t, 1) for t in sounds]):
        synchronizer.add(_Stamped(at_s), index)
    return found


def test_the_stand_in_pairs_each_sound_with_the_nearest_frame_and_uses_nothing_twice() -> None:
    images, sounds = np.arange(1, 3, 1 / 30), np.arange(1, 3, 0.1)
    pairs = pairs_of(list(images), list(sounds))
    assert len(pairs) in (len(sounds) - 1, len(sounds))
    assert max(abs(a - b) for a, b in pairs) <= 0.1
    assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)


def test_the_stand_in_passes_nothing_on_when_sound_is_missing_or_a_second_late() -> None:
    images = list(np.arange(1, 3, 1 / 30))
    assert pairs_of(images, []) == []
    assert pairs_of(images, list(np.arange(1, 1.95, 0.1)), late_s=1.0) == []
