"""The async engine: the same answers, whoever comes and goes; nothing waits without bound, nothing is left behind."""

import asyncio
import threading

import pytest

torch = pytest.importorskip("torch")

from labcore.core.errors import InputError  # noqa: E402
from labcore.core.request import Request  # noqa: E402
from labcore.core.sampling_params import SamplingParams  # noqa: E402
from labcore.engine.async_engine import AsyncEngine, Overloaded  # noqa: E402
from labcore.engine.build import assemble  # noqa: E402
from labcore.engine.check import check_empty  # noqa: E402
from tests.model.tiny import tiny_model, tiny_tokenizer  # noqa: E402

MODEL = tiny_model(head_dim=16)


def new_core(**options):
    return assemble(MODEL, tiny_tokenizer(), **({"num_blocks": 40, "block_size": 4, "max_num_seqs": 4} | options))


def request(number: int, prompt_length: int = 6, **options) -> Request:
    params = SamplingParams(**({"seed": number, "max_tokens": 12, "ignore_eos": True} | options))
    return Request(f"r{number}", [number % 250 + 1] * prompt_length, params)


def alone(one: Request) -> list[int]:
    core = new_core()
    core.add_request(one)
    while core.has_unfinished_requests():
        core.step()
    return one.output_token_ids


async def tokens(engine: AsyncEngine, one: Request, delay: float = 0.0) -> list[int]:
    if delay:
        await asyncio.sleep(delay)
    got = [progress async for progress in engine.generate(one)]
    assert [progress.finish_reason for progress in got] == [None] * (len(got) - 1) + ["length"]
    return [progress.token_id for progress in got]


def whole(core) -> bool:
    """Nothing of any request is left, once the runner has heard of the last ones."""
    core.step()
    check_empty(core.scheduler)
    return not (core.answers or core.runner.generators or core.runner.batch.rows)


def test_concurrent_requests_get_the_answers_they_get_alone():
    core = new_core()

    async def run():
        async with AsyncEngine(core) as engine:
            return await asyncio.gather(*(tokens(engine, request(i), delay=0.002 * i) for i in range(12)))

    assert asyncio.run(run()) == [alone(request(i)) for i in range(12)]
    assert whole(core)


def test_a_consumer_that_goes_away_aborts_its_request_and_no_other():
    core = new_core()

    async def run():
        async with AsyncEngine(core) as engine:
            other = asyncio.create_task(tokens(engine, request(1, max_tokens=30)))
            stream = engine.generate(request(2, max_tokens=40))
            await anext(stream)
            await stream.aclose()
            waiting = asyncio.create_task(tokens(engine, request(3, max_tokens=40)))
            await asyncio.sleep(0)
            waiting.cancel()
            got = await other
            assert engine.num_unfinished == 0
            return got

    assert asyncio.run(run()) == alone(request(1, max_tokens=30))
    assert whole(core)


def test_abort_tells_the_consumer():
    core = new_core()

    async def run():
        async with AsyncEngine(core) as engine:
            stream = engine.generate(request(1, max_tokens=40))
            await anext(stream)
            engine.abort("r1")
            engine.abort("nobody")
            return [progress async for progress in stream][-1]

    last = asyncio.run(run())
    assert (last.token_id, last.finish_reason) == (None, "abort") and whole(core)


