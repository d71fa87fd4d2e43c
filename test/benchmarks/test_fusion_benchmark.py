"""The quick form of the fusion benchmark writes a result of the documented schema, with figures that can be true."""

import json

import pytest

from benchmarks.fusion import command, rows
from benchmarks.fusion.sources import data_directory


def has_data() -> bool:
    try:
        return data_directory().is_dir()
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not has_data(), reason="no ../shared/data beside the repository and AECF_BENCH_DATA is not set")
def test_the_quick_benchmark_writes_every_subset_and_calibration(tmp_path):
    assert command.main(["--quick", "--fresh", "--out", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "fusion.json").read_text())
    assert results["ours"] == rows.OURS
    for variant in ("hard", "field", "field-unseen"):
        by_row = results["variants"][variant]
        assert results["strongest_baseline"][variant] in rows.BASELINES
        assert set(command.QUICK_ROWS) <= set(by_row)
        for record in by_row.values():
            for calibration in ("raw", "global_t", "subset_t"):
                for subset in ("both", "image", "audio", "drop50"):
                    figures = record[calibration][subset]
                    assert 0.1 < figures["accuracy"][0] <= 1.0
                    assert 0.0 < figures["nll"][0] < 4.0
                    assert figures["ece_floor95"] > 0.0
                    assert 0.5 < figures["coverage"][0] <= 1.0
    ours, confound = (
        results["variants"]["hard"][r]["raw"]["drop50"]["nll"][0] for r in (rows.OURS, "concat, no mask (confound)")
    )
    assert ours < confound
    assert {"target", "measured", "met"} == set(results["targets"][0])


def test_an_unknown_benchmark_is_wrong_usage(capsys):
    from benchmarks.__main__ import main

    assert main(["nonsense"]) == 2
    assert "choose from" in capsys.readouterr().err
