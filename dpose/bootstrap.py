"""Means with bootstrap intervals for samples that are correlated within clusters.

Frames of one video sequence, and people of one rendered scene, resemble each other. A bootstrap over single
samples treats them as independent and gives intervals that are too narrow. Here whole clusters are resampled
(Cameron, Gelbach and Miller 2008; Davison and Hinkley 1997, section 3.8): the interval then covers the choice
of sequences. With fewer than about 20 clusters it is still somewhat too narrow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

RESAMPLES, SEED = 1000, 0
DIGITS = 4  # of means and intervals
DRAWN_AT_ONCE = 1 << 20  # clusters drawn at once; bounds the memory to about 25 MB


def cluster_of(key: str) -> str:
    """The cluster of a sample, from its key: its sequence, or in the open data its scene.

    Keys of prepared data sets are `<scene>-<sequence>-<frame>-<row>` with a row of six digits
    (`dpose.data.frames.sample_key`), those of the open data `<seed>-<split>-<scene>-<person>`. Any other key
    without a hyphen is a cluster of its own.
    """
    start, _, last = key.rpartition("-")
    if len(last) == 6 and last.isdigit():
        start = start.rpartition("-")[0] or start
    return start or key


class ClusterBootstrap:
    """Resamples the clusters of N samples, always with the same random draws.

    Args:
        keys: the samples' keys; `cluster_of` maps them to clusters.
    Raises:
        ValueError: there are no samples.
    """

    def __init__(self, keys: Sequence[str], resamples: int = RESAMPLES, seed: int = SEED) -> None:
        if not len(keys):
            raise ValueError("bootstrap: no samples")
        names, self.cluster = np.unique([cluster_of(key) for key in keys], return_inverse=True)
        self.clusters, self.resamples, self.seed = len(names), resamples, seed

    @property
    def record(self) -> dict[str, Any]:
        """What results say about their intervals."""
        return {
            "method": "95 % percentile bootstrap over clusters of samples (sequences, or scenes)",
            "clusters": self.clusters,
            "resamples": self.resamples,
            "seed": self.seed,
        }

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums over the samples of each resample: (N, K) -> (resamples, K), float64.

        Memory does not grow with resamples x N: a resample needs the sums of the clusters only.
        """
        totals = np.stack([np.bincount(self.cluster, column, self.clusters) for column in values.T], axis=1)
        generator = np.random.default_rng(self.seed)
        step = max(1, DRAWN_AT_ONCE // self.clusters)
        sums = np.empty((self.resamples, totals.shape[1]))
        for start in range(0, self.resamples, step):
            rows = min(step, self.resamples - start)
            drawn = generator.integers(self.clusters, size=(rows, self.clusters))
            drawn += self.clusters * np.arange(rows)[:, None]
            times = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
            sums[start : start + rows] = times.astype(np.float64) @ totals
        return sums

    def interval(self, resampled: np.ndarray) -> list[float] | None:
        """95 % percentile interval [low, high] of a statistic's values (resamples,); NaN values are ignored.

        None if there is only one cluster, which says nothing about the spread.
        """
        if self.clusters == 1:
            return None
        low, high = np.nanpercentile(resampled, [2.5, 97.5])
        return [round(float(low), DIGITS), round(float(high), DIGITS)]

    def means(
        self,
        values: Mapping[str, np.ndarray],
        weights: Mapping[str, np.ndarray] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """{"mean", "ci95", "n"} of each of several columns (N,).

        weights: columns (N,), for instance pixel counts, of those names whose mean is weighted; n does not
        count samples of weight 0, and not all weights of a column may be 0.
        """
        columns = {name: np.asarray(column, np.float64) for name, column in values.items()}
        weight = {name: np.ones(len(self.cluster)) for name in columns}
        weight |= {name: np.asarray(column, np.float64) for name, column in (weights or {}).items()}
        weighted = {name: columns[name] * weight[name] for name in columns}
        sums = self.sums(np.stack([*weighted.values(), *(weight[name] for name in columns)], axis=1))
        with np.errstate(invalid="ignore"):  # 0/0 where all weights of a resample are 0
            resampled = sums[:, : len(columns)] / sums[:, len(columns) :]
        return {
            name: {
                "mean": round(float(weighted[name].sum() / weight[name].sum()), DIGITS),
                "ci95": self.interval(resampled[:, i]),
                "n": int(np.count_nonzero(weight[name])),
            }
            for i, name in enumerate(columns)
        }
