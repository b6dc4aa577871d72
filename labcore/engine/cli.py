"""`labcore generate`: one prompt, one answer, and how close to the machine's limit it was made."""

import argparse
import sys

from labcore.bench.device import check_threads
from labcore.core.sampling_params import SamplingParams

STEPS = 4  # timed decode steps a sample
HELP = "answer a prompt with a real model on this machine"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `labcore generate`."""
    parser.add_argument("prompt", help="the prompt; - reads it from standard input")
    parser.add_argument("--model", default="smollm2-135m", help="an id, a GGUF file, a safetensors folder or a hub id")
    parser.add_argument(
        "--raw", action="store_true", help="continue the text instead of answering it as a chat message"
    )
    parser.add_argument("--max-tokens", type=int, default=128, help="at most this many new tokens (default 128)")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default)")
    parser.add_argument("--top-k", type=int, default=0, help="sample among the k likeliest tokens; 0 is off (default)")
    parser.add_argument(
        "--top-p", type=float, default=1.0, help="sample within this probability mass; 1 is off (default)"
    )
    parser.add_argument("--seed", type=int, help="makes a sampled answer reproducible")
    parser.add_argument("--stop", action="append", default=[], help="end the answer before this text; may be repeated")
    parser.add_argument(
        "--quantization", choices=["gguf"], help="gguf: compute from the file's own 4-bit blocks, faster"
    )
    parser.add_argument("--speculative", metavar="METHOD", help="draft tokens, check several a pass: ngram, suffix, …")
    parser.add_argument("--device", help="a torch device; default is the GPU if there is one, else the CPU")
    parser.add_argument("--threads", type=int, help="torch threads")
    parser.add_argument(
        "--stream", action=argparse.BooleanOptionalAction, default=True, help="show the answer while it grows (default)"
    )


def run(args: argparse.Namespace) -> int:
    """Print the answer on stdout, the rates on stderr."""
    params = SamplingParams(
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        seed=args.seed,
        max_tokens=args.max_tokens,
        stop=args.stop,
    )
    import torch

    from labcore.engine.llm import LLM
    from labcore.engine.report import Cost, Machine, summary
    from labcore.model.parts import step_parts
    from labcore.model.stats import parts_line

    if args.threads is not None:
        check_threads(args.threads)
        torch.set_num_threads(args.threads)
    speculative = args.speculative and {"method": args.speculative}
    llm = LLM(args.model, device=args.device, quantization=args.quantization, speculative=speculative)
    text = sys.stdin.read() if args.prompt == "-" else args.prompt
    prompt = text if args.raw else llm.chat_prompt([{"role": "user", "content": text}])
    if args.stream:
        for delta in llm.stream(prompt, params):
            print(delta.text, end="", flush=True)
        print()
    else:
        print(llm.generate(prompt, params)[0].outputs[0].text)
    cost = Cost.of(llm.model, llm.core.runner.storage)
    print(summary(llm.stats, cost, Machine.measured(llm.model)), file=sys.stderr)
    room = llm.model.config.context - STEPS
    length = min(llm.stats.prompt_tokens + llm.stats.new_tokens // 2, room)
    ids = (llm.tokenizer.encode(prompt) * length)[:length]  # the answer's mean length
    print(parts_line(step_parts(llm.model, ids, steps=STEPS)), file=sys.stderr)
    return 0
