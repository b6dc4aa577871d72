"""The judge of caches: what it reports is what its definition says, and a worse cache is seen to be worse."""

import math

import pytest

torch = pytest.importorskip("torch")

from labcore.core.errors import InputError  # noqa: E402
from labcore.kv.contiguous import ContiguousKVCache, Extension  # noqa: E402
from labcore.model.cache_quality import Haystack, Needle, compare, decode, haystack, prose, recall, texts  # noqa: E402
from labcore.model.cache_variants import VARIANTS, exact  # noqa: E402
from labcore.model.cache_variants_lossy import LOSSY, low_rank  # noqa: E402
from tests.model.tiny import tiny_model, tiny_tokenizer  # noqa: E402

IDS = [7, 3, 250, 19, 4, 4, 101, 33, 8, 90, 3, 12]


class Noisy(ContiguousKVCache):
    """A cache that is wrong by a known amount: every value it is given is scaled."""

    def __init__(self, *args, factor: float, **kwargs):
        super().__init__(*args, **kwargs)
        self.factor = factor

    def extend(self, new_tokens):
        return NoisyExtension(self, super().extend(new_tokens).spans)


class NoisyExtension(Extension):
    def __call__(self, layer, q, k, v):
        return super().__call__(layer, q, k, self.cache.factor * v)


def noisy(model, factor: float) -> Noisy:
    config = model.config
    return Noisy(config.n_layers, config.n_kv_heads, config.head_dim, slots=1, capacity=len(IDS), factor=factor)


def whole(model, cache, ids=IDS):
    """Log-probabilities [tokens, vocab] of one pass."""
    attend = cache.extend([(0, len(ids))])
    return model(torch.tensor(ids), attend.positions, attend).double().log_softmax(-1)


def test_decoding_side_by_side_is_decoding_alone_and_is_one_pass():
    model = tiny_model()
    caches = [exact(model, len(IDS)), noisy(model, 1.3)]
    together = torch.stack(list(decode(model, caches, IDS)))
    for i, cache in enumerate([exact(model, len(IDS)), noisy(model, 1.3)]):
        alone = torch.cat(list(decode(model, [cache], IDS)))
        torch.testing.assert_close(together[:, i], alone, rtol=1e-5, atol=1e-5)
        cache.truncate(0, 0)
        torch.testing.assert_close(alone.double().log_softmax(-1), whole(model, cache), rtol=1e-4, atol=1e-4)
    assert caches[0].lengths == caches[1].lengths == [len(IDS)]


@pytest.mark.parametrize("first", [1, 5, len(IDS) - 1])
def test_quality_is_its_definition(first):
    model = tiny_model()
    p, q = whole(model, exact(model, len(IDS))), whole(model, noisy(model, 1.5))
    scored = range(first, len(IDS))
    kl = [sum(math.exp(a) * (a - b) for a, b in zip(p[i - 1].tolist(), q[i - 1].tolist(), strict=True)) for i in scored]
    perplexity = [math.exp(-sum(logp[i - 1, IDS[i]].item() for i in scored) / len(scored)) for logp in (q, p)]
    top1 = sum(int(p[i - 1].argmax() == q[i - 1].argmax()) for i in scored) / len(scored)

    found = compare(model, exact(model, len(IDS)), {"noisy": noisy(model, 1.5)}, IDS, first)["noisy"]
    assert found.scored == len(scored)
    assert [found.perplexity, found.exact_perplexity] == pytest.approx(perplexity, rel=1e-5)
    assert [found.kl_mean, found.kl_max] == pytest.approx([sum(kl) / len(kl), max(kl)], rel=1e-3, abs=1e-7)
    assert found.top1 == pytest.approx(top1)
    assert min(kl) > 1e-5, "a distortion that leaves no trace would test nothing"


def test_the_exact_cache_beside_itself_loses_nothing_and_a_worse_cache_loses_more():
    model = tiny_model()
    caches = {"exact": exact(model, len(IDS)), "mild": noisy(model, 1.02), "bad": noisy(model, 2)}
    found = compare(model, exact(model, len(IDS)), caches, IDS)
    assert found["exact"].kl_max < 1e-6 and found["exact"].top1 == 1
    assert found["exact"].perplexity == pytest.approx(found["exact"].exact_perplexity, rel=1e-6)
    assert 1e-7 < found["mild"].kl_mean < found["bad"].kl_mean / 10


