"""Run the authors' GPTQ and AWQ on `reference_runs.layer` and record what they answer.

    python tests/quant/make_reference_runs.py GPTQ_CLONE AWQ_CLONE

with clones of IST-DASLab/gptq and mit-han-lab/llm-awq. Their CUDA calls are stubbed, nothing else is changed.
"""

import ast
import contextlib
import io
import json
import subprocess
import sys
import types
from pathlib import Path

import torch

from labcore.quant.reference_runs import BLOCK, GROUP, layer
from labcore.quant.reference_runs import __file__ as target

RUNS = [
    {"bits": 4, "group": None, "symmetric": False, "order": "none", "groups": "reference"},
    {"bits": 4, "group": None, "symmetric": True, "order": "none", "groups": "reference"},
    {"bits": 3, "group": GROUP, "symmetric": False, "order": "none", "groups": "reference"},
    {"bits": 4, "group": GROUP, "symmetric": False, "order": "act", "groups": "reference"},
    {"bits": 4, "group": GROUP, "symmetric": False, "order": "act", "groups": "static"},
    {"bits": 3, "group": None, "symmetric": False, "order": "act", "groups": "reference"},
]


def gptq_runs(clone: Path) -> list[dict]:
    torch.cuda.synchronize = lambda *_: None
    sys.modules["transformers"] = types.SimpleNamespace(Conv1D=type(None))
    sys.path.insert(0, str(clone))
    with contextlib.redirect_stdout(io.StringIO()):
        import gptq
        import quant
    found = []
    for run in RUNS:
        w, x = layer()
        linear = torch.nn.Linear(w.shape[1], w.shape[0], bias=False)
        linear.weight.data = w.clone()
        theirs = gptq.GPTQ(linear)
        theirs.quantizer = quant.Quantizer()
        theirs.quantizer.configure(run["bits"], perchannel=True, sym=run["symmetric"], mse=False)
        theirs.add_batch(x[None], None)
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            theirs.fasterquant(
                blocksize=BLOCK,
                groupsize=run["group"] or -1,
                actorder=run["order"] == "act",
                static_groups=run["groups"] == "static",
            )
        loss = float(next(line for line in said.getvalue().splitlines() if line.startswith("error")).split()[1])
        found.append(run | {"loss": loss, "weight": [[float(f"{v:.7g}") for v in r] for r in linear.weight.tolist()]})
    return found


def awq_run(clone: Path) -> dict:
    """Their search of one linear's scale, cut out of the function it is nested in, and their clipping."""
    folder = clone / "awq" / "quantize"
    scope: dict = {"torch": torch, "nn": torch.nn, "gc": __import__("gc")}
    exec(_functions(folder / "quantizer.py", "pseudo_quantize_tensor"), scope)
    exec(_functions(folder / "auto_scale.py", "get_act_scale", "_search_module_scale"), scope)
    exec(_functions(folder / "auto_clip.py", "auto_clip_layer"), scope)
    torch.cuda.empty_cache = lambda: None
    scope["w_quantize_func"] = lambda w: scope["pseudo_quantize_tensor"](w, n_bit=3, q_group_size=GROUP)
    w, x = layer()
    linear = torch.nn.Linear(w.shape[1], w.shape[0], bias=False).requires_grad_(False)
    linear.weight.data = w.clone()
    curve: list[float] = []
    scope["history_sink"] = curve
    scale = scope["_search_module_scale"](linear, [linear], x)
    padded = torch.cat([w] * 64)[:64]  # their clipping takes rows by 64; the layer is repeated
    limit = scope["auto_clip_layer"](padded, x, n_bit=3, q_config={"q_group_size": GROUP}, n_sample_token=len(x))
    return {"bits": 3, "curve": curve, "scale": scale.tolist(), "limit": limit[: len(w), :, 0].tolist()}


def _functions(path: Path, *names: str) -> str:
    """The source of the named functions, wherever they are nested; the search is made to hand out its history."""
    text, found = path.read_text(), []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name in names:
            found.append(ast.unparse(node).replace("history.append(loss)", "history_sink.append(loss)"))
    return "\n".join(found)


def main(gptq_clone: str, awq_clone: str) -> None:
    commits = {
        name: subprocess.run(["git", "-C", clone, "rev-parse", "HEAD"], capture_output=True, text=True).stdout[:7]
        for name, clone in (("IST-DASLab/gptq", gptq_clone), ("mit-han-lab/llm-awq", awq_clone))
    }
    runs = {"sources": commits, "gptq": gptq_runs(Path(gptq_clone)), "awq": awq_run(Path(awq_clone))}
    Path(target).with_suffix(".json").write_text(json.dumps(runs) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
