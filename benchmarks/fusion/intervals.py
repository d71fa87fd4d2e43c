"""The interval of a mean of samples that are not independent."""

import numpy as np

from aecf_ros.core.metrics.bootstrap import DRAWS, Interval, draw_clusters


def mean_interval(values: np.ndarray, clusters: np.ndarray, draws: int = DRAWS) -> Interval:
    """95 % interval of the mean of float ``(N,)`` values, by the clustered bootstrap.

    Args:
        clusters: ``(N,)``, equal for samples of one cluster.

    >>> mean_interval(np.array([1.0, 1.0, 3.0, 3.0]), np.array([0, 0, 1, 1]))
    Interval(estimate=2.0, low=1.0, high=3.0)
    """
    index = np.unique(clusters, return_inverse=True)[1]
    total, size = np.bincount(index, values), np.bincount(index)
    weight = draw_clusters(len(size), draws)
    low, high = np.quantile((weight @ total) / (weight @ size), [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high))
