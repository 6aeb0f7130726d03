"""`transformers serve` with continuous batching, which also tells its steps.

The server, the scheduler, the paged memory and the kernels are transformers' own, as its command
starts them. Added are the number of seats, which its command has no option for, and what Plimsoll
asks for beside OpenAI's API: /plimsoll/engine (version, settings, limits) and /plimsoll/steps (what
each step computed, and how long it took).
"""

import argparse
import collections
import threading
import time

import torch
import transformers
from transformers.cli import serve
from transformers.cli.serving import server
from transformers.generation.continuous_batching import continuous_api, initialization

STEPS_KEPT = 100_000
# What transformers pads the tokens of a batch to where it replays graphs.
QUERIES_PADDED = 64


class Steps:
    """The latest steps, as rows of [start, end, prefill, pairs, sequences, context]."""

    def __init__(self):
        self.lock = threading.Lock()
        self.kept, self.made = collections.deque(maxlen=STEPS_KEPT), 0
        # When the step before ended, if the engine has been busy since.
        self.ended = None

    def add(self, row):
        with self.lock:
            self.kept.append(row)
            self.made += 1

    def told(self, after):
        with self.lock:
            first = self.made - len(self.kept)
            skipped = max(0, after - first)
            return {
                "now_ns": time.monotonic_ns(),
                "first": first + skipped,
                "steps": list(self.kept)[skipped:],
            }


def computed(batch):
    """What a batch computes, of requests whose tokens count as processed already."""
    prefill = pairs = sequences = context = 0
    for future in batch:
        tokens = future.query_length
        before = future.state.position_offset - tokens
        if before >= len(future.state.initial_tokens):
            sequences += 1
            context += before
        else:
            prefill += tokens
            pairs += tokens * before + tokens * (tokens + 1) // 2
    return prefill, pairs, sequences, context


def telling(steps):
    """transformers' processor of batches, with every step written down."""

    class Telling(continuous_api.ContinuousBatchProcessor):
        def prepare_next_batch(self):
            self.started = steps.ended or time.monotonic_ns()
            there = super().prepare_next_batch()
            if there:
                batch = self.inputs_and_outputs.requests_in_batch
                self.row = computed(batch)
            else:
                steps.ended = None
            return there

        def update_batch(self):
            super().update_batch()
            steps.ended = time.monotonic_ns()
            steps.add((self.started, steps.ended, *self.row))

    return Telling


def warm_up_first():
    """Has the graphs of all sizes captured before the first request."""
    create = continuous_api.ContinuousBatchingManager._create_batch_processor

    def created(self):
        processor = create(self)
        room = processor.cache.num_blocks * processor.cache.block_size
        sizes = range(QUERIES_PADDED, processor.max_batch_tokens + 1, QUERIES_PADDED)
        for tokens in reversed(sizes):
            processor.model_runner.run_one_warmup(self.model, tokens, room - tokens)
        return processor

    continuous_api.ContinuousBatchingManager._create_batch_processor = created


def main(options):
    # cuDNN's attention makes a plan for each length that it has not seen, 2 ms a layer; lengths of
    # a batch differ in every step.
    torch.backends.cuda.enable_cudnn_sdp(False)
    initialization.FALLBACK_DEFAULTS["max_requests_per_batch"] = options.seats
    steps = Steps()
    continuous_api.ContinuousBatchProcessor = telling(steps)
    if options.graphs:
        warm_up_first()
    described = {
        "engine": "transformers",
        "version": transformers.__version__,
        "flags": {
            "attention": options.attention or "default",
            "cuda_graphs": options.graphs,
            "cudnn_attention": False,
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "torch": torch.__version__,
        },
        "seats": options.seats,
        "step_tokens_max": options.step_tokens_max,
        "block_tokens": options.block_tokens,
        "kv_tokens": options.kv_blocks * options.block_tokens,
        "context_max": options.context_max,
        "steps": True,
    }
    build = server.build_server

    def built(*args, **kwargs):
        app = build(*args, **kwargs)
        app.get("/plimsoll/engine")(lambda: described)
        app.get("/plimsoll/steps")(lambda after=0: steps.told(int(after)))
        return app

    server.build_server = built
    serve.Serve(
        options.model,
        continuous_batching=True,
        attn_implementation=options.attention,
        dtype=options.dtype,
        cb_block_size=options.block_tokens,
        cb_num_blocks=options.kv_blocks,
        cb_max_batch_tokens=options.step_tokens_max,
        cb_use_cuda_graph=options.graphs,
        device=options.device,
        host="127.0.0.1",
        port=options.port,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--port", type=int, default=8103)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--attention")
    parser.add_argument("--graphs", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--seats", type=int, default=32)
    parser.add_argument("--step-tokens-max", type=int, default=512)
    # All of it is read in every step where graphs are replayed.
    parser.add_argument("--kv-blocks", type=int, default=64)
    parser.add_argument("--block-tokens", type=int, default=256)
    parser.add_argument("--context-max", type=int, default=8192)
    main(parser.parse_args())
