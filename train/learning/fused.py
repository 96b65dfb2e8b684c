"""LoRA projections and norms as one step of autograd each, in place of the many that peft and transformers take.

peft casts a projection's input to float32, keeps it, a dropout mask and the product of both in float32, and multiplies
the matrices of rank 8 in float32. Here a projection keeps its input, which its neighbours share, and a byte a value
for the mask; the weights that learn stay float32, and their products have the base model's dtype, as under autocast. A
norm keeps its input and one number a row. Gradients written out by hand for this are Unsloth's idea.
"""

import types
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from peft.tuners.lora import Linear

_BITS = 16  # of chance for each value; a 64-bit draw serves four


def _kept(shape: torch.Size, dropout: float, device: torch.device) -> torch.Tensor:
    """One for each value that stays, else zero: each with probability `dropout`, rounded to 2^-16.

    A CPU takes longer for as many Bernoulli draws than for the product that they are for, and ten times as long to
    multiply with booleans than with bytes that it widens first.
    """
    draws = torch.empty(-(-shape.numel() * _BITS // 64), dtype=torch.int64, device=device).random_(-(1 << 63), None)
    lowest = round(dropout * (1 << _BITS)) - (1 << (_BITS - 1))
    kept = torch.empty(shape.numel(), dtype=torch.uint8, device=device)
    return torch.ge(draws.view(torch.int16)[: shape.numel()], lowest, out=kept).view(shape)


def _factors(kept: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """What `x` is multiplied with: on a GPU the bytes as they are, one kernel less."""
    return kept.to(x.dtype) if x.device.type == "cpu" else kept


class _LoraProduct(torch.autograd.Function):
    """`x` W^T + scaling * dropout(`x`) A^T B^T with gradients for `x` (rows, in), A (rank, in) and B (out, rank)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        scaling: float,
        dropout: float,
    ) -> torch.Tensor:
        kept = _kept(x.shape, dropout, x.device) if dropout else None
        ctx.scaling, ctx.learnt_in = scaling / (1.0 - dropout), a.dtype
        down, up = a.to(x.dtype), (b * ctx.scaling).to(x.dtype)
        low = (x if kept is None else x * _factors(kept, x)) @ down.t()
        y = F.linear(x, weight)
        y.addmm_(low, up.t())
        ctx.save_for_backward(x, weight, down, up, low, kept)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (dy,), (x, weight, down, up, low, kept) = grads, ctx.saved_tensors
        dlow = dy @ up
        db = (low.t() @ dy).t().to(ctx.learnt_in) * ctx.scaling
        da = (dlow.t() @ (x if kept is None else x * _factors(kept, x))).to(ctx.learnt_in)
        dx = None
        if ctx.needs_input_grad[0]:
            through = dlow @ down
            dx = (dy @ weight).add_(through if kept is None else through.mul_(_factors(kept, x)))
        return dx, None, da, db, None, None


class _RootMeanSquareNorm(torch.autograd.Function):
    """`x` (..., size) over its root mean square, times 1 + `weight` (size,), which does not learn; in float32."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        wide = x.float()
        inverse = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        scale = 1.0 + weight.float()
        ctx.save_for_backward(x, scale, inverse)
        return (wide * inverse).mul_(scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (dy,), (x, scale, inverse) = grads, ctx.saved_tensors
        normed = x.float() * inverse  # a product of two dtypes would be several times slower
        dnormed = dy.float() * scale
        along = (normed * dnormed).mean(-1, keepdim=True)
        return dnormed.addcmul_(normed, along, value=-1.0).mul_(inverse).to(x.dtype), None, None


def _project(self: Linear, x: torch.Tensor) -> torch.Tensor:
    """The forward of a peft layer with one adapter, which is active and not merged."""
    a, b, dropout = (part["default"] for part in (self.lora_A, self.lora_B, self.lora_dropout))
    rate = dropout.p if self.training and isinstance(dropout, torch.nn.Dropout) else 0.0
    rows = x.flatten(0, -2)
    y = _LoraProduct.apply(rows, self.base_layer.weight, a.weight, b.weight, self.scaling["default"], rate)
    return y.view(*x.shape[:-1], -1)


def _norm(self: Any, x: torch.Tensor) -> torch.Tensor:
    return _RootMeanSquareNorm.apply(x, self.weight, self.eps)


def fuse(model: PeftModel) -> None:
    """Replace the forward of a Gemma's LoRA projections and norms; its adapter can no longer be switched off.

    A projection with a bias, which no released Gemma has, is left as it is.
    """
    norm = type(model.get_base_model().model.norm)  # every norm of a Gemma is of the last one's kind
    for module in model.modules():
        if isinstance(module, Linear) and module.base_layer.bias is None:
            module.forward = types.MethodType(_project, module)
        elif isinstance(module, norm):
            module.forward = types.MethodType(_norm, module)
