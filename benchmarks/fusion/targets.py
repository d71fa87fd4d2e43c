"""What issue 3 asks of the layer, measured: each target with its figure and whether it is met. Nothing is rounded in
our favor.
"""

import numpy as np
from rich.table import Table

from benchmarks.fusion.rows import BASELINES, OURS, STRONG
from benchmarks.fusion.summary import calibration_of, home_of

CONFOUND = "concat, no mask (confound)"
SUBSETS = ("both", "image", "audio", "drop50")


def check(results: dict) -> list[dict]:
    """[{"target", "measured", "met"}] of whatever the results hold. Every row under the calibration chosen on the
    calibration part.
    """
    view = _View(results)
    checks = (
        _accuracy,
        _independent,
        _unseen,
        _linked,
        _calibration,
        _violation,
        _hard_monotone,
        _published_gain,
        _contradiction,
        _coverage,
        _cost,
    )
    return [line for one in checks for line in one(view)]


def table(lines: list[dict]) -> Table:
    """The same for the terminal."""
    out = Table("target", "measured", "met", title="What it must reach")
    for line in lines:
        out.add_row(line["target"], line["measured"], "yes" if line["met"] else "NO")
    return out


class _View:
    def __init__(self, results: dict):
        self.variants, self.bootstrap = results["variants"], results["bootstrap"]
        self.overhead = results.get("overhead")

    def has(self, variant: str, *rows: str) -> bool:
        return all(row in self.variants.get(variant, {}) for row in (OURS, *rows))

    def row(self, variant: str, row: str) -> dict:
        """A row's figures; on unseen kinds the calibration is the one chosen on the seen ones."""
        return self.variants[variant][row][calibration_of(self.variants[home_of(variant)], row)]

    def get(self, variant: str, row: str, subset: str, key: str) -> float:
        value = self.row(variant, row)[subset][key]
        return value[0] if isinstance(value, list) else value

    def error(self, variant: str, row: str, subset: str) -> float:
        """One standard error of an accuracy: over seeds and over test samples together."""
        mean, spread = self.row(variant, row)[subset]["accuracy"]
        return float(np.hypot(spread / np.sqrt(5), np.sqrt(mean * (1 - mean) / 8000)))


def _line(target: str, measured: str, met: bool) -> dict:
    return {"target": target, "measured": measured, "met": bool(met)}


def _accuracy(view: _View):
    losses, compared = [], 0
    for variant, by_row in view.variants.items():
        if variant in ("contradiction", "multilabel", "field-development") or OURS not in by_row:
            continue
        for subset in SUBSETS:
            for row in (r for r in by_row if r in BASELINES):
                theirs, mine = (view.get(variant, r, subset, "accuracy") for r in (row, OURS))
                compared += 1
                if mine < theirs - view.error(variant, row, subset):
                    losses.append((mine - theirs, f"{variant}/{subset} {100 * (mine - theirs):+.2f} ({row})"))
    worst = "; ".join(text for _, text in sorted(losses)[:8])
    text = "everywhere" if not losses else f"{len(losses)} of {compared} comparisons lost, the worst: {worst}"
    yield _line("accuracy >= every baseline's minus one standard error", text, not losses)


def _independent(view: _View):
    for variant in ("hard", "xhard", "field"):
        if view.has(variant, STRONG):
            mine, theirs = (view.get(variant, r, "both", "nll") for r in (OURS, STRONG))
            yield _line(
                f"{variant}: NLL within 0.002 of {STRONG}", f"{mine:.4f} against {theirs:.4f}", mine <= theirs + 0.002
            )
    if view.has("field", STRONG):
        yield _line("field, moonshot: NLL 0.01 below", f"{mine - theirs:+.4f}", mine <= theirs - 0.01)


def _unseen(view: _View):
    if not view.has("field-unseen", STRONG):
        return
    mine, theirs = (view.get("field-unseen", r, "both", "nll") for r in (OURS, STRONG))
    yield _line(
        "field-unseen: NLL 0.25 below", f"{mine:.3f} against {theirs:.3f}: {mine - theirs:+.3f}", mine <= theirs - 0.25
    )
    ece, other = (view.get("field-unseen", r, "both", "ece") for r in (OURS, STRONG))
    yield _line("field-unseen: ECE <= 5 %", f"{100 * ece:.1f} % ({STRONG}: {100 * other:.1f} %)", ece <= 0.05)
    cost = view.get("field", OURS, "both", "nll") - view.get("field", STRONG, "both", "nll")
    yield _line("at a cost on field of at most 0.005", f"{cost:+.4f}", cost <= 0.005)


