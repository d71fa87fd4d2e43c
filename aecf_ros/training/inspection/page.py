"""An inspection as one self-contained HTML page: tables, the balance of classes, thumbnails and waveforms."""

from __future__ import annotations

from base64 import b64encode
from functools import partial
from html import escape
from pathlib import Path

import cv2
import numpy as np

from aecf_ros.training.data.npy_dataset import AudioSpec, VectorSpec
from aecf_ros.training.inspection.summary import Example, Inspection
from aecf_ros.training.inspection.tables import TextTable, headline, tables_of

_STYLE = """
:root { --ink: #1f2a36; --soft: #66727f; --line: #e3e7ec; --warn: #b4561e; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 1180px; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2.4rem 0 .5rem; } h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p.lead { color: var(--soft); margin: .2rem 0 1.2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .8rem; border-bottom: 1px solid var(--line); text-align: right; }
th { font-weight: 600; color: var(--soft); } th:first-child, td:first-child, td.text, th.text { text-align: left; }
.note { color: var(--soft); font-size: .9rem; } ul.warnings li { color: var(--warn); }
.wide { overflow-x: auto; }
.examples { display: flex; flex-wrap: wrap; gap: .6rem; align-items: flex-end; }
figure { margin: 0; } figcaption { color: var(--soft); font-size: .75rem; max-width: 12rem; overflow-wrap: anywhere; }
figure img, figure svg { height: 96px; border: 1px solid var(--line); border-radius: 4px; display: block; }
"""
_THUMBNAIL = 192
"""Pixels of the longer side: shown at half that, for screens of twice the density."""
_COLUMNS = 180
_COLORS = ("#3b6ea8", "#d98b36", "#5b9a68", "#a35c8f")
"""Of the parts, in their order."""


def write_page(found: Inspection, out: Path) -> Path:
    """Write ``index.html`` into ``out``, which is made; gives its path."""
    out.mkdir(parents=True, exist_ok=True)
    title = f"aecf dataset inspect: {found.corpus.name}"
    sections = [
        _warnings(found),
        *(f"<p class=note>{escape(line)}</p>" for line in found.notes),
        "<h2>Balance</h2>",
        _balance(found),
        *(_table(table) for table in tables_of(found)),
        "<h2>Examples</h2>",
        _examples(found),
    ]
    path = out / "index.html"
    path.write_text(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n<h1>{escape(title)}</h1><p class="lead">{escape(headline(found))}</p>\n'
        + "\n".join(section for section in sections if section)
        + "\n</body></html>\n",
        encoding="utf-8",
    )
    return path


def _warnings(found: Inspection) -> str:
    if not found.warnings:
        return "<p class='note'>Nothing in it is known to harm a model.</p>"
    return "<ul class=warnings>" + "".join(f"<li>{escape(line)}</li>" for line in found.warnings) + "</ul>"


def _table(table: TextTable) -> str:
    title, header, rows = table
    text = [name in ("part", "classes") for name in header]
    cells = [("th", header), *(("td", row) for row in rows)]
    lines = [
        "<tr>"
        + "".join(
            f"<{tag}{' class=text' if left else ''}>{escape(cell)}</{tag}>"
            for cell, left in zip(row, text, strict=True)
        )
        + "</tr>"
        for tag, row in cells
    ]
    return f"<h2>{escape(title.capitalize())}</h2><div class=wide><table>{''.join(lines)}</table></div>"


