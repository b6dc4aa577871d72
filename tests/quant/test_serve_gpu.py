"""Quantized layers on the Triton path: what a GPU computes from the codes is what the dequantized layer computes."""

from contextlib import nullcontext

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from labcore.core.errors import InputError  # noqa: E402
from labcore.kernels._interpreter import bf16_shim  # noqa: E402
from labcore.kernels.w4_linear import W4Linear  # noqa: E402
from labcore.kernels.w4_weight import repack  # noqa: E402
from labcore.model.gguf_export import export_gguf  # noqa: E402
from labcore.model.loader import load_model, open_checkpoint  # noqa: E402
from labcore.quant import methods, windows  # noqa: E402
from labcore.quant.apply import bits_per_weight, install  # noqa: E402
from labcore.quant.baseline import baseline  # noqa: E402
from labcore.quant.calibrate import linears  # noqa: E402
from labcore.quant.checkpoint import load_quantized, save_quantized  # noqa: E402
from labcore.quant.rtn import quantize_weight  # noqa: E402
from labcore.quant.serve import gpu_layer, serve, serve_q4_0  # noqa: E402
from labcore.quant.spec import QuantSpec  # noqa: E402
from tests.model.tiny import tiny_model  # noqa: E402
from tests.quant.layers import weight  # noqa: E402
from tests.quant.test_checkpoint import folder  # noqa: E402, F401

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def interpreted():
    """Without a GPU, the interpreter with bf16 put right."""
    with bf16_shim() if DEVICE == "cpu" else nullcontext():
        yield


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("spec", "tokens"), [(QuantSpec(4, 64, True), 1), (QuantSpec(3, 32), 5)])
def test_a_layer_computes_what_its_dequantized_weight_does(spec, tokens, dtype):
    stored = quantize_weight(weight(24, 128, dtype=torch.float32), spec).stored()
    bias, x = torch.arange(24.0), torch.randn(tokens, 128, generator=torch.Generator().manual_seed(0)).to(dtype)
    layer = W4Linear(repack(stored.group_codes()), bias).to(DEVICE)
    expected = torch.nn.functional.linear(x.double(), stored.dequantize().double(), bias.double())
    found = layer(x.to(DEVICE))
    assert found.dtype == dtype
    assert (found.double().cpu() - expected).abs().max() <= 4 * torch.finfo(dtype).eps * expected.abs().max()


def test_a_cast_of_the_model_leaves_the_scales_as_they_are():
    stored = quantize_weight(weight(8, 64, dtype=torch.float32), QuantSpec(4, 32)).stored()
    layer = W4Linear(repack(stored.group_codes())).to(torch.bfloat16)
    assert layer.stored.scale.dtype == torch.float16 and torch.equal(layer.stored.dequantize(), stored.dequantize())


def test_a_model_served_from_its_codes_says_what_it_said():
    model = tiny_model(hidden=64, head_dim=16, intermediate=128)
    rows = torch.randint(0, 257, (2, 5), generator=torch.Generator().manual_seed(0))
    methods.rtn(model, QuantSpec(4, 32))
    install(model, {name: layer.stored.stored() for name, layer in linears(model).items()})  # scales as fp16 keeps them
    with torch.no_grad():
        expected = windows.logits(model, rows)
        paths = serve(model.to(DEVICE), "triton")
        found = windows.logits(model, rows.to(DEVICE)).cpu()
    assert dict(paths) == {"w4a16": 14} and all(isinstance(layer, W4Linear) for layer in linears(model).values())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert bits_per_weight(model) == 4 + 32 / 32  # a group's scale and zero in four bytes
    assert serve(model, "triton") == {}, "served layers are left alone"


@pytest.mark.parametrize(
    ("layout", "change"),
    [
        ("gptq", lambda model, rows: methods.gptq_model(model, rows, QuantSpec(4, 32), order="act")),
        ("awq", lambda model, rows: methods.awq_model(model, rows, QuantSpec(4, 32))),
    ],
)
def test_a_checkpoint_is_loaded_into_the_layers(folder, tmp_path, layout, change):  # noqa: F811
    model, rows = load_model(open_checkpoint(folder)), torch.randint(0, 257, (4, 17))
    change(model, rows)
    loaded = load_quantized(save_quantized(model, folder, tmp_path / "codes", layout))
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    name = "layers.1.mlp.up_proj"
    with torch.no_grad():
        expected, exact = linears(loaded)[name](x), {n: layer.weight for n, layer in linears(loaded).items()}
        assert serve(loaded.to(DEVICE), "triton") == {"w4a16": 14}
        found = linears(loaded)[name](x.to(DEVICE)).cpu()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(layer.stored.dequantize().cpu(), exact[n]) for n, layer in linears(loaded).items())


def test_q4_0_blocks_of_a_gguf_file_stay_codes(tmp_path):
    path = export_gguf(baseline(), tmp_path / "q4_0.gguf", lambda name: "Q8_0" if "embd" in name else "Q4_0")
    checkpoint = open_checkpoint(path)
    model = load_model(checkpoint, transform=serve_q4_0).to(DEVICE)
    layers = linears(model)
    assert layers and all(isinstance(layer, W4Linear) for layer in layers.values())
    for name in list(layers)[:7]:
        assert torch.equal(layers[name].stored.dequantize().cpu(), checkpoint.tensor(f"{name}.weight")), name
    name = "layers.0.self_attn.q_proj"
    x = torch.randn(2, checkpoint.config.hidden, generator=torch.Generator().manual_seed(0))
    expected = x @ checkpoint.tensor(f"{name}.weight").t()
    torch.testing.assert_close(layers[name](x.to(DEVICE)).cpu(), expected, rtol=1e-4, atol=1e-4)


def test_files_without_q4_0_are_named(tmp_path):
    path = export_gguf(baseline(), tmp_path / "q8_0.gguf", lambda name: "Q8_0")
    with pytest.raises(InputError, match="stores its projections as Q8_0; the 4-bit GPU layer reads Q4_0"):
        load_model(open_checkpoint(path), transform=serve_q4_0)
    with pytest.raises(InputError, match="reads a GGUF file"):
        load_model(open_checkpoint(baseline()), transform=serve_q4_0)


def test_what_has_no_kernel_is_a_plain_linear():
    w, bias = weight(8, 48, dtype=torch.float32), torch.arange(8.0)
    for spec in (QuantSpec(8, 16), QuantSpec(4, 24)):
        stored = quantize_weight(w, spec).stored()
        layer = gpu_layer(stored, bias, torch.empty(0, dtype=torch.float64))
        assert layer.path == "dequantized" and torch.equal(layer.weight, stored.dequantize().double())
        assert torch.equal(layer(torch.zeros(1, 48).double()), bias[None].double())


def test_unknown_backends_are_named():
    with pytest.raises(InputError, match="backend='gpu': choose 'auto', 'cpu' or 'triton'"):
        serve(tiny_model(), "gpu")
