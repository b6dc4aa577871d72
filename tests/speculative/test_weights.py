"""Files of draft weights: what is written comes back, within the rounding of Q8_0, on both paths."""

import json

import pytest

torch = pytest.importorskip("torch")

from labcore.core.errors import DataError, InputError  # noqa: E402
from labcore.formats.gguf import GGUFFile  # noqa: E402
from labcore.model.chat import render  # noqa: E402
from labcore.model.fast import fast_path  # noqa: E402
from labcore.model.loader import load_model, open_checkpoint  # noqa: E402
from labcore.speculative.build import build_proposer  # noqa: E402
from labcore.speculative.eagle_head import EagleHead, eagle_config  # noqa: E402
from labcore.speculative.medusa import MedusaHeads  # noqa: E402
from labcore.speculative.proposer import Target  # noqa: E402
from labcore.speculative.reduced_head import ReducedHead  # noqa: E402
from labcore.speculative.tied_draft import TiedDraft, draft_config, load_tied_draft  # noqa: E402
from labcore.speculative.weights_file import WEIGHTS, Weights, write_weights  # noqa: E402
from tests.model.tiny import tiny_model  # noqa: E402
from tests.speculative.serving import answers, greedy  # noqa: E402

TARGET = tiny_model()
HEAD = ReducedHead(TARGET, torch.arange(16, 80))


def small_eagle() -> EagleHead:
    torch.manual_seed(0)
    return EagleHead(eagle_config(TARGET.config, 64), fused=True)


def test_a_file_holds_what_was_written(tmp_path):
    written = small_eagle()
    file = Weights(write_weights(tmp_path / "eagle.gguf", written, HEAD, {"losses": [2.5, 1.5]}), TARGET)
    read = file.fill(EagleHead(file.config, fused=True))
    assert file.config == written.config and file.facts["losses"] == [2.5, 1.5]
    assert torch.equal(file.head().token_ids, HEAD.token_ids)
    for name, parameter in written.named_parameters():
        stored = read.get_parameter(name)
        step = parameter.abs().max() / 127  # no scale of a block is larger
        assert torch.equal(stored, parameter) if parameter.ndim == 1 else (stored - parameter).abs().max() <= step
        assert not stored.requires_grad


def test_a_file_for_another_target_is_refused(tmp_path):
    path = write_weights(tmp_path / "heads.gguf", MedusaHeads(32, 2), HEAD, {})
    with pytest.raises(DataError, match=r"heads\.gguf: made for a target of hidden size 32 and 257 tokens; this one"):
        Weights(path, tiny_model(hidden=64))


def test_a_file_for_another_method_is_refused(tmp_path):
    modules = {
        "medusa": MedusaHeads(32, 2),
        "eagle": EagleHead(eagle_config(TARGET.config, 64), fused=False),
        "eagle3": small_eagle(),
        "draft_model": TiedDraft(draft_config(TARGET.config, hidden=32), 32),
    }
    for made_for, module in modules.items():
        path = str(write_weights(tmp_path / f"{made_for}.gguf", module, HEAD, {}))
        for method in {"medusa", "eagle", "eagle3"} - {made_for}:
            with pytest.raises(DataError, match=rf"its weights are for {made_for}, not for {method}; give"):
                build_proposer({"method": method, "weights": path}, Target(TARGET))
    with pytest.raises(DataError, match="its weights are for medusa, not for draft_model"):
        load_tied_draft(TARGET, tmp_path / "medusa.gguf")
    with pytest.raises(DataError, match="says nothing of its accuracies"):
        build_proposer({"method": "medusa", "weights": str(tmp_path / "medusa.gguf")}, Target(TARGET))
    path = write_weights(tmp_path / "other.gguf", torch.nn.Linear(32, 32), HEAD, {})
    with pytest.raises(DataError, match="for no known method, not for eagle"):
        Weights(path, TARGET, "eagle")


