"""Captured steps without a GPU: a "capture" that runs the step again, over the same buffers, into the same logits."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

import numpy as np  # noqa: E402
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from labcore.attention.triton_backend import TritonAttention  # noqa: E402
from labcore.attention.upload import Packed, upload  # noqa: E402
from labcore.core.request import Request  # noqa: E402
from labcore.core.sampling_params import SamplingParams  # noqa: E402
from labcore.engine.build import assemble, new_storage  # noqa: E402
from labcore.engine.config import CacheConfig, SchedulerConfig  # noqa: E402
from labcore.engine.cuda_graphs import SHORTEST, GraphKey, length_bucket, row_buckets  # noqa: E402
from labcore.engine.device_runner import DeviceRunner  # noqa: E402
from labcore.engine.overlap import OverlappedEngine  # noqa: E402
from labcore.engine.scheduler import Scheduler  # noqa: E402
from labcore.kernels.splits import choose_splits  # noqa: E402
from labcore.model.fused import fused  # noqa: E402
from tests.model.tiny import tiny_model  # noqa: E402

MODEL = tiny_model(head_dim=16)
PROMPTS, LENGTHS = [[1, 2, 3], [4, 5, 6, 7, 8, 9], [7]], [3, 5, 2]


class Rerun:
    """A capture for the CPU. replays: how often each was repeated."""

    def __init__(self):
        self.replays = []

    def __call__(self, step):
        logits, place = step(), len(self.replays)
        self.replays.append(0)

        def replay():
            logits.copy_(step())
            self.replays[place] += 1

        return logits, replay


def engine(**options):
    limits = SchedulerConfig(max_num_seqs=3, max_model_len=48, async_scheduling=True, **options)
    cache = CacheConfig(num_blocks=40, block_size=4)
    capture = Rerun()
    storage = new_storage(MODEL, cache)
    storage.keys[:, 1:], storage.values[:, 1:] = torch.nan, torch.nan  # nobody may read what nobody wrote
    runner = DeviceRunner(fused(MODEL), storage, limits, cache, TritonAttention, graphs=True, capture=capture)
    return OverlappedEngine(Scheduler(limits, cache), runner), capture


def serve(core, prompts=PROMPTS, lengths=LENGTHS):
    requests = [
        Request(str(i), prompt, SamplingParams(temperature=0, max_tokens=length, ignore_eos=True))
        for i, (prompt, length) in enumerate(zip(prompts, lengths, strict=True))
    ]
    for request in requests:
        core.add_request(request)
    while core.has_unfinished_requests():
        core.step()
    return [request.output_token_ids for request in requests]


def test_replayed_steps_give_the_same_answers_and_padding_writes_nowhere():
    """Everything at once, interpreted: fused layers, Triton attention, the sampling kernel, replays, overlap."""
    expected = serve(assemble(MODEL, num_blocks=40, block_size=4))
    core, capture = engine()
    assert serve(core) == expected
    assert {key.rows for key in core.runner.graphs.graphs} == {1, 2, 3}  # as the requests ended
    assert sum(capture.replays) == len([step for step in core.stats.steps if step.decode])
    storage = core.runner.storage
    assert not storage.keys[:, 0].any() and not storage.values[:, 0].any()  # the null block


def test_every_choice_a_kernel_makes_on_the_host_is_in_the_key():
    """Two steps with one key split their keys alike: rows and max_seq_len are all that choose_splits is given."""
    core, _ = engine()
    graphs = core.runner.graphs
    for requests in (1, 2, 3):
        for longest in (1, 40, 48):
            key = graphs.key(requests, longest)
            assert key == GraphKey(requests, 48)
    assert choose_splits(8, 512, 132) != choose_splits(8, 8192, 132)  # so the length has to be in it
    assert choose_splits(8, 8192, 132) != choose_splits(128, 8192, 132)  # and so have the rows


@torch.inference_mode()
def test_capturing_leaves_no_trace():
    core, capture = engine()
    first, second = (core.runner.graphs.graph(GraphKey(rows, 48)) for rows in (2, 1))
    assert len(capture.replays) == 2 and not core.runner.newest[:-1].any()
    assert core.runner.storage.keys[:, 1:].isnan().all()
    serve(core, PROMPTS[:2], [2, 2])
    assert capture.replays == [1, 0]  # and steps use what is there
    assert [first, second] == [*core.runner.graphs.graphs.values()]
    assert first.logits.data_ptr() == second.logits.data_ptr(), "every graph keeps logits of its own"


@given(most=st.integers(1, 1000))
def test_row_buckets_cover_every_batch_with_little_padding(most):
    buckets = row_buckets(most)
    assert buckets == sorted(set(buckets)) and buckets[0] == 1 and buckets[-1] == most
    for requests in range(1, most + 1):
        bucket = next(size for size in buckets if size >= requests)
        assert bucket < 2 * requests and (requests <= 48 or bucket <= 1.5 * requests)


@given(longest=st.integers(1, 40_000), most=st.integers(2, 40_000))
def test_length_buckets(longest, most):
    longest = min(longest, most)
    bucket = length_bucket(longest, most)
    assert longest <= bucket <= most
    assert bucket in (SHORTEST, most) or bucket < 2 * longest
    assert [length_bucket(edge, 4096) for edge in (1, 512, 513, 1024, 1025)] == [512, 512, 1024, 1024, 2048]


arrays = st.dictionaries(
    st.sampled_from("abcdef"),
    st.tuples(st.sampled_from([np.int64, np.int32, np.float32]), st.lists(st.integers(0, 5), min_size=1, max_size=2)),
    min_size=1,
)


@given(arrays)
def test_packed_arrays_arrive_and_smaller_ones_are_padded(kinds):
    there = {name: (tuple(size + 2 for size in shape), dtype) for name, (dtype, shape) in kinds.items()}
    packed = Packed(there, torch.device("cpu"))
    sent = {
        name: np.arange(1, np.prod(shape) + 1).reshape(shape).astype(dtype) for name, (dtype, shape) in kinds.items()
    }
    for _ in range(2):  # the second time over what the first left
        found = packed.send(sent, dict.fromkeys(sent, -1))
        for name, array in sent.items():
            whole = np.full(there[name][0], -1, array.dtype)
            whole[tuple(map(slice, array.shape))] = array
            assert found[name].dtype == torch.from_numpy(array).dtype
            assert found[name].tolist() == whole.tolist() and found[name].data_ptr() % 4 == 0
    assert {name: one.tolist() for name, one in upload(sent, "cpu").items()} == {k: v.tolist() for k, v in sent.items()}
