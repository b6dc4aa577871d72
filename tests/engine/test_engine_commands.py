"""`labcore generate` and the engine's part of `labcore doctor`."""

import io
import re
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from labcore.cli import main  # noqa: E402
from labcore.engine import doctor, report  # noqa: E402


@pytest.fixture(autouse=True)
def _known_bandwidth(monkeypatch):
    """Measuring memory takes seconds and its figure is not the point here."""
    monkeypatch.setattr(report.Machine, "measured", lambda model: report.Machine(100e9, 1e12))


@pytest.mark.model
@pytest.mark.parametrize("option", ["--stream", "--no-stream"])
def test_generate_answers_and_reports_its_rates(smollm2_path, capsys, option):
    code = main(["generate", "What is the capital of France?", "--model", str(smollm2_path), "--device", "cpu", option])
    out, err = capsys.readouterr()
    assert code == 0 and out == "The capital of France is Paris.\n"
    assert "tokens/s" in err and "of 100.0 GB/s" in err and "of measured bandwidth" in err
    assert re.search(r"steps?, .* GB and .* GFLOP: \d+% of the roofline; the rest: .*sample \d+%", err)
    shares = re.search(r"linear (\d+)%, attention (\d+)%, other (\d+)%", err)
    assert shares and 97 <= sum(map(int, shares.groups())) <= 103


@pytest.mark.model
def test_raw_continues_the_text_and_reads_standard_input(smollm2_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("The capital of France is"))
    assert main(["generate", "-", "--raw", "--model", str(smollm2_path), "--max-tokens", "1"]) == 0
    assert capsys.readouterr().out == " Paris\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x", "--temperature", "-1"], "labcore generate: temperature=-1.0: must be a finite number, 0 or more\n"),
        (["x", "--max-tokens", "0"], "labcore generate: max_tokens=0: must be an integer, 1 or more\n"),
        (["x", "--threads", "0"], "labcore generate: --threads 0 is not between 1 and "),
        (["x", "--threads", "100000"], "labcore generate: --threads 100000 is not between 1 and "),
        (["x", "--model", "nope"], "labcore generate: no model 'nope': "),
    ],
)
def test_bad_options_are_one_sentence_and_exit_2(capsys, arguments, message):
    assert main(["generate", *arguments]) == 2
    assert capsys.readouterr().err.startswith(message)


@pytest.mark.model
def test_doctor_finds_the_model_whole_and_answering(smollm2_path):
    found = {finding.subject: finding for finding in doctor.findings()}
    assert found["model"].fix is None and "whole" in found["model"].detail
    assert found["generation"].fix is None and "Paris" in found["generation"].detail


def test_doctor_tells_how_to_get_what_is_missing_or_damaged(tmp_path, monkeypatch):
    monkeypatch.setenv("LABCORE_CACHE", str(tmp_path))
    kernels, absent = doctor.findings()
    assert kernels.subject == "cpu kernels"
    assert "not in the cache (93 MB" in absent.detail and absent.fix == 'labcore generate "Hello"'
    path = doctor.cached_path(doctor.NAME)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"GGUF")
    _, damaged = doctor.findings()
    assert "is damaged" in damaged.detail and damaged.fix.startswith(f"rm '{path}'")


BARE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        if root in {"transformers", "tokenizers", "safetensors", "regex", "jinja2", "huggingface_hub", "gguf", "yaml",
                    "pydantic", "matplotlib", "ipywidgets", "scipy", "psutil"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=root)
sys.meta_path.insert(0, Refuse())
import labcore
assert "torch" not in sys.modules, "importing labcore pulls in torch"
from labcore import LLM, SamplingParams
llm = LLM(sys.argv[1], progress=False)
print(llm.chat([{"role": "user", "content": "What is the capital of France?"}],
               SamplingParams(temperature=0, max_tokens=20))[0].outputs[0].text)
assert "torch._dynamo" not in sys.modules, "loading pulls in torch's compiler: two seconds"
"""


@pytest.mark.model
def test_torch_and_numpy_are_enough(smollm2_path):
    done = subprocess.run([sys.executable, "-c", BARE, str(smollm2_path)], capture_output=True, text=True, timeout=120)
    assert done.stdout == "The capital of France is Paris.\n", done.stderr
