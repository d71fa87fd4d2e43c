"""Compare two bundles on the test part of a corpus."""

from __future__ import annotations

import numpy as np

from aecf_ros.core.bundle import Bundle
from aecf_ros.core.metrics.comparison import Comparison, ModelOutputs, compare
from aecf_ros.core.types import subset_name
from aecf_ros.fusion.presence.masking import all_subsets
from aecf_ros.training.calibration.calibrate import shown_rows
from aecf_ros.training.data.corpus import Corpus
from aecf_ros.training.evaluation.measure import bundle_part, graph_answers, training_config


def compare_on(first: Bundle, second: Bundle, corpus: Corpus) -> dict[str, Comparison]:
    """Compare two bundles by subset, on the test pairs of the first.

    Clusters are those of the modality that has the fewest: a labeled span, a recording, a drawing.

    Raises:
        DatasetError: the corpus has other modalities or labels than a bundle.
        EncoderError: an encoder of a bundle cannot be used.
    """
    parts = [bundle_part(bundle, corpus, "test") for bundle in (first, second)]
    pairs = parts[0].test_pairs(training_config(first).pairs, first.manifest.training.seed)
    names = first.manifest.names
    comparisons: dict[str, Comparison] = {}
    for pattern in reversed(all_subsets(len(names))):
        used, rows = np.array(pattern), shown_rows(pairs, pattern)
        present = np.broadcast_to(used, (len(rows), len(names))).copy()
        outputs = []
        for bundle, part in zip((first, second), parts, strict=True):
            answers = graph_answers(bundle)([e[pairs.rows[rows, m]] for m, e in enumerate(part.embeddings)], present)
            outputs.append(ModelOutputs(answers["probabilities"], answers["prediction_set"]))
        clusters = min(
            (parts[0].clean[m].clusters[pairs.rows[rows, m]] for m in np.flatnonzero(used).tolist()),
            key=lambda clusters: len(np.unique(clusters)),
        )
        comparisons[subset_name(names, pattern)] = compare(outputs[0], outputs[1], pairs.labels[rows], clusters)
    return comparisons
