"""Layers that compute from codes, the search for large activations, and the table that is read twice."""

import dataclasses

import pytest

torch = pytest.importorskip("torch")

from labcore.bench.record import RunBuilder  # noqa: E402
from labcore.core.errors import InputError  # noqa: E402
from labcore.formats.blocks import dequantize  # noqa: E402
from labcore.kernels.cpu.library import why_unavailable  # noqa: E402
from labcore.quant import bench, methods, outliers, table, windows  # noqa: E402
from labcore.quant.gptq import gptq, hessian  # noqa: E402
from labcore.quant.rtn import quantize_weight  # noqa: E402
from labcore.quant.serve import blocks, serve  # noqa: E402
from labcore.quant.spec import QuantSpec  # noqa: E402
from labcore.quant.variants import variants  # noqa: E402
from tests.model.tiny import tiny_model  # noqa: E402
from tests.quant.layers import inputs, weight  # noqa: E402


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", [32, 64, None])
def test_four_bit_codes_are_ggml_blocks(symmetric, group):
    w = weight(16, 128, dtype=torch.float32)
    stored = quantize_weight(w, QuantSpec(4, group, symmetric)).stored()
    raw, format = blocks(stored)
    assert format.name == ("Q4_0" if symmetric else "Q4_1") and raw.shape == (16, 4 * format.layout.itemsize)
    found, exact = torch.from_numpy(dequantize(raw, format)), stored.dequantize()
    if symmetric:
        assert torch.equal(found, exact)
    else:  # the minimum -scale · zero is rounded to fp16
        assert ((found - exact).abs() <= 15 * stored.scale.max() * 2**-11).all()


def test_what_is_no_block_is_refused():
    w = weight(8, 96, dtype=torch.float32)
    for spec in (QuantSpec(3, 32), QuantSpec(4, 24)):
        with pytest.raises(InputError, match="blocks hold 4 bits and 32 neighbours"):
            blocks(quantize_weight(w, spec))
    h = hessian(inputs(100, 96, dtype=torch.float32))
    with pytest.raises(InputError, match="in act-order"):
        blocks(gptq(w, h, QuantSpec(4, 32), order="act").weight)


@pytest.mark.parametrize(("spec", "path"), [(QuantSpec(4, 32), "blocks"), (QuantSpec(8, 32), "int8")])
def test_a_model_served_from_its_codes_says_what_it_said(spec, path):
    if path == "blocks" and (why := why_unavailable()):
        pytest.skip(f"the compiled kernels cannot run here: {why}")
    model = tiny_model(hidden=64, head_dim=16, intermediate=96)
    rows = torch.randint(0, 257, (2, 9), generator=torch.Generator().manual_seed(0))
    methods.rtn(model, spec)
    with torch.no_grad():
        expected = windows.logits(model, rows)
        paths = serve(model)
        found = windows.logits(model, rows)
    assert dict(paths) == {path: 14}
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)
    assert serve(model) == {}, "served layers are left alone"


def test_massive_activations_are_found_where_they_are_planted():
    model = tiny_model(intermediate=64)
    quiet = torch.randint(1, 200, (3, 12), generator=torch.Generator().manual_seed(0))
    assert outliers.massive_activations(model, quiet) == []
    model.embed_tokens.weight.data *= 0.01
    model.embed_tokens.weight.data[7, 5] = 400.0
    quiet[1, 4] = 7
    found = outliers.massive_activations(model, quiet)
    assert {(one.layer, one.window, one.position, one.channel) for one in found} == {(0, 1, 4, 5), (1, 1, 4, 5)}
    assert all(one.value == pytest.approx(400, abs=10) and one.times_median > 1000 for one in found)


def test_channel_profiles_and_the_salient_channels():
    model = tiny_model()
    model.layers[0].input_layernorm.weight.data[9] = 30.0
    rows = torch.randint(0, 257, (3, 12), generator=torch.Generator().manual_seed(0))
    profile = outliers.channel_profiles(model, rows)["layers.0.self_attn.k_proj"]
    assert outliers.salient(profile.absmean, 0.03).tolist() == [9] and profile.absmax.argmax() == 9
    assert profile.outliers == 1 / 32 and profile.spread > 10
    w, spec = weight(8, 32, dtype=torch.float32), QuantSpec(3, 16)
    kept = outliers.rounded_but(w, spec, torch.tensor([9]))
    assert torch.equal(kept[:, 9], w[:, 9]) and not torch.equal(kept[:, 8], w[:, 8])
    with pytest.raises(InputError, match="share=0"):
        outliers.salient(profile.absmean, 0)


