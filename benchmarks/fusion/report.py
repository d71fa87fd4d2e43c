"""docs/research/benchmarks.md and its pictures, from out/bench/fusion.json and nothing else."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (after the backend is chosen)

from benchmarks.fusion.rows import ABLATIONS, ABLATIONS_OF_OURS, BASELINES, OURS, STRONG, VARIANTS_OF_OURS  # noqa: E402
from benchmarks.fusion.summary import calibration_of, home_of  # noqa: E402
from benchmarks.text import wrapped  # noqa: E402

DATE = "2026-11-21 and 22"
SUBSETS = ("both", "image", "audio", "drop50")
ORDER = ("clean", "hard", "xhard", "field", "field-unseen", "field-linked", "scenes", "speaker-out")
BEGIN, END = "<!-- fusion tables: written by `python -m benchmarks fusion --docs` -->", "<!-- end of fusion tables -->"


def write_tables(results: dict, path: Path) -> None:
    """Replace what lies between BEGIN and END in `path`, or append it."""
    text = path.read_text() if path.is_file() else f"# Benchmarks\n\n{BEGIN}\n{END}\n"
    if BEGIN not in text:
        text = f"{text.rstrip()}\n\n{BEGIN}\n{END}\n"
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{before}{BEGIN}\n\n{wrapped(tables(results))}\n{END}{after}")


def tables(results: dict) -> str:
    """All tables as Markdown."""
    done = results["jobs"]
    parts = [
        f"Measured {DATE}; {done['done']} of {done['planned']} jobs done (a job: a variant, a seed, a group of rows)"
        + (f", in {done['cpu_s'] / 60:.0f} minutes of CPU time." if done["cpu_s"] else "."),
        "Every baseline and ablation under the calibration that its calibration part chose, ours as it is;",
        "mean ± standard deviation over seeds.",
        "",
        "### What it must reach",
        "",
    ]
    parts += ["| target | measured | met |", "|---|---|---|"]
    parts += [f"| {t['target']} | {t['measured']} | {'yes' if t['met'] else '**no**'} |" for t in results["targets"]]
    for variant in (v for v in ORDER if v in results["variants"]):
        parts += ["", f"### {variant}", "", *_variant(results, variant)]
    if "contradiction" in results["variants"]:
        parts += ["", "### contradiction", "", *_contradiction(results["variants"]["contradiction"])]
    if "multilabel" in results:
        parts += ["", "### multi-label collages", "", *_multilabel(results["multilabel"])]
    return "\n".join(parts)


def _variant(results: dict, variant: str) -> list[str]:
    by_row = results["variants"][variant]
    home = results["variants"][home_of(variant)]
    strongest = results["strongest_baseline"].get(variant)
    floor = {s: by_row[OURS]["raw"][s]["ece_floor95"] for s in SUBSETS} if OURS in by_row else {}
    lines = [
        "| row | seeds | calibration | accuracy, both | NLL both | NLL image | NLL audio | NLL drop50 | ECE both "
        "| ECE drop50 | AURC both | "
        "violations | set size | parameters | CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in (r for r in (*BASELINES, *VARIANTS_OF_OURS, *ABLATIONS_OF_OURS, *ABLATIONS) if r in by_row):
        calibration = calibration_of(home, row)
        f = by_row[row][calibration]
        name = f"**{row}**" if row == OURS else f"{row} (strongest baseline)" if row == strongest else row
        nll = " | ".join(_spread(f[s]["nll"], 4) for s in SUBSETS)
        lines.append(
            f"| {name} | {results['seeds'][variant][row]} | {calibration} | {_spread(f['both']['accuracy'], 2, 100)} "
            f"| {nll} | {_spread(f['both']['ece'], 2, 100)} | {_spread(f['drop50']['ece'], 2, 100)} "
            f"| {f['both']['aurc'][0]:.4f} | {100 * f['violation']['rate'][0]:.1f} % "
            f"({100 * f['violation']['rate_001'][0]:.1f}) | {f['both']['set_size'][0]:.2f} | "
            f"{by_row[row]['parameters'][0]:,.0f} | {by_row[row]['training_s'][0]:.1f} |"
        )
    if floor:
        text = ", ".join(f"{s} {100 * x:.2f}" for s, x in floor.items())
        lines += [
            "",
            f"95th percentile of the ECE noise floor of `{OURS}` (%): {text}. "
            "Violations: any, and in parentheses by more than 0.01.",
        ]
    intervals = results["bootstrap"].get(variant, {}).get(strongest)
    if intervals:
        text = "; ".join(f"{s} {m:+.4f} [{low:+.4f}, {high:+.4f}]" for s, (m, low, high) in intervals.items())
        lines += ["", f"NLL of `{OURS}` minus {strongest}, paired, 95 % interval clustered on recordings: {text}."]
    return lines


def _contradiction(by_row: dict) -> list[str]:
    lines = [
        "| row | pairs | AUROC agreement | AUROC optimal detector | mean confidence on mismatched |",
        "|---|---|---|---|---|",
    ]
    for row, record in by_row.items():
        for variant, f in record["raw"].items():
            found, best = f["auroc_agreement"][0], f["auroc_optimal"][0]
            shown = f"{found:.4f} | {best:.4f}" if abs(found - 0.5) > 1e-9 else "none | none"
            lines.append(f"| {row} | {variant} | {shown} | {_spread(f['mean_confidence_mismatched'], 3)} |")
    return lines


def _multilabel(by_row: dict) -> list[str]:
    lines = ["| row | macro-mAP both | image | audio | drop50 |", "|---|---|---|---|---|"]
    return lines + [
        f"| {row} | " + " | ".join(_spread(f[s], 2, 100) for s in SUBSETS) + " |" for row, f in by_row.items()
    ]


def _spread(pair: list[float], digits: int, factor: float = 1.0) -> str:
    return f"{factor * pair[0]:.{digits}f} ± {factor * pair[1]:.{digits}f}"


def write_pictures(results: dict, directory: Path) -> None:
    """fusion-nll.png: NLL with both and on drop50, the rows that matter, by variant."""
    directory.mkdir(parents=True, exist_ok=True)
    shown = [
        r for r in ("concat, no mask (confound)", "concat + mask", "mean of logits", STRONG, "additive gate", OURS)
    ]
    variants = [v for v in ("hard", "xhard", "field", "field-unseen", "field-linked") if v in results["variants"]]
    figure, axes = plt.subplots(1, len(variants), figsize=(3.0 * len(variants), 3.4), squeeze=False)
    for axis, variant in zip(axes[0], variants, strict=True):
        by_row = results["variants"][variant]
        home = results["variants"][home_of(variant)]
        rows = [r for r in shown if r in by_row]
        for offset, subset in ((-0.2, "both"), (0.2, "drop50")):
            values = [by_row[r][calibration_of(home, r)][subset]["nll"] for r in rows]
            positions = [i + offset for i in range(len(rows))]
            color = "#1f6f8b" if subset == "both" else "#c9d6df"
            axis.barh(positions, [v[0] for v in values], 0.38, xerr=[v[1] for v in values], color=color, label=subset)
        axis.set_yticks(range(len(rows)), rows if axis is axes[0][0] else [""] * len(rows), fontsize=8)
        axis.invert_yaxis()
        axis.set_title(variant, fontsize=9)
        axis.tick_params(axis="x", labelsize=7)
    axes[0][-1].legend(fontsize=7, loc="lower right")
    figure.supxlabel("negative log-likelihood (nats), lower is better", fontsize=8)
    figure.tight_layout()
    figure.savefig(directory / "fusion-nll.png", dpi=90)
    plt.close(figure)
