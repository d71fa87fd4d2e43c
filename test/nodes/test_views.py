"""The shipped Foxglove layout and RViz configuration show topics and fields that the node has. Nobody has looked at
them on a screen here.
"""

from __future__ import annotations

import json
import re

import yaml

from aecf_msgs.msg import FusedPrediction, ModalityReport

from .conftest import ROOT

TOPICS = {"/fusion_node/debug_image", "/fusion_node/prediction", "/diagnostics"}
FIELDS = FusedPrediction.get_fields_and_field_types() | {
    f"modalities.{name}": kind for name, kind in ModalityReport.get_fields_and_field_types().items()
}


def panels(layout: object) -> list[str]:
    """The panels that a mosaic names, from the top left."""
    return [layout] if isinstance(layout, str) else [p for side in ("first", "second") for p in panels(layout[side])]


def test_every_panel_is_configured_and_every_path_leads_to_a_field() -> None:
    layout = json.loads((ROOT / "config" / "foxglove_layout.json").read_text())
    assert sorted(panels(layout["layout"])) == sorted(layout["configById"])
    paths = [path["value"] for config in layout["configById"].values() for path in config.get("paths", ())]
    assert len(paths) == 7
    for path in paths:
        topic, _, field = path.partition(".")
        assert topic in TOPICS and re.sub(r"\[\d\]", "", field) in FIELDS, path
    assert layout["configById"]["Image!prediction"]["imageMode"]["imageTopic"] in TOPICS
    assert layout["configById"]["DiagnosticSummary!health"]["topicToRender"] in TOPICS


def test_rviz_shows_the_debug_image() -> None:
    displays = yaml.safe_load((ROOT / "config" / "fusion.rviz").read_text())["Visualization Manager"]["Displays"]
    assert [d["Topic"]["Value"] for d in displays] == ["/fusion_node/debug_image"]
