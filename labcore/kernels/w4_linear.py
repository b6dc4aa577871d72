"""A linear layer of 4-bit codes for a GPU: a W4Weight, kept in buffers, and the product of w4a16."""

from torch import Tensor, nn

from labcore.kernels.w4_weight import W4Weight
from labcore.kernels.w4a16 import w4a16_linear


class W4Linear(nn.Module):
    """y = x Ŵᵀ + b for x [..., K], in the type of x; what `path` says is what serve() counts.

    All buffers but the bias are integers: module.to(torch.bfloat16) casts float buffers, and would round scales.
    """

    path = "w4a16"

    def __init__(self, weight: W4Weight, bias: Tensor | None = None):
        super().__init__()
        self.group = weight.group
        self.register_buffer("data", weight.data)
        self.register_buffer("grid", weight.grid)
        self.register_buffer("columns", weight.columns)
        self.register_buffer("bias", bias)

    @property
    def stored(self) -> W4Weight:
        """The weight, on the layer's device; `dequantize` and `nbytes` as of every stored weight."""
        return W4Weight(self.data, self.grid, self.group, self.columns)

    def forward(self, x: Tensor) -> Tensor:
        return w4a16_linear(x, self.stored, self.bias)
