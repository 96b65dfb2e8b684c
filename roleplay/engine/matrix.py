"""A weight in the layout that its device multiplies quickest with the few rows of a step. It knows no model."""

import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

_LONG_ROW = 1024  # float32: input features from which a matrix-vector product reads memory as fast as it can
_MANY_ROWS = 256  # float32: rows from which `F.linear` is the quicker one
_FEW_ROWS = 4  # blocked: fewer take longer than these, in another kernel
_LEVELS, _CHUNK = 127, 4096  # of int8 on either side of zero; rows of a weight that are rounded at once


def is_blocked(weight: torch.Tensor) -> bool:
    """Whether `Matrix` copies such a weight into oneDNN's blocked layout."""
    half = weight.device.type == "cpu" and weight.dtype == torch.bfloat16
    able = half and torch.backends.mkldnn.is_available()  # PyTorch for an Apple CPU comes without
    return bool(able and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def fewest_rows(weight: torch.Tensor) -> int:
    """With fewer rows than these a product with such a weight has to be filled up."""
    return _FEW_ROWS if is_blocked(weight) else 1


class Matrix:
    """Multiplies rows with a weight (out, in) of a linear layer without bias; the product is contiguous.

    On a GPU it is `F.linear`. On a CPU, bfloat16 is copied into oneDNN's blocked layout, the one that PyTorch's own
    compiler packs frozen weights into: it is read up to twice as fast. The plain weight, mapped from its file, need
    not stay in memory beside the copy. With few rows of float32, MKL is two to three times as fast when asked for the
    transposed product, and for two equal rows rather than a short one.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        self.blocked = is_blocked(weight)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight) if self.blocked else weight

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.blocked:
            missing = _FEW_ROWS - len(x)
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
        """`y` (rows, out) plus the product of at least `fewest_rows`, rounded once: in `y` itself or beside it."""
        if self.blocked:
            return torch.ops.mkldnn._linear_pointwise.binary(x, y, self.weight, None, "add")
        return y.addmm_(x, self.weight.t())


class Int8Matrix:
    """Multiplies rows on a CPU with a weight (out, in) in 8 bits: a scale for each output, and one for each row.

    The sums are whole numbers, so that a row gets the same bits beside any others. The weight is copied. Source: W8A8
    with scales per channel and, at the time, per token, as in SmoothQuant (Xiao et al., 2023); FBGEMM's kernels, which
    come with PyTorch.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        rounded = torch.empty(weight.shape, dtype=torch.int8)
        scales = torch.empty(len(weight))
        for start in range(0, len(weight), _CHUNK):
            rows = slice(start, start + _CHUNK)
            part = weight[rows].float()
            scales[rows] = _largest(part)[:, 0] / _LEVELS
            rounded[rows] = (part / scales[rows, None]).round_()
        with warnings.catch_warnings():  # PyTorch means to replace such tensors one day, and has nothing as quick
            warnings.simplefilter("ignore")
            zeros = torch.zeros(len(weight), dtype=torch.long)
            quantised = torch._make_per_channel_quantized_tensor(rounded, scales.double(), zeros, 0)
            self._packed = torch.ops.quantized.linear_prepack(quantised, None)
        # Without VNNI the kernel adds two products in 16 bits, which 8 bits on both sides would overflow.
        self._levels = _LEVELS if torch.cpu._is_vnni_supported() else _LEVELS // 2

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        scale = _largest(wide)
        y = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            wide / scale, 1 / self._levels, self._levels + 1, self._packed
        )
        return y.mul_(scale).to(x.dtype)


def _largest(rows: torch.Tensor) -> torch.Tensor:
    """Of every row's numbers the largest without its sign, (rows, 1); never 0, for one divides by it."""
    return rows.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)


Product = type[Matrix] | type[Int8Matrix]


def fuse(modules: Sequence[nn.Linear], product: Product) -> Matrix | Int8Matrix:
    """One weight for projections of the same input; unless `product` copies it, the modules keep views of it, so that
    memory does not grow."""
    fused = modules[0].weight.data if len(modules) == 1 else torch.cat([module.weight.data for module in modules])
    matrix = product(fused)
    if len(modules) > 1 and isinstance(matrix, Matrix) and not matrix.blocked:
        for module, part in zip(modules, fused.split([module.out_features for module in modules]), strict=True):
            module.weight.data = part
    return matrix
