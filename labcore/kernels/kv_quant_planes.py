"""Codes of two bytes at a time as numbers, and products of matrices that come as such planes.

The chip turns integers into floats in few units, so here bytes become fp16 by placing each behind the exponent of 1024:
a mask and a subtraction for two elements. Source: FasterTransformer, interleaved_numeric_conversion; arXiv:2211.10017.
"""

import triton
import triton.language as tl

from labcore.kernels._compat import interpreting

PACKED = tl.constexpr(not interpreting())  # the interpreter knows no assembly


# [book: codes-to-half]
@triton.jit
def planes(pair, CODE: tl.constexpr, KIND: tl.constexpr):
    """Two bytes of codes an element, int16, as numbers: (first, second) bytes, of INT4 (low, low, high, high) nibbles.

    So a product over the channels is a sum of products, one a plane. Sixteen bits is the least that the chip can
    transpose between shared memory and tensor cores; with single bytes every value took a read of its own. 0x6400 | c
    is the fp16 number 1024 + c, ulps up there being ones; INT4 comes as code - 8.
    """
    if PACKED and KIND == tl.float16:
        if CODE == tl.uint8:
            numbers = tl.inline_asm_elementwise(
                """{
                .reg .b32 w, x, y, z;
                mov.b32 x, 0x64086408;  // 1032, twice
                mov.b32 y, 0x2C002C00;  // 1/16
                mov.b32 z, 0xD480D480;  // -72
                shr.u32 w, $4, 8;
                lop3.b32 $0, $4, 0x000F000F, 0x64006400, 0xEA;  // (a & b) | c
                lop3.b32 $1, w, 0x000F000F, 0x64006400, 0xEA;
                lop3.b32 $2, $4, 0x00F000F0, 0x64006400, 0xEA;
                lop3.b32 $3, w, 0x00F000F0, 0x64006400, 0xEA;
                sub.rn.f16x2 $0, $0, x;
                sub.rn.f16x2 $1, $1, x;
                fma.rn.f16x2 $2, $2, y, z;
                fma.rn.f16x2 $3, $3, y, z;
                }""",
                "=&r,=&r,=&r,=&r,r", [pair], dtype=(tl.float16, tl.float16, tl.float16, tl.float16),
                is_pure=True, pack=2,
            )  # fmt: skip
        elif CODE == tl.int8:
            numbers = tl.inline_asm_elementwise(
                """{
                .reg .b32 w, x;
                mov.b32 x, 0x64806480;  // 1152, twice
                shr.u32 w, $2, 8;
                lop3.b32 $0, $2, 0x00FF00FF, x, 0x6A;  // (a & b) ^ c: a code's sign bit counts up from -128
                lop3.b32 $1, w, 0x00FF00FF, x, 0x6A;
                sub.rn.f16x2 $0, $0, x;
                sub.rn.f16x2 $1, $1, x;
                }""",
                "=&r,=&r,r", [pair], dtype=(tl.float16, tl.float16), is_pure=True, pack=2,
            )  # fmt: skip
        else:
            numbers = tl.inline_asm_elementwise(
                """{
                .reg .b32 w;
                .reg .b16 first, second;
                prmt.b32 w, $2, 0, 0x3120;
                mov.b32 {first, second}, w;
                cvt.rn.f16x2.e4m3x2 $0, first;
                cvt.rn.f16x2.e4m3x2 $1, second;
                }""",
                "=&r,=&r,r", [pair], dtype=(tl.float16, tl.float16), is_pure=True, pack=2,
            )  # fmt: skip
    else:
        first, second = (pair & 255).to(tl.uint8), ((pair >> 8) & 255).to(tl.uint8)
        if CODE == tl.uint8:
            numbers = (
                ((first & 15).to(tl.int32) - 8).to(KIND), ((second & 15).to(tl.int32) - 8).to(KIND),
                ((first >> 4).to(tl.int32) - 8).to(KIND), ((second >> 4).to(tl.int32) - 8).to(KIND),
            )  # fmt: skip
        else:
            numbers = (first.to(CODE, bitcast=True).to(KIND), second.to(CODE, bitcast=True).to(KIND))
    return numbers


@triton.jit
def sum_of_products(keys, q):
    """The sum over planes of keys [tokens, channels] · q [channels, columns]: scores [tokens, columns]."""
    scores = tl.dot(keys[0], q[0], input_precision="ieee")
    scores = tl.dot(keys[1], q[1], scores, input_precision="ieee")
    if len(keys) == 4:
        scores = tl.dot(keys[2], q[2], scores, input_precision="ieee")
        scores = tl.dot(keys[3], q[3], scores, input_precision="ieee")
    return scores


@triton.jit
def add_products(acc, decay, values, weights):
    """decay · acc + values · weights, plane by plane: values [channels, tokens], the others' columns are heads."""
    first = tl.dot(values[0], weights, acc[0] * decay, input_precision="ieee")
    second = tl.dot(values[1], weights, acc[1] * decay, input_precision="ieee")
    if len(values) == 2:
        result = (first, second)
    else:
        third = tl.dot(values[2], weights, acc[2] * decay, input_precision="ieee")
        fourth = tl.dot(values[3], weights, acc[3] * decay, input_precision="ieee")
        result = (first, second, third, fourth)
    return result


# [/book]