@pytest.mark.parametrize("first", [0, len(IDS)])
def test_a_text_with_nothing_to_score_is_refused(first):
    model = tiny_model()
    with pytest.raises(InputError, match=f"first={first}: .* the end of 12 tokens"):
        compare(model, exact(model, len(IDS)), {}, IDS, first)


def test_recall_is_its_definition():
    """The answers are what the exact cache says greedily, so it finds them; a cache that is wrong does not."""
    model = tiny_model(seed=1)
    ids = IDS[:6]
    for _ in range(4):
        ids = [*ids, int(whole(model, exact(model, 10), ids)[-1].argmax())]
    hay = Haystack(ids, [Needle("a", 2, 6, 8), Needle("b", 4, 8, 10)])
    found = recall(model, {"exact": exact(model, 10), "bad": noisy(model, -3)}, hay)
    assert [one.name for one in found["exact"]] == ["a", "b"]
    assert all(one.found for one in found["exact"]) and not all(one.found for one in found["bad"])
    for name, cache in (("exact", exact(model, 10)), ("bad", noisy(model, -3))):
        logp = whole(model, cache, ids)
        for one, (begin, end) in zip(found[name], [(6, 8), (8, 10)], strict=True):
            assert one.probability == pytest.approx(
                math.exp(sum(logp[i - 1, ids[i]].item() for i in (begin, begin + 1)) / (end - begin)), rel=1e-3
            )


def test_the_haystack_holds_each_fact_once_and_asks_for_it_behind():
    tokenizer = tiny_tokenizer()  # a token a byte, so token indices are character indices
    hay, data = haystack(tokenizer), texts()
    text = tokenizer.decode(hay.ids)
    questions = min(needle.begin for needle in hay.needles) - len("\n\n" + data["question"])
    for needle, row in zip(hay.needles, data["needle"], strict=True):
        fact, answer = data["fact"].format(**row), tokenizer.decode(hay.ids[needle.begin : needle.end])
        assert answer == row["key"] and text.count(fact.removesuffix(".")) == 2
        assert text[: needle.hidden].endswith(fact) and needle.hidden < questions
        assert text[: needle.begin].endswith("\n\n" + data["question"].format(**row))
    assert text.count(" ".join(data["filler"].split(". ")[:1])) == 1
    assert "public domain" in data["licence"] and data["source"]


def test_the_real_model_finds_every_needle_with_the_whole_cache(model, tokenizer):
    hay = haystack(tokenizer)
    attend = exact(model, len(hay.ids)).extend([(0, len(hay.ids))])
    wanted = torch.tensor([i - 1 for needle in hay.needles for i in range(needle.begin, needle.end)])
    with torch.inference_mode():
        said = model(torch.tensor(hay.ids), attend.positions, attend, wanted=wanted).argmax(-1)
    assert said.tolist() == [hay.ids[i + 1] for i in wanted]
    assert 480 < len(hay.ids) < 500 and 590 < len(prose(tokenizer)) < 620


@pytest.fixture(scope="module")
def variants(model, tokenizer):
    return VARIANTS | LOSSY | low_rank(model, tokenizer.encode(texts()["calibration"])[:64])


def test_every_judged_cache_decodes_and_weighs_what_its_formula_says(variants, model, tokenizer):
    capacity = 300  # more than any budget, and no whole number of pages
    caches = {name: variant.make(model, capacity) for name, variant in variants.items()}
    wrong = {name: (cache.nbytes, variants[name].nbytes(model, capacity)) for name, cache in caches.items()}
    assert not {name: sizes for name, sizes in wrong.items() if sizes[0] != sizes[1]}
    for logits in decode(model, list(caches.values()), prose(tokenizer)[:3]):
        assert logits.shape == (len(caches), model.config.vocab) and logits.isfinite().all()
