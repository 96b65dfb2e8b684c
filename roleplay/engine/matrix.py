"""A weight in the layout that its device multiplies quickest with the few rows of a step. It knows no model."""

import torch
import torch.nn.functional as F

_LONG_ROW = 1024  # float32: input features from which a matrix-vector product reads memory as fast as it can
_MANY_ROWS = 256  # float32: rows from which `F.linear` is the quicker one
_FEW_ROWS = 4  # blocked: fewer take longer than these, in another kernel


class Matrix:
    """Multiplies rows with a weight (out, in) of a linear layer without bias; the product is contiguous.

    On a GPU it is `F.linear`. On a CPU, bfloat16 is copied into oneDNN's blocked layout, the one that PyTorch's own
    compiler packs frozen weights into: it is read up to twice as fast. The plain weight, mapped from its file, need
    not stay in memory beside the copy. With few rows of float32, MKL is two to three times as fast when asked for the
    transposed product, and for two equal rows rather than a short one.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        half = weight.device.type == "cpu" and weight.dtype == torch.bfloat16
        able = half and torch.backends.mkldnn.is_available()  # PyTorch for an Apple CPU comes without
        self.blocked: bool = able and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight) if self.blocked else weight

    @property
    def fewest(self) -> int:
        """With fewer rows than these the product has to be filled up."""
        return _FEW_ROWS if self.blocked else 1

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.blocked:
            missing = self.fewest - len(x)
            if missing > 0:
                return self(torch.cat([x, x[:1].expand(missing, -1)]))[: len(x)]
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, None, "none", [], "")
        if x.dtype != torch.float32 or x.device.type != "cpu" or len(x) >= _MANY_ROWS:
            return F.linear(x, self.weight)
        if len(x) == 1:
            if x.shape[1] >= _LONG_ROW:
                return F.linear(x, self.weight)
            return torch.mm(self.weight, x.expand(2, -1).contiguous().t())[:, :1].t().contiguous()
        return torch.mm(self.weight, x.t()).t().contiguous()

    def add_to(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """`y` (rows, out) plus the product of at least `fewest` rows, rounded once: in `y` itself or beside it."""
        if self.blocked:
            return torch.ops.mkldnn._linear_pointwise.binary(x, y, self.weight, None, "add")
        return y.addmm_(x, self.weight.t())