def test_damage_and_weights_that_are_not_finite_are_named(tmp_path):
    path = write_weights(tmp_path / "heads.gguf", MedusaHeads(32, 2), HEAD, {})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="truncated"):
        Weights(path, TARGET)
    heads = MedusaHeads(32, 1)
    heads.heads[0].inner.weight.data[3, 4] = torch.nan
    with pytest.raises(InputError, match="must be finite"):
        write_weights(tmp_path / "bad.gguf", heads, HEAD, {})
    assert not (tmp_path / "bad.gguf").exists()


def test_reduced_head_speaks_of_the_targets_tokens():
    hidden = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    full = TARGET.lm_head(hidden)
    assert torch.allclose(HEAD(hidden), full[:, 16:80], atol=1e-6)
    tokens, logprobs = HEAD.likeliest(hidden, 3)
    best = full[:, 16:80].topk(3).indices + 16
    assert torch.equal(tokens, best) and torch.equal(logprobs.argsort(descending=True), torch.arange(3).expand(5, 3))
    assert HEAD.places(torch.tensor([15, 16, 79, 80, 256])).tolist() == [-1, 0, 63, -1, -1]


def test_a_tied_draft_is_the_little_llama_it_says(tmp_path):
    """Against the formula written out: down, layers, norm, up, the head's rows."""
    torch.manual_seed(1)
    draft = TiedDraft(draft_config(TARGET.config, n_layers=2, hidden=32, intermediate=64), 32)
    path = write_weights(tmp_path / "draft.gguf", draft, HEAD, {})
    model, vocabulary = load_tied_draft(TARGET, path)
    ids, positions = torch.tensor([3, 1, 4, 1, 5]), torch.arange(5)

    def attend(_, q, k, v):
        group = q.shape[1] // k.shape[1]
        scores = torch.einsum("qhd,khd->hqk", q, k.repeat_interleave(group, 1)) / q.shape[2] ** 0.5
        weights = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf).softmax(-1)
        return torch.einsum("hqk,khd->qhd", weights, v.repeat_interleave(group, 1))

    x = model.embed_tokens.then(TARGET.embed_tokens(ids))
    for layer in model.layers:
        x = layer(x, model.rope(positions), attend)
    expected = model.lm_head.first(model.norm(x)) @ TARGET.lm_head.weight[vocabulary].T
    assert vocabulary == list(range(16, 80))
    assert torch.allclose(model(ids, positions, attend), expected, atol=1e-5)
    assert torch.equal(model.embed_tokens.then.weight, Weights(path, TARGET).tensor("down.weight"))


COMMITTED = ["medusa", "eagle", "eagle3", "draft"]


def test_committed_weights_are_small_and_say_how_they_were_made():
    files = [WEIGHTS / f"{name}.gguf" for name in COMMITTED]
    assert sum(file.stat().st_size for file in files) < 12e6
    for file in files:
        facts = json.loads(GGUFFile(file).field("draft.facts"))
        beside = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        assert {name: facts[name] for name in beside} == beside
        assert beside["losses"][-1] < 0.75 * beside["losses"][0] and beside["examples"] > 400
        ids = GGUFFile(file).field("draft.token_ids")
        assert len(ids) == 8192 and (ids[1:] > ids[:-1]).all() and ids[-1] < 49152


@pytest.mark.model
@pytest.mark.parametrize("path, names, count", [("fast", COMMITTED, 16), ("exact", ["eagle3"], 8)])
def test_the_real_model_answers_as_without_speculation_in_fewer_passes(path, names, count, smollm2_path):
    checkpoint = open_checkpoint(smollm2_path)
    tokenizer, (transform, dtype) = checkpoint.tokenizer(), fast_path()
    model = load_model(checkpoint, dtype=dtype, transform=transform) if path == "fast" else load_model(checkpoint)
    texts = ["Name three rivers in Europe.", "Write a Python function that adds two numbers."][: len(names)]
    prompts = [tokenizer.encode(render(tokenizer.chat_template, [{"role": "user", "content": one}])) for one in texts]
    params = [greedy(count)] * len(prompts)
    plain, _ = answers(prompts, params, model=model)
    for name in names:
        option = {"method": "draft_model" if name == "draft" else name}
        found, core = answers(prompts, params, model=model, speculative=option)
        assert found == plain, name
        assert core.stats.total("accepted") >= 1, name