# --- the table -------------------------------------------------------------------------------------------------------


class TinyLaboratory(table.Laboratory):
    """A tiny model and random text instead of a checkpoint."""

    judged = 0

    def __init__(self, subject):
        self.subject, self.model, self._reference = subject, tiny_model(hidden=64, head_dim=16, intermediate=64), None
        draw = torch.Generator().manual_seed(0)
        self.calibration, self.rows = (torch.randint(0, 257, (4, 17), generator=draw) for _ in range(2))

    def judge(self, *variant):
        TinyLaboratory.judged += 1
        return super().judge(*variant)


@pytest.fixture
def subject(monkeypatch, tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    monkeypatch.setenv("LABCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(table, "Laboratory", TinyLaboratory)
    monkeypatch.setattr(TinyLaboratory, "judged", 0)
    return table.Subject("tiny", "made up", lambda: folder, 4, 4)


def test_every_variant_of_the_table_runs_and_weighs_what_its_name_says(subject):
    chosen = [name for name in variants() if not name.endswith("_k." + name.rpartition(".")[2])]  # 256 wide
    rows = {entry.name: entry for entry in table.entries(subject, chosen, say=lambda _: None)}
    assert list(rows) == ["float", *chosen] and TinyLaboratory.judged == len(rows)
    assert rows["float"].kl < 1e-9 and rows["float"].bits_per_weight == 16 and rows["float"].swapped == 0
    for name in chosen:
        bits = int(name.rpartition(".")[2])
        assert rows[name].swapped == 14, name
        assert bits <= rows[name].bits_per_weight < bits + 5, name  # a codebook a row is dear in rows of 64
        assert 0 < rows[name].kl < 1 and rows[name].low < rows[name].perplexity < rows[name].high, name
    assert rows["rtn.2"].kl > rows["rtn.3"].kl > rows["rtn.4"].kl > rows["rtn.8"].kl


def test_a_stopped_table_goes_on_where_it_stopped(subject):
    rows = table.entries(subject, ["rtn.4", "nf4.4"], say=lambda _: None)
    first = [next(rows), next(rows)]
    assert TinyLaboratory.judged == 2
    again = list(table.entries(subject, ["rtn.4", "nf4.4"], say=lambda _: None))
    assert TinyLaboratory.judged == 3 and again[:2] == first
    (subject.path() / "config.json").write_text('{"another": 1}')
    list(table.entries(subject, ["rtn.4"], say=lambda _: None))
    assert TinyLaboratory.judged == 5, "another checkpoint is judged anew"


def test_unknown_methods_are_named_and_nothing_is_written(subject, tmp_path, capsys):
    with pytest.raises(InputError, match=r"no method 'gpq.4'; the methods are int8-channel.8, .*gptq.4"):
        list(table.entries(subject, ["gpq.4"]))
    assert not (tmp_path / "cache" / "quant").exists()
    assert table.main(["--methods", "gpq.4"]) == 2
    said = capsys.readouterr()
    assert (
        said.out == "" and said.err.startswith("labcore.quant.table: no method 'gpq.4'") and said.err.count("\n") == 1
    )


def test_rows_of_the_recorded_run(subject, monkeypatch):
    monkeypatch.setattr(bench, "_layers", lambda _: 2)
    run = RunBuilder("cpu", 1, [])
    entries = list(table.entries(subject, ["rtn.4"], say=lambda _: None))
    for entry in entries:
        bench.table_row(run, subject, entry)
    bench.gptq_row(run)
    bench.awq_row(run)
    rows = {row["key"]: row for row in run.rows}
    assert list(rows) == ["quant.tiny.float", "quant.tiny.rtn.4", "quant.gptq.loss", "quant.awq.loss"]
    assert all(row["correct"]["pass"] for row in run.rows)
    assert rows["quant.gptq.loss"]["met"] == rows["quant.awq.loss"]["met"] == "must"
    assert rows["quant.tiny.rtn.4"]["bytes"] == entries[1].linear_bytes
    broken = dataclasses.replace(entries[1], name="other.4", swapped=13)
    bench.table_row(run, subject, broken)
    assert not run.rows[-1]["correct"]["pass"]
