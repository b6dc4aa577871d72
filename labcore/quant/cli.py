"""`labcore quantize`: a float checkpoint in, a folder of 2- to 8-bit codes out that vLLM or transformers can serve."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from labcore.core.errors import InputError
from labcore.core.files import check_creatable

HELP = "quantize a safetensors checkpoint with RTN, GPTQ or AWQ into a GPTQ or AWQ folder"
METHODS = ("rtn", "gptq", "awq")
WINDOWS, LENGTH = 32, 512  # of calibration text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `labcore quantize`."""
    parser.add_argument("checkpoint", help="a folder of safetensors in float, a hub id, or 'baseline'")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write; must not exist")
    parser.add_argument("--method", choices=METHODS, default="gptq", help="default: gptq")
    parser.add_argument("--bits", type=int, default=4, help="2, 3, 4 or 8; awq holds 4 alone (default: 4)")
    parser.add_argument("--group", type=int, default=64, help="weights that share a scale (default: 64)")
    parser.add_argument("--layout", choices=("gptq", "gptq_v2", "awq"), default="gptq_v2", help="default: gptq_v2")


def run(args: argparse.Namespace) -> int:
    """Quantize, write, and say what became of the bytes. InputError, before any work, for what cannot be written."""
    from labcore.formats.quantized_folder import check_bits
    from labcore.model.checkpoints import fetch
    from labcore.model.loader import load_model, open_checkpoint
    from labcore.quant import corpus, methods, windows
    from labcore.quant.apply import bits_per_weight, stored_bytes
    from labcore.quant.baseline import baseline
    from labcore.quant.calibrate import linears
    from labcore.quant.checkpoint import save_quantized
    from labcore.quant.spec import QuantSpec

    check_bits(args.layout, args.bits)
    spec = QuantSpec(args.bits, args.group)
    _check_out(args.out)
    path = baseline() if args.checkpoint == "baseline" else fetch(args.checkpoint)
    if not path.is_dir():
        raise InputError(f"{args.checkpoint} is a GGUF file, quantized already; give a folder of safetensors")
    checkpoint = open_checkpoint(path)
    if "quantization_config" in checkpoint.folder.config:
        raise InputError(f"{args.checkpoint} is quantized already, as its config.json says; give a folder in float")
    model = load_model(checkpoint, progress=True)
    for linear in linears(model).values():
        spec.group_size(linear.in_features)  # refuses a group that does not divide before any work is done
    before, _ = stored_bytes(model)
    print(f"quantizing {len(linears(model))} linears with {args.method} to {args.bits} bits ...", file=sys.stderr)
    if args.method == "rtn":
        methods.rtn(model, spec)
    else:
        length = min(LENGTH, checkpoint.config.context)
        rows = windows.cut(checkpoint.tokenizer().encode(corpus.text("calibration")), length, WINDOWS)
        if args.method == "gptq":
            methods.gptq_model(model, rows, spec, order="act", groups="static")
        else:
            methods.awq_model(model, rows, spec)
    written = save_quantized(model, path, args.out, args.layout)
    after, whole = stored_bytes(model)
    print(
        f"{written}: linears {before / 1e6:.2f} MB in 16 bits, now {after / 1e6:.2f} MB "
        f"({bits_per_weight(model):.2f} bits a weight); the whole model {whole / 1e6:.2f} MB"
    )
    return 0


def _check_out(out: Path) -> None:
    """InputError for a folder that is there already or that cannot be made."""
    check_creatable(out, "--out")
    if out.exists():
        raise InputError(f"--out {out} is there already; name a folder that is not")
