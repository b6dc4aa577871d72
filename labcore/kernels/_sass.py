"""Registers that are given away too early, found in SASS: NVIDIA's machine code, as nvdisasm prints it.

A Hopper tensor core product (wgmma in PTX, HGMMA and the like in SASS) reads its left operand, where that is in
registers, until the wait that covers the product. In PTX registers are endless and nothing goes wrong; ptxas, which
chooses the real ones, must leave these alone for as long. Before CUDA 13.3 (Triton 3.6 and 3.7 bring 12.8) it does not
always, where the product goes on past the end of a loop: on an H200 results were wrong. See triton-lang/triton, issue
9433 and pull request 11781.
"""

import re
from collections.abc import Iterator

# "/*0a80*/ @P0 LDS.128 R4, [R2] ;" is an address, perhaps a condition, an opcode and its operands
INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([\w.]+)\s*(.*?)\s*;")
LABEL = re.compile(r"\.L_x_\d+")  # where a branch goes
PREDICATE = re.compile(r"!?U?P(T|\d)")
REGISTER = re.compile(r"R(\d+)")
PRODUCT = re.compile(r"[HIQ]GMMA")
READS_ONLY = re.compile(r"BAR|BRX|CALL|FCHK|NANOSLEEP|RET|WARPSYNC")  # may begin with a register, yet write none
FOUR_WIDE = re.compile(r"88\.4|\.128|^[HI]MMA")
TWO_WIDE = re.compile(r"88\.2|\.64|WIDE|^CS2R$")


def overwritten(sass: str) -> list[str]:
    """What writes a register of a product's left operand before the wait for that product: one sentence each."""
    reads: list[set[int]] = [set()]  # by each group of products in flight, oldest first; the last is not complete
    found = []
    for opcode, operands in followed(sass):
        if PRODUCT.match(opcode):
            reads[-1] |= _registers(operands[1], 4)  # 64 rows of 32 bytes, over 128 threads
            if operands[-1].startswith("gsb"):  # it completes its group
                reads.append(set())
        elif opcode.startswith("WARPGROUP.DEPBAR"):  # the wait; its last operand is how many groups may go on
            reads = reads[-1 - int(operands[-1], 16) :]
        elif hit := written(opcode, operands) & set().union(*reads):
            found.append(f"{opcode} {', '.join(operands)} writes R{min(hit)}, which a product in flight still reads")
    return list(dict.fromkeys(found))  # the second round of a loop may repeat what the first has found


def written(opcode: str, operands: list[str]) -> set[int]:
    """The registers that an instruction writes: its first operand, predicates aside, if wide with those after it.

    Arithmetic in double precision, which nothing here has, would count as half as wide.
    """
    if READS_ONLY.match(opcode):
        return set()
    target = next((one for one in operands[:2] if not PREDICATE.fullmatch(one)), "")  # predicates: two at most
    return _registers(target, 4 if FOUR_WIDE.search(opcode) else 2 if TWO_WIDE.search(opcode) else 1)


def _registers(operand: str, width: int) -> set[int]:
    """`width` registers from the one named; none for an address, a descriptor, RZ or a uniform register."""
    first = REGISTER.match(operand)
    return set(range(int(first[1]), int(first[1]) + width)) if first else set()


def followed(sass: str) -> Iterator[tuple[str, list[str]]]:
    """(opcode, operands) from top to bottom, the body of every loop a second time; no branch down is taken."""
    code, labels = [], {}
    for line in sass.splitlines():
        if label := LABEL.match(line):
            labels[label[0]] = len(code)
        elif instruction := INSTRUCTION.search(line):
            code.append((instruction[1], [one.strip() for one in instruction[2].split(",")]))
    at, repeated = 0, set()
    while at < len(code):
        opcode, operands = code[at]
        yield opcode, operands
        label = LABEL.search(operands[-1]) if opcode.startswith("BRA") else None
        if label and labels[label[0]] < at and at not in repeated:
            repeated.add(at)
            at = labels[label[0]]
        else:
            at += 1
