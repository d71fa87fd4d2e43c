"""Two bundles on the test part of a corpus, pair by pair."""

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
    """By subset, on the pairs that the trainer of the first would measure it on.

    A cluster is what is not independent of the modality that has the fewest such: a labelled span, a recording, a drawing.

    Raises:
        DatasetError: the corpus has other modalities or labels than a bundle.
        EncoderError: an encoder of a bundle cannot be used.
    """
    parts = [bundle_part(bundle, corpus, "test") for bundle in (first, second)]
    pairs = parts[0].test_pairs(training_config(first).pairs, first.manifest.training.seed)
    names, found = first.manifest.names, {}
    for pattern in reversed(all_subsets(len(names))):
        used, rows = np.array(pattern), shown_rows(pairs, pattern)
        present = np.broadcast_to(used, (len(rows), len(names))).copy()
        said = []
        for bundle, part in zip((first, second), parts, strict=True):
            answers = graph_answers(bundle)([of[pairs.rows[rows, m]] for m, of in enumerate(part.embeddings)], present)
            said.append(ModelOutputs(answers["probabilities"], answers["prediction_set"]))
        clusters = min(
            (parts[0].clean[m].clusters[pairs.rows[rows, m]] for m in np.flatnonzero(used)),
            key=lambda of: len(np.unique(of)),
        )
        found[subset_name(names, pattern)] = compare(*said, pairs.labels[rows], clusters)
    return found