def _balance(found: Inspection) -> str:
    """A bar for each class, divided by parts."""
    parts = list(found.corpus.parts)
    counts = np.array([found.counts(part) for part in parts])
    scale = 620 / max(int(counts.sum(0).max()), 1)
    bars, y = [], 0
    for c, name in enumerate(found.class_names):
        if not counts[:, c].any() and c == len(found.corpus.labels):
            continue
        x = 170.0
        bars.append(f"<text x=160 y={y + 15} text-anchor=end>{escape(name[:24])}</text>")
        for p, part in enumerate(parts):
            width = counts[p, c] * scale
            bars.append(
                f"<rect x={x:.1f} y={y + 3} width={width:.1f} height=16 fill='{_COLORS[p % 4]}'><title>{escape(part)}: {counts[p, c]}</title></rect>"
            )
            x += width
        bars.append(f"<text x={x + 6:.1f} y={y + 15} fill='#66727f'>{counts[:, c].sum()}</text>")
        y += 22
    key = " ".join(
        f"<span style='color:{_COLORS[p % 4]}'>&#9632;</span> {escape(part)}" for p, part in enumerate(parts)
    )
    return f"<p class=note>{key}</p><svg width=860 height={y + 4} font-size=13 font-family='system-ui, sans-serif' fill='#1f2a36'>{''.join(bars)}</svg>"


def _examples(found: Inspection) -> str:
    specs = {m.name: m for m in found.corpus.modalities}
    sections = []
    for c, name in [*enumerate(found.corpus.labels), (-1, found.class_names[-1])]:
        if not found.examples.get(c):
            continue
        sections.append(f"<h3>{escape(name)}</h3>")
        for modality, spec in specs.items():
            of = [e for e in found.examples[c] if e.modality == modality]
            draw = (
                _vector
                if isinstance(spec, VectorSpec)
                else partial(_sound, rate_hz=spec.rate_hz)
                if isinstance(spec, AudioSpec)
                else _picture
            )
            figures = "".join(map(draw, of))
            sections.append(
                f"<p class=note>{escape(modality)}</p><div class=examples>{figures or '<span class=note>none</span>'}</div>"
            )
    return "\n".join(sections)


def _picture(example: Example) -> str:
    image = example.sample
    scale = _THUMBNAIL / max(image.shape[:2])
    size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
    shown = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    jpeg = cv2.imencode(".jpg", shown[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
    data = b64encode(jpeg).decode()
    return f"<figure><img src='data:image/jpeg;base64,{data}' alt='{escape(example.unit, quote=True)}'><figcaption>{escape(example.unit)}</figcaption></figure>"


def _sound(example: Example, rate_hz: int) -> str:
    """The envelope of a sound over its time, full scale from top to bottom."""
    samples = example.sample.astype(np.float32) / 32768.0
    pieces = np.array_split(samples, min(_COLUMNS, len(samples)))
    high, low = np.array([p.max() for p in pieces]), np.array([p.min() for p in pieces])
    x = np.linspace(0, _COLUMNS, len(pieces))
    points = " ".join(
        f"{a:.0f},{48 - 46 * b:.1f}" for a, b in [*zip(x, high, strict=True), *zip(x[::-1], low[::-1], strict=True)]
    )
    rms = float(np.sqrt(np.mean(np.square(samples))))
    level = f"{20 * np.log10(rms):.0f} dBFS" if rms > 0 else "silent"
    return (
        f"<figure><svg width={_COLUMNS} height=96 viewBox='0 0 {_COLUMNS} 96' role=img><line x1=0 y1=48 x2={_COLUMNS} y2=48 stroke='#e3e7ec'/>"
        f"<polygon fill='#3b6ea8' points='{points}'/></svg><figcaption>{escape(example.unit)}: {len(samples) / rate_hz:.2f} s, {level}</figcaption></figure>"
    )


def _vector(example: Example) -> str:
    """The numbers of a vector from left to right, about zero."""
    numbers = example.sample
    most = float(np.abs(numbers).max()) or 1.0
    width = _COLUMNS / len(numbers)
    bars = "".join(
        f"<rect x={i * width:.1f} y={48 - max(46 * v / most, 0):.1f} width={max(width, 0.5):.1f} height={abs(46 * v / most):.1f} />"
        for i, v in enumerate(numbers[: _COLUMNS * 2].tolist())
    )
    return (
        f"<figure><svg width={_COLUMNS} height=96 viewBox='0 0 {_COLUMNS} 96' role=img fill='#3b6ea8'>{bars}</svg>"
        f"<figcaption>{escape(example.unit)}: {len(numbers)} numbers, {numbers.min():.3g} to {numbers.max():.3g}</figcaption></figure>"
    )
