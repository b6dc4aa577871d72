"""Committed workloads: the figures chapters quote, and the same again from the raw traces where they are."""

import gzip
import hashlib
import json

import numpy as np
import pytest

from labcore import facts
from labcore.core.errors import DataError, FetchError, InputError
from labcore.core.files import data_dir
from labcore.facts import derive
from labcore.facts.lookup import FOLDER, read_toml

ROWS = read_toml("workloads.toml")


@pytest.fixture
def traces():
    folder = data_dir()
    if folder is None:
        pytest.skip("LABCORE_DATA is not set: the raw traces are not here")
    return folder


def test_paging_on_azure_conversation():
    lengths = facts.workload("azure-2023-conv").lengths
    assert lengths.count == 19_366
    assert [f"{lengths.tail_waste(size):.3g}" for size in (16, 64, 256)] == ["7.47", "30.8", "119"]
    assert [f"{100 * lengths.utilization(size):.4g}" for size in (16, 64, 256)] == ["99.46", "97.79", "91.98"]


QUANTILES = [
    ("azure-2023-conv", 19_366, [1020, 2734, 4142], [129, 424, 601]),
    ("azure-2023-code", 8_819, [1469, 5187, 7436], [13, 55, 251]),
]


@pytest.mark.parametrize(("id", "count", "prompt", "output"), QUANTILES)
def test_quantiles(id, count, prompt, output):
    load = facts.workload(id)
    assert load.count == load.prompt.count == load.output.count == count
    assert [int(load.prompt.quantile(q)) for q in (0.5, 0.9, 0.99)] == prompt
    assert [int(load.output.quantile(q)) for q in (0.5, 0.9, 0.99)] == output


def test_mooncake_prompts_are_long():
    load = facts.workload("mooncake-conversation")
    assert (load.count, round(load.prompt.mean), round(load.output.mean)) == (12_031, 12_035, 343)


@pytest.mark.parametrize("id", facts.workload_ids())
def test_every_workload_is_complete_and_small(id):
    load = facts.workload(id)
    assert load.licence and load.cite and len(load.sha256) == 64
    assert (FOLDER / "workloads" / f"{id}.json").stat().st_size < 20_000
    if "total" in load.histograms:
        assert load.lengths.total == load.prompt.total + load.output.total
    else:
        assert load.prompt.mean > 0 and load.output.mean > 0


def test_prompts_and_answers_published_apart_have_no_totals():
    with pytest.raises(DataError, match=r"servegen-deepseek-r1: .* published separately"):
        _ = facts.workload("servegen-deepseek-r1").lengths


def test_bias_is_flagged():
    assert [id for id in facts.workload_ids() if facts.workload(id).biased] == ["servegen-m-large"]
    assert facts.workload("servegen-m-large").note.startswith("BIASED")


def test_an_unknown_id_names_close_ones():
    with pytest.raises(InputError, match="did you mean azure-2023-conv"):
        facts.workload("azure-conv")


def test_the_index_and_the_files_agree():
    assert set(ROWS) == set(facts.workload_ids())


@pytest.mark.parametrize("id", sorted(ROWS))
def test_derived_again_from_the_raw_trace(id, traces):
    again = derive.derive(ROWS[id], traces)
    committed = json.loads((FOLDER / "workloads" / f"{id}.json").read_text())
    histograms, ours = again.pop("histograms"), committed.pop("histograms")
    assert again == committed
    for name, stored in histograms.items():  # compressed text may differ between zlib versions, lengths may not
        if isinstance(stored, str):
            there, here = facts.Lengths.decode(stored), facts.Lengths.decode(ours[name])
            assert (there.values == here.values).all() and (there.counts == here.counts).all()
        else:
            assert stored["edges"] == ours[name]["edges"]
            np.testing.assert_allclose(stored["shares"], ours[name]["shares"], rtol=1e-6)


@pytest.fixture
def folder_with_a_trace(tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"TIMESTAMP,In,Out\n0,10,1\n1,10,2\n2,30,3\n"))
    return tmp_path


BY_HAND = {"name": "A", "source": "here", "as_of": "2026", "licence": "CC0", "cite": "x", "format": "csv"}
BY_HAND |= {"file": "a.csv.gz", "columns": ["In", "Out"]}


def test_deriving_by_hand(folder_with_a_trace):
    row = derive.derive(BY_HAND, folder_with_a_trace)
    content = gzip.decompress((folder_with_a_trace / "a.csv.gz").read_bytes())
    assert (row["count"], row["sha256"]) == (3, hashlib.sha256(content).hexdigest())
    decoded = {name: facts.Lengths.decode(text).all().tolist() for name, text in row["histograms"].items()}
    assert decoded == {"prompt": [10, 10, 30], "output": [1, 2, 3], "total": [11, 12, 33]}


def test_a_missing_trace_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"a\.csv\.gz: cannot be read"):
        derive.derive(BY_HAND, tmp_path)


def test_servegen_windows_are_weighted_by_their_requests():
    rates = b"model,t_s,rate_rps,active_clients\nm,0,3,1\nm,21600,1,1\nother,0,99,1\n"
    shares = b"field,t_s,bin_lo,prob,request_share_covered\n"
    shares += b"input_tokens,0,4,1.0,1\ninput_tokens,21600,8,1.0,1\noutput_tokens,0,4,1,1\noutput_tokens,21600,4,1,1\n"
    count, histograms = derive.from_servegen(shares, rates, "m")
    assert count == 600 * (3 + 1)
    prompt = histograms["prompt"]
    assert dict(zip(prompt["edges"], prompt["shares"], strict=False))[4] == 0.75
    assert dict(zip(prompt["edges"], prompt["shares"], strict=False))[8] == 0.25
    assert prompt["edges"][-2:] == [8, 10]


def test_download_is_pinned_and_checked(monkeypatch, tmp_path):
    load = facts.workload("azure-2023-conv")
    assert "/b469a113cedca53ddc3bdea71a143dc4b7d8700c/" in load.url
    asked = {}
    monkeypatch.setenv("LABCORE_CACHE", str(tmp_path))
    monkeypatch.setattr("labcore.facts.workloads.fetch_url", lambda *a: asked.update(args=a) or a[1])
    assert load.download() == tmp_path / "traces" / "AzureLLMInferenceTrace_conv.csv"
    assert asked["args"][::2] == (load.url, load.sha256)


def test_download_of_what_is_not_published_says_so():
    with pytest.raises(DataError, match=r"servegen-m-large: not published as one file"):
        facts.workload("servegen-m-large").download()


def test_download_without_network_is_one_sentence(monkeypatch, tmp_path):
    import urllib.error
    import urllib.request

    def unreachable(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("LABCORE_CACHE", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(FetchError, match=r"cannot reach .*check the network"):
        facts.workload("azure-2023-code").download()
    assert not list(tmp_path.rglob("*.csv*"))
