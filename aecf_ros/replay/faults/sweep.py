"""A sweep: one kind of fault on one stream throughout a recording, at rising severity."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches

import numpy as np

from aecf_ros.modalities.faults import LAST_SEVERITY
from aecf_ros.replay.faults.registry import effects, options_on
from aecf_ros.replay.faults.schedule import Fault, FaultError
from aecf_ros.replay.scoring.score import Run, Scored
from aecf_ros.replay.scoring.summary import SweepPoint


def read_severities(text: str) -> tuple[int, ...]:
    """``0:5`` or ``1,3,5`` as whole severities.

    Raises:
        FaultError: it is neither, or beyond 0 to 5.
    """
    first, colon, last = text.partition(":")
    try:
        severities = tuple(range(int(first), int(last) + 1)) if colon else tuple(int(part) for part in text.split(","))
    except ValueError:
        severities = ()
    if not severities or not all(0 <= s <= LAST_SEVERITY for s in severities):
        raise FaultError(f"severity '{text}' is not one; write 0:{LAST_SEVERITY} or 1,3,5")
    return severities


def plan(
    streams: Sequence[str],
    kinds: Sequence[str],
    severities: Sequence[int],
    stream_kinds: dict[str, str],
    duration_s: float,
) -> list[Fault]:
    """The faults of a sweep, each a run of its own; a kind that cannot act on one of the streams is left out there.

    Raises:
        FaultError: a stream or kind is not known, or a kind acts on none of the streams.
    """
    for given, known, what in ((streams, list(stream_kinds), "stream"), (kinds, list(effects()), "kind")):
        for name in given:
            if name not in known:
                near = get_close_matches(name, known, 1)
                raise FaultError(
                    f"{what} '{name}' is not known; "
                    + (f"did you mean '{near[0]}'?" if near else f"use one of {', '.join(known)}")
                )
    for kind in kinds:
        if not any(options_on(kind, stream_kinds[s]) is not None for s in streams):
            raise FaultError(f"'{kind}' cannot act on {', '.join(streams)}; leave it out")
    return [
        Fault(stream=stream, kind=kind, start_s=0.0, end_s=duration_s + 1.0, severity=severity)
        for stream in streams
        for kind in kinds
        if options_on(kind, stream_kinds[stream]) is not None
        for severity in severities
    ]


def sweep(faults: Sequence[Fault], run: Callable[[tuple[Fault, ...]], Run]) -> Iterator[SweepPoint]:
    """A point for each fault; at severity 0 they share one run."""
    nothing: Run | None = None
    for fault in faults:
        if fault.is_nothing:
            nothing = done = nothing or run(())
        else:
            done = run((fault,))
        yield _point(fault, done)


def _point(fault: Fault, run: Run) -> SweepPoint:
    scored = Scored(run.log, run.truth)
    picked = scored.settled if scored.settled.any() else np.ones(len(run.log), bool)
    weights = run.log.column("gate_weights")[picked].astype(np.float64).mean(0)
    return SweepPoint(
        fault.stream,
        fault.kind,
        fault.severity,
        run.summary.overall,
        float(run.log.column("abstain")[picked].mean()),
        dict(zip(run.manifest.names, weights.tolist(), strict=True)),
    )
