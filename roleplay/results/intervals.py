"""Estimates with 95 % intervals from few, clustered observations. It knows numbers only, not what they measure.

Observations of one cluster (a scene, a conversation) are not independent, so clusters are resampled, never rows.
"""

import math
from dataclasses import dataclass

Z_95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


@dataclass(frozen=True)
class Estimate:
    """A value and the 95 % interval around it."""

    value: float
    low: float
    high: float


def wilson(wins: float, total: float) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927): exact enough from a handful on, never outside 0 to 1."""
    if total == 0:
        return 0.0, 1.0
    mean, spread = wins / total, Z_95 * Z_95 / total
    centre = (mean + spread / 2) / (1 + spread)
    half = Z_95 / (1 + spread) * math.sqrt(mean * (1 - mean) / total + spread / (4 * total))
    return max(0.0, centre - half), min(1.0, centre + half)