def test_more_requests_than_may_wait_are_refused_at_once():
    async def run():
        async with AsyncEngine(new_core(), max_requests=2) as engine:
            first = [asyncio.create_task(tokens(engine, request(i))) for i in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(Overloaded, match="2 requests are unfinished, as many as may be"):
                await anext(engine.generate(request(2)))
            await asyncio.gather(*first)
            return await tokens(engine, request(2))

    assert asyncio.run(run()) == alone(request(2))


def test_a_request_that_cannot_be_served_is_refused_and_its_place_is_free():
    async def run():
        async with AsyncEngine(new_core(num_blocks=5), max_requests=1) as engine:
            for bad in (request(1, prompt_length=40), request(2, prompt_length=16)):
                with pytest.raises(InputError):
                    await anext(engine.generate(bad))
            return await tokens(engine, request(3, max_tokens=4))

    assert len(asyncio.run(run())) == 4


def test_two_requests_of_one_name_are_refused():
    async def run():
        async with AsyncEngine(new_core()) as engine:
            first = asyncio.create_task(tokens(engine, request(1)))
            await asyncio.sleep(0)
            with pytest.raises(InputError, match="request 'r1' is being served already"):
                await anext(engine.generate(request(1)))
            await first

    asyncio.run(run())


def test_leaving_ends_every_stream():
    core = new_core()

    async def run():
        async with AsyncEngine(core) as engine:
            stream = engine.generate(request(1, max_tokens=40))
            await anext(stream)
        return [progress async for progress in stream][-1]

    last = asyncio.run(run())
    assert last.finish_reason == "abort" and last.error == "the engine was shut down" and whole(core)


def test_an_engine_outside_its_block_says_so():
    with pytest.raises(RuntimeError, match="use it inside `async with`"):
        asyncio.run(anext(AsyncEngine(new_core()).generate(request(1))))


def test_a_broken_engine_ends_every_stream_with_the_reason(monkeypatch):
    core = new_core()
    monkeypatch.setattr(core, "step", lambda: 1 / 0)

    async def run():
        async with AsyncEngine(core) as engine:
            got = [progress async for progress in engine.generate(request(1))]
            with pytest.raises(RuntimeError, match="not running"):
                await anext(engine.generate(request(2)))
            return got

    (last,) = asyncio.run(run())
    assert last.finish_reason == "error" and "the engine stopped: ZeroDivisionError" in last.error


def test_the_event_loop_never_waits_for_a_step(monkeypatch):
    core, release = new_core(), threading.Event()
    step = core.step
    monkeypatch.setattr(core, "step", lambda: release.wait(10) and step())

    async def run():
        async with AsyncEngine(core) as engine:
            task = asyncio.create_task(tokens(engine, request(1, max_tokens=2)))
            for _ in range(100):  # the loop turns while the first step is stuck
                await asyncio.sleep(0)
            assert not task.done()
            release.set()
            return await task

    assert len(asyncio.run(run())) == 2


def held_step(core, monkeypatch, number: int = 2):
    """Step `number` ends, and is not handed out before `go` is set; `there` tells that it waits."""
    there, go, step, count = threading.Event(), threading.Event(), core.step, iter(range(1, 1000))

    def wrapped():
        progress = step()
        if next(count) == number:
            there.set()
            go.wait(10)
        return progress

    monkeypatch.setattr(core, "step", wrapped)
    return there, go


async def until(event: threading.Event) -> None:
    while not event.is_set():
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("how", ["cancelled", "aborted"])
def test_an_id_that_comes_again_during_a_step_gets_no_token_of_the_request_before_it(monkeypatch, how):
    core = new_core()
    there, go = held_step(core, monkeypatch)
    again = Request("r1", [200] * 6, SamplingParams(seed=7, max_tokens=5, ignore_eos=True))

    async def run():
        async with AsyncEngine(core) as engine:
            old = asyncio.create_task(tokens(engine, request(1, max_tokens=40)))
            await until(there)
            old.cancel() if how == "cancelled" else engine.abort("r1")
            if how == "cancelled":
                await asyncio.gather(old, return_exceptions=True)
            new = asyncio.create_task(tokens(engine, again))
            await asyncio.sleep(0.01)
            go.set()
            got = await asyncio.wait_for(new, 10)
            await asyncio.gather(old, return_exceptions=True)
            return got

    got = asyncio.run(run())
    assert got == alone(Request("r1", [200] * 6, SamplingParams(seed=7, max_tokens=5, ignore_eos=True)))
    assert whole(core)


def test_who_arrives_while_the_engine_breaks_is_told_so(monkeypatch):
    core = new_core()
    there, go = threading.Event(), threading.Event()

    def breaks():
        there.set()
        go.wait(10)
        raise OSError("the device is gone")

    monkeypatch.setattr(core, "step", breaks)

    async def run():
        async with AsyncEngine(core) as engine:
            first = asyncio.create_task(anext(engine.generate(request(1))))
            await until(there)
            second = asyncio.create_task(anext(engine.generate(request(2))))
            await asyncio.sleep(0.01)
            go.set()
            return await asyncio.wait_for(asyncio.gather(first, second), 10)

    for last in asyncio.run(run()):
        assert last.finish_reason == "error" and "the engine stopped: OSError: the device is gone" in last.error
