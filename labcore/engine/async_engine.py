"""The engine for servers: requests come and go while it steps, in one thread of its own.

    async with AsyncEngine(core) as engine:
        async for progress in engine.generate(request): ...

Everything that touches the engine core happens in that thread, between two steps; the event loop never waits for a
step. A consumer that goes away (its task is cancelled, its iterator closed) aborts its request. What waits is bounded:
beyond `max_requests` unfinished ones a new request is refused at once, and a request's undelivered progress is at most
its max_tokens.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor

from labcore.core.errors import InputError
from labcore.core.request import Request
from labcore.engine.answer import Progress
from labcore.engine.engine_core import EngineCore


class Overloaded(RuntimeError):
    """The engine has as many unfinished requests as it may have; try again later."""


class AsyncEngine:
    """Serves `core`, which nobody else may touch meanwhile, inside `async with`."""

    def __init__(self, core: EngineCore, max_requests: int = 1024):
        if max_requests < 1:
            raise InputError(f"max_requests={max_requests}: must be 1 or more")
        self.core, self.max_requests = core, max_requests
        self._inboxes: dict[str, asyncio.Queue[Progress]] = {}  # of every unfinished request
        # the same as the engine's thread knows it: an id may come again while a step runs
        self._served: dict[str, asyncio.Queue[Progress]] = {}
        self._commands: deque[Callable[[], None]] = deque()  # to be called in the thread, before its next step
        self._wake = asyncio.Event()
        self._task: asyncio.Task | None = None
        self._failed = False

    async def __aenter__(self) -> AsyncEngine:
        self._thread = ThreadPoolExecutor(1, "engine")
        self._task = asyncio.create_task(self._serve())
        return self

    async def __aexit__(self, *exception) -> None:
        """Abort what is unfinished, and wait for the step that runs."""
        names = list(self._inboxes)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._drain_and_abort, names)
        self._thread.shutdown()
        self._end_all("the engine was shut down", "abort")

    @property
    def num_unfinished(self) -> int:
        return len(self._inboxes)

    async def generate(self, request: Request) -> AsyncIterator[Progress]:
        """The progress of a request, token by token; the last one has a finish_reason.

        Raises Overloaded, or InputError for a request that can never be served, before anything of it runs.
        """
        if self._task is None or self._task.done() or self._failed:
            raise RuntimeError("the engine is not running; use it inside `async with`")
        name = request.request_id
        if name in self._inboxes:
            raise InputError(f"request {name!r} is being served already; give every request an id of its own")
        if len(self._inboxes) >= self.max_requests:
            raise Overloaded(f"{len(self._inboxes)} requests are unfinished, as many as may be; try again later")
        inbox = self._inboxes[name] = asyncio.Queue()

        def add() -> None:
            self.core.add_request(request)
            self._served[name] = inbox

        try:
            await self._in_thread(add)
            while True:
                progress = await inbox.get()
                if progress.finish_reason is not None:
                    self._leave(name, inbox)
                    yield progress
                    return
                yield progress
        finally:
            if self._leave(name, inbox):  # the consumer went away, or the request was refused
                self._command(lambda: self._abort(name))

    def _leave(self, name: str, inbox: asyncio.Queue) -> bool:
        """Give up the id, unless it belongs to another request by now; whether it was this one's."""
        mine = self._inboxes.get(name) is inbox
        if mine:
            del self._inboxes[name]
        return mine

    def abort(self, request_id: str) -> None:
        """End a request; its consumer gets a last progress with finish_reason "abort"."""
        inbox = self._inboxes.pop(request_id, None)
        if inbox is not None:
            self._command(lambda: self._abort(request_id))
            inbox.put_nowait(Progress(request_id, None, finish_reason="abort"))

    def _command(self, call: Callable[[], None]) -> None:
        self._commands.append(call)
        self._wake.set()

    async def _in_thread(self, call: Callable[[], object]) -> None:
        """Call before the next step, in the engine's thread; raises what it raises."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def run() -> None:
            try:
                call()
            except Exception as error:
                loop.call_soon_threadsafe(_settle, done, error)
            else:
                loop.call_soon_threadsafe(_settle, done, None)

        self._command(run)
        await done

    async def _serve(self) -> None:
        """Step while there is anything to do; hand out what comes of it."""
        loop = asyncio.get_running_loop()
        busy = False
        while True:
            if not busy:
                await self._wake.wait()
            self._wake.clear()
            try:
                busy, progress = await asyncio.shield(loop.run_in_executor(self._thread, self._step))
            except Exception as error:
                self._failed = True  # nobody joins from now on; whoever is about to is answered by the commands
                try:
                    await loop.run_in_executor(self._thread, self._drain_and_abort, list(self._inboxes))
                finally:
                    self._end_all(f"the engine stopped: {type(error).__name__}: {error}", "error")
                raise
            for inbox, one in progress:
                inbox.put_nowait(one)

    def _step(self) -> tuple[bool, list[tuple[asyncio.Queue, Progress]]]:
        """In the thread: what was asked for meanwhile, then one step. Also, whether anything is left to do."""
        while self._commands:
            self._commands.popleft()()
        progress = self.core.step() if self.core.has_unfinished_requests() else []
        return self.core.has_unfinished_requests(), [(self._inbox(one), one) for one in progress]

    def _inbox(self, one: Progress) -> asyncio.Queue:
        """In the thread: where this goes, the request's own even if its id has come again meanwhile."""
        return self._served[one.request_id] if one.finish_reason is None else self._served.pop(one.request_id)

    def _abort(self, name: str) -> None:
        """In the thread: end the request that has this id there."""
        self.core.abort([name])
        self._served.pop(name, None)

    def _drain_and_abort(self, names: list[str]) -> None:
        """In the thread, when the engine has broken or is left: answer whoever still asks, and end all of `names`."""
        while self._commands:
            self._commands.popleft()()
        self.core.abort(names)

    def _end_all(self, why: str, reason: str) -> None:
        """Tell every consumer that no more will come."""
        for name, inbox in list(self._inboxes.items()):
            inbox.put_nowait(Progress(name, None, finish_reason=reason, error=why))


def _settle(future: asyncio.Future, error: Exception | None) -> None:
    if not future.done():  # whoever waited may have gone
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
