"""Storage of one side of a quantized KV cache: the keys, or the values, of every layer and slot.

Tokens enter in full precision, wait in a residual window of the newest ones, and leave it as packed codes. Which ones
leave, and when, is KIVI's rule (arXiv:2402.02750, algorithm 1). With one scale a *token* (over its channels) a token
can go alone, so exactly the newest `residual` tokens are kept. With one scale a *channel* (over a group of consecutive
tokens) only whole groups can go: when the window has filled up with `residual` tokens, all of them leave at once.
The first tokens, the attention sinks, may be spared for good (KVQuant, arXiv:2401.18079; IntactKV, arXiv:2403.01241).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from labcore.core.errors import InputError
from labcore.formats.fp8 import ScaledFloat8
from labcore.formats.packing import pack, packed_bytes, unpack
from labcore.formats.uniform import Uniform

TOKEN, CHANNEL = "token", "channel"


@dataclass(frozen=True)
class Scheme:
    """How keys (or values) are stored: a number format, what shares a scale, and the window kept in full precision.

    axis "token": each token has scales of its own, one for `group` consecutive channels (None: for all of a head).
    axis "channel": each channel has scales of its own, one for `group` consecutive tokens.
    residual: tokens of the window; for "channel" a multiple of the group, since whole groups leave it.
    sinks: first tokens of a sequence that are never quantized.
    """

    format: Uniform | ScaledFloat8
    axis: str = TOKEN
    group: int | None = None
    residual: int = 0
    sinks: int = 0

    def __post_init__(self):
        if self.axis not in (TOKEN, CHANNEL):
            raise InputError(f"axis={self.axis!r}: scales are shared along 'token' or 'channel'")
        if (self.group is not None and self.group < 1) or self.residual < 0 or self.sinks < 0:
            raise InputError(
                f"group={self.group}, residual={self.residual}, sinks={self.sinks}: need a group of 1 or more, and 0 "
                "or more tokens in full precision"
            )
        if self.axis == CHANNEL and (not self.group or not self.residual or self.residual % self.group):
            raise InputError(
                f"group={self.group}, residual={self.residual}: scales a channel need a group of tokens, and a "
                "residual window of one or more whole groups"
            )

    @property
    def step(self) -> int:
        """Tokens that only leave the window together."""
        return self.group if self.axis == CHANNEL else 1

    def room(self, capacity: int) -> int:
        """How many of `capacity` tokens can ever be quantized."""
        waiting = 0 if self.axis == CHANNEL else self.residual
        return max(0, capacity - self.sinks - waiting) // self.step * self.step

    def leaving(self, waiting: int) -> int:
        """How many of `waiting` tokens in the window are quantized now, oldest first."""
        if self.axis == CHANNEL:
            return waiting // self.residual * self.residual
        return max(0, waiting - self.residual)


class QuantizedStore:
    """codes: uint8 [n_layers, slots, n_kv_heads, room, packed bytes of head_dim]; parameters: the scales (and zeros),
    [n_layers, slots, n_kv_heads, groups…]; window, sinks: [n_layers, slots, n_kv_heads, residual or sinks, head_dim] in
    full precision. A slot's tokens are its sinks, then codes, then the window.
    """

    def __init__(
        self,
        scheme: Scheme,
        n_layers: int,
        n_kv_heads: int,
        head_dim: int,
        *,
        slots: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        group = scheme.group or head_dim
        if scheme.axis == TOKEN and head_dim % group:
            raise InputError(f"head_dim={head_dim} is not a whole number of groups of {group} channels")
        self.scheme, self.group, self.head_dim = scheme, group, head_dim
        room = scheme.room(capacity)
        scales = (room // group, head_dim) if scheme.axis == CHANNEL else (room, head_dim // group)
        of_heads = n_layers, slots, n_kv_heads

        def new(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.empty(*of_heads, *shape, dtype=dtype, device=device)

        self.codes = new(room, packed_bytes(head_dim, scheme.format.bits), dtype=torch.uint8)
        self.parameters = [new(*scales, dtype=one) for one in scheme.format.parameters]
        self.window = new(scheme.residual, head_dim, dtype=dtype)
        self.sinks = new(scheme.sinks, head_dim, dtype=dtype)
        # tokens of each layer and slot: spared for good, held as codes, waiting in the window
        self.spared, self.quantized, self.waiting = ([[0] * slots for _ in range(n_layers)] for _ in range(3))

    @property
    def device(self) -> torch.device:
        return self.codes.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the storage: no kernel that reads floats can read this."""
        return self.codes.dtype

    @property
    def nbytes(self) -> int:
        """Bytes reserved, used or not: codes, scales, zeros, window, sinks."""
        return sum(array.nbytes for array in (self.codes, *self.parameters, self.window, self.sinks))

    def append(self, layer: int, slot: int, new: Tensor) -> None:
        """Store new [n_kv_heads, tokens, head_dim], which must be finite, behind what is there."""
        spared = self.spared[layer][slot]
        first, new = new.tensor_split([self.scheme.sinks - spared], dim=1)
        self.sinks[layer, slot, :, spared : spared + first.shape[1]] = first
        self.spared[layer][slot] += first.shape[1]
        waiting = torch.cat((self._window(layer, slot), new.to(self.window.dtype)), dim=1)
        leaving = self.scheme.leaving(waiting.shape[1])
        if leaving:
            self._write(layer, slot, self.quantized[layer][slot], waiting[:, :leaving])
            self.quantized[layer][slot] += leaving
        self._wait(layer, slot, waiting[:, leaving:])

    def read(self, layer: int, slot: int) -> Tensor:
        """All tokens of the slot, [n_kv_heads, tokens, head_dim]: sinks, codes turned back into numbers, window."""
        sinks = self.sinks[layer, slot, :, : self.spared[layer][slot]]
        past = self._dequantized(layer, slot, 0, self.quantized[layer][slot]).to(self.window.dtype)
        return torch.cat((sinks, past, self._window(layer, slot)), dim=1)

    def truncate(self, slot: int, length: int) -> None:
        """Forget all but the first `length` tokens of `slot`.

        A group of tokens that is cut in two can no longer share its scales: what is left of it goes back to the window
        as the numbers its codes stand for.
        """
        for layer, held in enumerate(self.quantized):
            self.spared[layer][slot] = min(self.spared[layer][slot], length)
            behind = length - self.spared[layer][slot]
            whole = min(held[slot], behind // self.scheme.step * self.scheme.step)
            if whole < held[slot]:
                self._wait(layer, slot, self._dequantized(layer, slot, whole, min(behind, held[slot])))
                held[slot] = whole
            self.waiting[layer][slot] = min(self.waiting[layer][slot], behind - whole)

    def _window(self, layer: int, slot: int) -> Tensor:
        return self.window[layer, slot, :, : self.waiting[layer][slot]]

    def _wait(self, layer: int, slot: int, tokens: Tensor) -> None:
        self.window[layer, slot, :, : tokens.shape[1]] = tokens
        self.waiting[layer][slot] = tokens.shape[1]

    @property
    def _axis(self) -> int:
        """The axis of [..., tokens, head_dim] along which a group's elements lie."""
        return -2 if self.scheme.axis == CHANNEL else -1

    def _rows(self, tokens: int) -> int:
        """Rows of a parameter that belong to the first `tokens` tokens."""
        return tokens // self.scheme.step

    def _write(self, layer: int, slot: int, start: int, tokens: Tensor) -> None:
        codes, *parameters = self.scheme.format.quantize(tokens, self._axis, self.group)
        end = start + tokens.shape[1]
        self.codes[layer, slot, :, start:end] = pack(codes, self.scheme.format.bits)
        for array, new in zip(self.parameters, parameters, strict=True):
            array[layer, slot, :, self._rows(start) : self._rows(end)] = new

    def _dequantized(self, layer: int, slot: int, start: int, end: int) -> Tensor:
        """Tokens start…end as float32; `start` is the first of a group, `end` may lie within one."""
        last = -(-end // self.scheme.step) * self.scheme.step
        codes = unpack(self.codes[layer, slot, :, start:last], self.scheme.format.bits, self.head_dim)
        parameters = (one[layer, slot, :, self._rows(start) : self._rows(last)] for one in self.parameters)
        return self.scheme.format.dequantize(codes, *parameters, axis=self._axis, group=self.group)[:, : end - start]
