"""Paired comparison of two variants: networks trained with several seeds each, measured on the same people.

The estimate is the mean over seeds and people of the difference of errors, each taken between the two
networks of one seed for one person. It varies with the choice of seeds and with the choice of people; the
interval is about other seeds *and* other people of the same kind. Its variance has two terms, as for crossed
random effects:

- seeds: the sample variance of the seeds' differences, divided by their number S. It includes the noise of
  people within a seed.
- people: the variance over a bootstrap of clusters of people (`dpose.bootstrap`) of the mean over seeds, less
  what is already in the first term: the same variance of each seed's deviation from that mean.

A percentile interval of the two-way bootstrap, which resamples seeds and clusters independently (Owen 2007,
"The pigeonhole bootstrap"), is too narrow for few seeds: it underestimates the first term by (S - 1) / S and
uses normal quantiles. Here the interval is estimate +- q(0.975) x standard error, where q is the mean of
Student's quantiles with S - 1 and with (clusters - 1) degrees of freedom, weighted by the two terms (Cochran
1964; Snedecor and Cochran, *Statistical Methods*, on unequal variances). It is at least as wide as the
interval for other people and the same seeds, whose variance is known from many people, whereas that of two or
three seeds can be small by chance. With 3 and with 5 seeds it covers the truth in 95 to 97 % of simulated
cases (`tests/test_compare.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from dpose.bootstrap import RESAMPLES, ClusterBootstrap

WEIGHTS = {"depth_l1": "depth_pixels"}  # of metrics that are not plain means over people
POWER = 0.8  # of `Difference.detectable`

People = Mapping[str, np.ndarray]  # columns of `dpose.results.read_people`


@dataclass(frozen=True)
class Difference:
    """The error of a variant minus that of another one, in the metric's unit.

    Attributes:
        mean: over seeds and people.
        interval: of 95 %, for other seeds and other people.
        error: its standard error.
        detectable: the smallest true difference that such an experiment finds (its interval excludes 0) in 80
            of 100 repetitions: (q(0.975) + q(0.8)) x standard error (Bloom 1995, "Minimum detectable
            effects").
        by_seed: seed -> mean over people.
        people, clusters: numbers of them.
    """

    mean: float
    interval: tuple[float, float]
    error: float
    detectable: float
    by_seed: dict[int, float]
    people: int
    clusters: int

    @property
    def found(self) -> bool:
        """Whether the interval excludes 0."""
        return self.interval[0] > 0 or self.interval[1] < 0


def paired_difference(
    first: Mapping[int, People], second: Mapping[int, People], metric: str, resamples: int = RESAMPLES
) -> Difference:
    """The error of the first variant minus that of the second, over the seeds that both have.

    Args:
        first, second: seed -> errors of each person.
        metric: one of their columns. People whose value is NaN in a run are left out. The mean of "depth_l1"
            is over pixels.
        resamples: of the clusters of people.
    Raises:
        ValueError: fewer than two common seeds or two clusters, the runs were measured on other people, or
            one lacks the metric.
    """
    seeds = sorted(first.keys() & second.keys())
    if len(seeds) < 2:
        raise ValueError(f"a paired comparison needs two seeds that both variants have, got {seeds}")
    runs = [_in_order(variant[seed]) for variant in (first, second) for seed in seeds]
    for run in runs:
        if not np.array_equal(run["key"], runs[0]["key"]):
            raise ValueError("the runs were measured on different people, and cannot be paired")
        if metric not in run:
            raise ValueError(f"a run has no {metric!r}; it has {', '.join(run)}")
    values = np.stack([run[metric] for run in runs]).astype(np.float64)
    weight = runs[0][WEIGHTS[metric]].astype(np.float64) if metric in WEIGHTS else np.ones(values.shape[1])
    used = np.isfinite(values).all(0) & (weight > 0)
    weight = weight[used]
    differences = np.subtract(*np.split(values[:, used], 2))  # (S, N)
    bootstrap = ClusterBootstrap(runs[0]["key"][used], resamples)
    if bootstrap.clusters < 2:
        raise ValueError("a paired comparison needs people of two clusters (scenes or sequences) at least")

    by_seed = differences @ weight / weight.sum()
    sums = bootstrap.sums(np.vstack([differences * weight, weight]).T)
    resampled = sums[:, :-1] / sums[:, -1:]  # (resamples, S)
    mean = resampled.mean(1)
    seed_term = by_seed.var(ddof=1) / len(seeds)
    noise = (resampled - mean[:, None]).var(0).sum() / (len(seeds) * (len(seeds) - 1))
    same_seeds = mean.var()  # for other people and the same seeds
    people_term = max(same_seeds - noise, 0.0)
    variance = seed_term + people_term

    def reach(p: float) -> float:
        """How far the p quantile is from the estimate."""
        each = stats.t.ppf(p, [len(seeds) - 1, bootstrap.clusters - 1])
        both = float(each @ [seed_term, people_term]) / variance**0.5 if variance else 0.0
        return max(both, float(each[1] * same_seeds**0.5))

    estimate, error = float(by_seed.mean()), float(max(variance, same_seeds) ** 0.5)
    half = reach(0.975)
    return Difference(
        mean=estimate,
        interval=(estimate - half, estimate + half),
        error=error,
        detectable=half + reach(POWER),
        by_seed=dict(zip(seeds, by_seed.tolist(), strict=True)),
        people=len(weight),
        clusters=bootstrap.clusters,
    )


def _in_order(people: People) -> People:
    """The columns sorted by the people's keys: their order depends on the workers of the evaluation."""
    order = np.argsort(people["key"])
    return {name: column[order] for name, column in people.items()}
