"""FP4 under small scales: MXFP4 and NVFP4, two answers to what 15 distinct numbers need beside them.

MXFP4: blocks of 32 along a row share a power of two (E8M0, one byte): 4.25 bits a weight, and scaling is a shift.
NVFP4: blocks of 16 share an E4M3 scale, and the tensor one float32 that keeps those scales in E4M3's range: 4.5 bits.
Both store E2M1 codes, the first of a pair in the low half of its byte. Sources: OCP Microscaling Formats (MX)
Specification 1.0, sections 5.2 and 6.3; NVFP4: torchao prototype/mx_formats/nvfp4_tensor.py.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from labcore.core.errors import InputError
from labcore.formats import groups
from labcore.formats.fp8 import E4M3, NAN, Float8
from labcore.formats.packing import pack, unpack

E2M1 = Float8("e2m1", mantissa_bits=1, bias=1, highest=7, overflow=NAN)  # ±{0, ½, 1, 1½, 2, 3, 4, 6}; sign in bit 7
MX_BLOCK, NV_BLOCK = 32, 16
E8M0_BIAS = 127  # the byte 127 is 2^0; 255 is NaN and never written here
SMALLEST_NORMAL = 2.0**-6  # of E4M3: below it a scale would lose its precision


@dataclass(frozen=True)
class MicroscaledTensor:
    """packed: uint8 [..., n/2]; scale: uint8 [..., n/block], E8M0, or E4M3 beside a float32 tensor_scale."""

    packed: Tensor
    scale: Tensor
    block: int
    tensor_scale: Tensor | None = None

    @property
    def scales(self) -> Tensor:
        """What each block's numbers are multiplied by, float32 [..., n/block]."""
        if self.tensor_scale is not None:
            return E4M3.decode(self.scale) * self.tensor_scale
        return torch.ldexp(torch.ones(self.scale.shape), self.scale.int() - E8M0_BIAS)

    def dequantize(self) -> Tensor:
        """float32 [..., n]."""
        numbers = decode_e2m1(unpack(self.packed, 4, 2 * self.packed.shape[-1]))
        return groups.join(groups.split(numbers, -1, self.block) * self.scales[..., None], -1)

    @property
    def nbytes(self) -> int:
        return self.packed.numel() + self.scale.numel() + (0 if self.tensor_scale is None else 4)

    @property
    def bits_per_weight(self) -> float:
        return 4 * self.nbytes / self.packed.numel()


def mxfp4(x: Tensor) -> MicroscaledTensor:
    """x [..., n] with n a multiple of 32: the scale puts the block's largest between 4 and 8, and 6 is the largest.

    So a block's largest may saturate, by up to a quarter: the price of a scale without a mantissa.
    InputError for other n, or an element that is not finite.
    """
    blocks = _blocks(x, MX_BLOCK)
    largest = blocks.abs().amax(-1)
    exponent = torch.frexp(largest).exponent - 1 - 2  # 4 = 2^2 is E2M1's largest power of two
    exponent = torch.where(largest > 0, exponent, -E8M0_BIAS).clamp(-E8M0_BIAS, E8M0_BIAS)
    codes = encode_e2m1(torch.ldexp(blocks, -exponent[..., None]))
    return MicroscaledTensor(pack(groups.join(codes, -1), 4), (exponent + E8M0_BIAS).to(torch.uint8), MX_BLOCK)


def nvfp4(x: Tensor) -> MicroscaledTensor:
    """x [..., n] with n a multiple of 16: scales of blocks in E4M3, relative to the tensor's.

    The tensor's scale puts the largest block scale on 448. Same errors.
    """
    blocks = _blocks(x, NV_BLOCK)
    largest = blocks.abs().amax(-1)
    tensor_scale = largest.max() / (E4M3.max * E2M1.max)
    # one without a finite reciprocal can scale nothing: the tensor then rounds to zeros
    tensor_scale = torch.where((1 / tensor_scale).isfinite(), tensor_scale, 1.0)
    scale = E4M3.encode((largest / E2M1.max / tensor_scale).clamp(min=SMALLEST_NORMAL))
    inverse = (1 / tensor_scale) / E4M3.decode(scale)
    codes = encode_e2m1(blocks * inverse[..., None])
    return MicroscaledTensor(pack(groups.join(codes, -1), 4), scale, NV_BLOCK, tensor_scale)


def encode_e2m1(x: Tensor) -> Tensor:
    """Codes 0 to 15, uint8 shaped like x, of the nearest numbers: ties to even, what is larger than 6 becomes 6."""
    code = E2M1.encode(x)
    return code & 7 | code >> 7 << 3


def decode_e2m1(codes: Tensor) -> Tensor:
    """float32, shaped like codes."""
    return E2M1.decode(codes & 7 | codes >> 3 << 7)


def _blocks(x: Tensor, block: int) -> Tensor:
    if not x.numel():
        raise InputError(f"a tensor of shape {tuple(x.shape)} has nothing to quantize")
    x = x.float()
    groups.check_finite(x, "element")  # as float32: a larger float64 is infinite there
    return groups.split(x, -1, block)
