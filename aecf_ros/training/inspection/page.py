"""An inspection as one self-contained HTML page: tables, the balance of classes, thumbnails and waveforms."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from aecf_ros.modalities.audio.spec import AudioSpec
from aecf_ros.modalities.base import ModalitySpec
from aecf_ros.modalities.vector.spec import VectorSpec
from aecf_ros.training.inspection.summary import Example, Inspection
from aecf_ros.training.inspection.tables import headline, tables_of
from aecf_ros.training.templates import render

_THUMBNAIL = 192
"""Pixels of the longer side: shown at half that, for screens of twice the density."""
_COLUMNS = 180
"""Width of a waveform in pixels."""
_COLORS = ("#3b6ea8", "#d98b36", "#5b9a68", "#a35c8f")
"""Of the parts, in their order."""


@dataclass(frozen=True)
class Drawing:
    """An example as the page shows it: a JPEG, the envelope of a waveform, or bars."""

    unit: str
    note: str = ""
    jpeg: str = ""
    """Base64."""
    envelope: str = ""
    """Points of an SVG polygon."""
    bars: tuple[dict[str, float], ...] = ()
    """``x``, ``y``, ``width``, ``height`` of each."""


def write_page(inspection: Inspection, out: Path) -> Path:
    """Write ``index.html`` into the folder ``out``, which is made; returns its path."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "index.html"
    text = render(
        "aecf_ros.training.inspection",
        "index.html.jinja",
        title=f"aecf dataset inspect: {inspection.corpus.name}",
        headline=headline(inspection),
        inspection=inspection,
        parts=list(inspection.corpus.parts),
        colors=_COLORS,
        columns=_COLUMNS,
        bars=_balance(inspection),
        tables=tables_of(inspection),
        text_columns=("part", "classes"),
        examples=_examples(inspection),
    )
    path.write_text(text, encoding="utf-8")
    return path


def _balance(inspection: Inspection) -> list[dict[str, object]]:
    """A bar for each class, divided by parts."""
    parts = list(inspection.corpus.parts)
    counts = np.array([inspection.counts(part) for part in parts])
    scale = 620 / max(int(counts.sum(0).max()), 1)
    bars: list[dict[str, object]] = []
    for c, name in enumerate(inspection.class_names):
        if not counts[:, c].any() and c == len(inspection.corpus.labels):
            continue
        ends = 170.0 + np.cumsum(counts[:, c]) * scale
        segments = [
            {"part": part, "count": count, "x": end - count * scale, "width": count * scale}
            for part, count, end in zip(parts, counts[:, c], ends, strict=True)
        ]
        bars.append({"name": name, "segments": segments, "end": ends[-1] + 6, "total": counts[:, c].sum()})
    return bars


def _examples(inspection: Inspection) -> list[tuple[str, list[tuple[str, list[Drawing]]]]]:
    """Class -> modality -> drawings, of the classes that have examples."""
    corpus, examples = inspection.corpus, inspection.examples
    classes = [*enumerate(corpus.labels), (-1, inspection.class_names[-1])]
    return [
        (
            name,
            [
                (spec.name, [_draw(e, spec) for e in examples[c] if e.modality == spec.name])
                for spec in corpus.modalities
            ],
        )
        for c, name in classes
        if examples.get(c)
    ]


def _draw(example: Example, spec: ModalitySpec) -> Drawing:
    if isinstance(spec, VectorSpec):
        return _vector(example)
    return _waveform(example, spec.rate_hz) if isinstance(spec, AudioSpec) else _thumbnail(example)


def _thumbnail(example: Example) -> Drawing:
    image = example.sample
    scale = _THUMBNAIL / max(image.shape[:2])
    size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
    shown = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    jpeg = cv2.imencode(".jpg", shown[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
    return Drawing(example.unit, jpeg=b64encode(jpeg).decode())


def _waveform(example: Example, rate_hz: int) -> Drawing:
    """The envelope of a sound over its time, full scale from top to bottom."""
    samples = example.sample.astype(np.float32) / 32768.0
    pieces = np.array_split(samples, min(_COLUMNS, len(samples)))
    high, low = np.array([p.max() for p in pieces]), np.array([p.min() for p in pieces])
    x = np.linspace(0, _COLUMNS, len(pieces))
    outline = [*zip(x, high, strict=True), *zip(x[::-1], low[::-1], strict=True)]
    rms = float(np.sqrt(np.mean(np.square(samples))))
    level = f"{20 * np.log10(rms):.0f} dBFS" if rms > 0 else "silent"
    return Drawing(
        example.unit,
        f": {len(samples) / rate_hz:.2f} s, {level}",
        envelope=" ".join(f"{a:.0f},{48 - 46 * b:.1f}" for a, b in outline),
    )


def _vector(example: Example) -> Drawing:
    """The numbers of a vector from left to right, about zero."""
    numbers = example.sample
    peak = float(np.abs(numbers).max()) or 1.0
    width = _COLUMNS / len(numbers)
    heights = [46 * v / peak for v in numbers[: _COLUMNS * 2].tolist()]
    return Drawing(
        example.unit,
        f": {len(numbers)} numbers, {numbers.min():.3g} to {numbers.max():.3g}",
        bars=tuple(
            {"x": i * width, "y": 48 - max(height, 0), "width": max(width, 0.5), "height": abs(height)}
            for i, height in enumerate(heights)
        ),
    )