def _linked(view: _View):
    for subset in ("both", "drop50"):
        intervals = {row: by[subset] for row, by in view.bootstrap.get("field-linked", {}).items()}
        if intervals:
            row, (mean, low, high) = max(intervals.items(), key=lambda item: item[1][0])
            text = f"{mean:+.4f} [{low:+.4f}, {high:+.4f}] against {row}"
            yield _line(
                f"field-linked, {subset}: NLL below every baseline", text, all(i[2] < 0 for i in intervals.values())
            )


def _calibration(view: _View):
    for variant, subsets in (("hard", SUBSETS[:3]), ("xhard", SUBSETS[:3]), ("field", ("both", "drop50"))):
        for subset in subsets if view.has(variant) else ():
            ece, floor = (view.get(variant, OURS, subset, key) for key in ("ece", "ece_floor95"))
            text = f"{100 * ece:.2f} % against {100 * floor:.2f} %"
            yield _line(f"{variant}, {subset}: ECE within the noise floor's 95th percentile", text, ece <= floor)


def _violation(view: _View):
    for variant, limit in (("hard", 0.03), ("xhard", 0.08)):
        if view.has(variant, STRONG):
            rate = view.row(variant, OURS)["violation"]["rate"][0]
            mine, theirs = (view.get(variant, r, "both", "nll") for r in (OURS, STRONG))
            other = view.row(variant, STRONG)["violation"]["rate"][0]
            text = f"{100 * rate:.1f} % ({STRONG}: {100 * other:.1f} %) at NLL {mine - theirs:+.4f}"
            met = rate <= limit and mine <= theirs + 0.002
            yield _line(f"{variant}: violation rate <= {100 * limit:.0f} % at equal NLL", text, met)


def _hard_monotone(view: _View):
    name = "aecf, hard monotone"
    for variant in ("hard", "xhard"):
        if view.has(variant, name):
            record = view.variants[variant][name]["raw"]
            price = record["both"]["nll"][0] - view.variants[variant]["aecf, no lift"]["raw"]["both"]["nll"][0]
            rate = record["violation"]["rate"][0]
            text = f"{rate:.4f}, price {price:+.4f} NLL, ECE {100 * record['both']['ece'][0]:.1f} %"
            yield _line(f"{variant}: hard monotone mode has no violation", text, rate == 0.0)


def _published_gain(view: _View):
    for variant in ("hard", "field"):
        if view.has(variant, CONFOUND):
            mine, theirs = (view.get(variant, r, "drop50", "accuracy") for r in (OURS, CONFOUND))
            text = f"{100 * (mine - theirs):+.1f} points ({100 * mine:.1f} against {100 * theirs:.1f} %)"
            yield _line(
                f"{variant}: accuracy on drop50 over concat without a mask (published: 18 on COCO)", text, mine > theirs
            )


def _contradiction(view: _View):
    by_row = view.variants.get("contradiction", {})
    if OURS not in by_row:
        return
    mine, strong = by_row[OURS]["raw"], by_row.get(STRONG, {}).get("raw")
    if "clean" in mine:
        found = mine["clean"]["auroc_agreement"][0]
        yield _line("contradiction, clean: agreement finds it, AUROC >= 0.99", f"{found:.4f}", found >= 0.99)
    if "hard" in mine and strong:
        found, best = mine["hard"]["auroc_agreement"][0], strong["hard"]["auroc_optimal"][0]
        yield _line(
            "contradiction, hard: within 0.01 of the optimal detector",
            f"{found:.4f} against {best:.4f}",
            found >= best - 0.01,
        )
    for variant in sorted(set(mine) & set(strong or {})):
        a, b = (r[variant]["mean_confidence_mismatched"][0] for r in (mine, strong))
        yield _line(
            f"contradiction, {variant}: no surer of mismatched pairs than {STRONG}", f"{a:.3f} against {b:.3f}", a <= b
        )


def _coverage(view: _View):
    for variant in ("hard", "xhard", "field", "field-linked", "clean"):
        if view.has(variant):
            cover = {s: view.get(variant, OURS, s, "coverage") for s in SUBSETS[:3]}
            text = ", ".join(f"{s} {100 * c:.1f} %" for s, c in cover.items())
            worst = max(abs(c - 0.9) for c in cover.values())
            yield _line(f"{variant}: conformal coverage within 1 point of 90 %", text, worst <= 0.01)


def _cost(view: _View):
    if view.overhead:
        share = view.overhead["share"]
        text = f"{view.overhead['head_ms']:.3f} ms against {view.overhead['encoder_ms']:.1f} ms: {100 * share:.2f} %"
        yield _line("the head adds under 1 % to a ResNet-18 class encoder (CPU time, one thread)", text, share < 0.01)
    if view.has("field", STRONG):
        ours, plain = (view.variants["field"][row]["training_s"][0] for row in (OURS, STRONG))
        yield _line(
            "training the head on cached features: under 120 s, a plain one under 15 s",
            f"{ours:.0f} s and {plain:.0f} s of CPU time",
            ours < 120 and plain < 15,
        )
