"""Root-mean-square norms of the few rows of a step, as their device computes them quickest. They know no model."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F


class Norm:
    """Root-mean-square norm in float32 with the weight stored as its distance from one."""

    def __init__(self, *modules: Any, repeats: Sequence[int] = (1,)) -> None:
        """Several norms of the same size act on neighbouring heads: `repeats` says on how many each."""
        rows = [(1.0 + m.weight.data.float()).expand(n, -1) for m, n in zip(modules, repeats, strict=True)]
        size = rows[0].shape[-1]
        self.weight, self.eps, self.fused = torch.cat(rows), modules[0].eps, rows[0].device.type != "cpu"
        if not self.fused:
            self.weight, self.eps = self.weight * math.sqrt(size), self.eps * size

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        if self.fused:  # a single kernel of a GPU, where the other way takes six
            if len(self.weight) == 1:
                return F.rms_norm(wide, wide.shape[-1:], self.weight[0], self.eps).to(x.dtype)
            return (F.rms_norm(wide, wide.shape[-1:], eps=self.eps) * self.weight).to(x.dtype)
        # Of the sum of squares instead of their mean: `F.rms_norm` takes three times as long for a few rows on a CPU.
        inverse = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().add_(self.eps).rsqrt_()
        return (wide * inverse).mul_(self.weight).to(x.dtype)
