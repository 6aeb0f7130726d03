"""OpenVINO GenAI's continuous-batching pipeline behind an OpenAI-compatible server.

One thread steps the pipeline; the other serves /v1/models, /v1/completions and
/v1/chat/completions (streamed, with usage), and what Plimsoll asks for beside: /plimsoll/engine
(version, settings, limits) and /plimsoll/steps (what each step computed, and how long it took).

The pipeline tells how many requests it scheduled in a step, not how many tokens of which. These
follow from its rules (sequences that decode get a token each, then prompts in order of arrival as
far as `max_num_batched_tokens` goes) and from which request delivered a token; a step whose count
differs from the pipeline's own is left out and counted at `steps_unsure`.
"""

import argparse
import asyncio
import collections
import json
import os
import queue
import threading
import time

import numpy as np
import openvino
import openvino_genai as genai

STEPS_KEPT = 100_000


class Request:
    """A request, from the server's side and from the engine's."""

    def __init__(self, ids, output, loop):
        self.ids, self.output = ids, output
        self.loop, self.told = loop, asyncio.Queue()
        self.handle, self.computed, self.delivered = None, 0, 0
        self.left = False

    def tell(self, tokens, done):
        self.loop.call_soon_threadsafe(self.told.put_nowait, (tokens, done))


class Engine(threading.Thread):
    """Steps the pipeline whenever there is something to do."""

    def __init__(self, options):
        super().__init__(daemon=True, name="engine")
        self.options = options
        config = genai.SchedulerConfig()
        config.max_num_batched_tokens = options.step_tokens_max
        config.max_num_seqs = options.seats
        config.num_kv_blocks = options.kv_blocks
        config.dynamic_split_fuse = True
        config.enable_prefix_caching = False
        properties = {
            "INFERENCE_NUM_THREADS": options.threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "KV_CACHE_PRECISION": "f32",
        }
        self.pipeline = genai.ContinuousBatchingPipeline(
            options.model, config, "CPU", properties
        )
        self.tokenizer = self.pipeline.get_tokenizer()
        self.inbox = queue.SimpleQueue()
        self.running = []
        self.numbers = 0
        self.steps, self.steps_made, self.steps_unsure = collections.deque(), 0, 0
        self.lock = threading.Lock()
        # When the step before ended, if there was more to do then: what lies between two steps is
        # time of the second.
        self.ended = None
        # Whether tokens of a step go out that is not written down yet.
        self.telling = False
        # Set once the tokens of the latest step have gone out.
        self.flushed = threading.Event()

    def run(self):
        while True:
            self.take_in()
            if self.pipeline.has_non_finished_requests():
                self.step()

    def take_in(self):
        """New requests; waits for one where there is nothing else to do."""
        block = not self.running
        if block:
            self.ended = None
        while True:
            try:
                request = self.inbox.get(block=block)
            except queue.Empty:
                return
            block = False
            config = genai.GenerationConfig()
            config.max_new_tokens = request.output
            config.ignore_eos = True
            ids = openvino.Tensor(np.array([request.ids], dtype=np.int64))
            self.numbers += 1
            request.handle = self.pipeline.add_request(self.numbers, ids, config)
            self.running.append(request)

    def step(self):
        start = self.ended or time.monotonic_ns()
        self.pipeline.step()
        # Tokens go out before the step is over: requests that come meanwhile are in the next.
        delivered, self.telling = time.monotonic_ns(), True
        row = self.tell()
        end = self.ended = time.monotonic_ns()
        with self.lock:
            self.steps_made += 1
            self.steps.append((start, end, *row, delivered))
            while len(self.steps) > STEPS_KEPT:
                self.steps.popleft()
        self.telling = False

    def tell(self):
        """Lets the tokens of a step out; returns what it computed."""
        sequences = context = prefill = pairs = scheduled = 0
        budget = self.options.step_tokens_max
        delivered, prompts = [], []
        for request in self.running:
            tokens = []
            if request.handle.can_read():
                for output in request.handle.read().values():
                    tokens = list(output.generated_ids)
            if tokens and request.delivered:
                sequences += 1
                context += len(request.ids) + request.delivered - 1
            elif not request.delivered:
                prompts.append((request, bool(tokens)))
            delivered.append((request, tokens))
        budget -= sequences
        scheduled = sequences
        for request, is_done in prompts:
            rest = len(request.ids) - request.computed
            chunk = rest if is_done else max(0, min(rest - 1, budget))
            if chunk <= 0:
                continue
            pairs += chunk * request.computed + chunk * (chunk + 1) // 2
            request.computed += chunk
            prefill += chunk
            budget -= chunk
            scheduled += 1
        sure = scheduled == self.pipeline.get_metrics().scheduled_requests
        if not sure:
            self.steps_unsure += 1
            prefill = pairs = sequences = context = 0
        for request, tokens in delivered:
            request.delivered += len(tokens)
            done = request.delivered >= request.output
            if tokens:
                request.tell(tokens, done)
            if done:
                self.running.remove(request)
            elif request.left:
                request.handle.stop()
                self.running.remove(request)
        self.flush(delivered)
        return prefill, pairs, sequences, context

    def flush(self, delivered):
        """Lets the other thread send what was told: a step holds the interpreter to its end."""
        loops = {request.loop for request, tokens in delivered if tokens}
        for loop in loops:
            self.flushed.clear()
            # A request's own task runs in the turn after the one in which it is told, and sends.
            then = lambda: loop.call_soon(loop.call_soon, self.flushed.set)
            loop.call_soon_threadsafe(then)
            self.flushed.wait(0.05)

    def told_steps(self, after):
        with self.lock:
            first = self.steps_made - len(self.steps)
            skipped = max(0, after - first)
            kept = list(self.steps)[skipped:] if skipped < len(self.steps) else []
            return {
                "now_ns": time.monotonic_ns(),
                "first": first + skipped,
                "steps": kept,
                "unsure": self.steps_unsure,
            }

    def described(self):
        options = self.options
        return {
            "engine": "openvino-genai",
            "version": genai.__version__,
            "flags": {
                "dynamic_split_fuse": True,
                "enable_prefix_caching": False,
                "inference_num_threads": options.threads,
                "inference_precision": "f32",
                "kv_cache_precision": "f32",
                "openvino": openvino.__version__,
            },
            "seats": options.seats,
            "step_tokens_max": options.step_tokens_max,
            "block_tokens": options.block_tokens,
            "kv_tokens": options.kv_blocks * options.block_tokens,
            "context_max": options.context_max,
            "steps": True,
        }


class Bad(Exception):
    """A request that makes no sense."""


class Server:
    """HTTP/1.1, as far as a client of OpenAI's API needs it."""

    def __init__(self, engine, name):
        self.engine, self.name = engine, name

    async def serve(self, reader, writer):
        try:
            while await self.exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def exchange(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ", 2)
        headers = dict(line.lower().split(":", 1) for line in head[1:] if ":" in line)
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        path, _, query = target.partition("?")
        try:
            if method == "POST" and path in ("/v1/completions", "/v1/chat/completions"):
                await self.infer(reader, writer, path, body)
            else:
                while self.engine.telling:
                    await asyncio.sleep(0.0002)
                self.look(writer, path, query)
        except Bad as bad:
            answer(writer, 400, {"error": {"message": str(bad), "code": "invalid_request"}})
        await writer.drain()
        return headers.get("connection", "").strip() != "close"

    def look(self, writer, path, query):
        if path == "/health":
            answer(writer, 200, {"status": "ok"})
        elif path == "/v1/models":
            model = {
                "id": self.name,
                "object": "model",
                "owned_by": "openvino-genai",
                "max_model_len": self.engine.options.context_max,
            }
            answer(writer, 200, {"object": "list", "data": [model]})
        elif path == "/plimsoll/engine":
            answer(writer, 200, self.engine.described())
        elif path == "/plimsoll/steps":
            after = query.partition("after=")[2]
            answer(writer, 200, self.engine.told_steps(int(after or 0)))
        else:
            answer(writer, 404, {"error": {"message": f"there is nothing at {path}"}})

    def read(self, path, body):
        try:
            body = json.loads(body)
        except ValueError as error:
            raise Bad(f"the body is no JSON: {error}") from None
        if path == "/v1/completions":
            prompt = body.get("prompt")
        else:
            prompt = "".join(str(message.get("content")) for message in body.get("messages", []))
        if isinstance(prompt, str):
            prompt = self.engine.tokenizer.encode(prompt).input_ids.data[0].tolist()
        if not prompt or not all(isinstance(token, int) and token >= 0 for token in prompt):
            raise Bad("`prompt` must be a text or a list of tokens")
        output = body.get("max_completion_tokens") or body.get("max_tokens") or 16
        if len(prompt) + output > self.engine.options.context_max:
            raise Bad(f"{len(prompt)} + {output} tokens exceed {self.engine.options.context_max}")
        return prompt, output, body.get("stream", False)

    async def infer(self, reader, writer, path, body):
        prompt, output, streams = self.read(path, body)
        request = Request(prompt, output, asyncio.get_running_loop())
        self.engine.inbox.put(request)
        chat = path != "/v1/completions"
        if streams:
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                b"transfer-encoding: chunked\r\n\r\n"
            )
        text, done = [], False
        while not done:
            tokens, done = await request.told.get()
            # A client that hangs up shows as the end of what it sends.
            if reader.at_eof():
                request.left = True
                raise ConnectionError("the client has left")
            for token in tokens:
                # Random weights say much that is no text; a token that shows nothing would look to a
                # client like none.
                piece = self.engine.tokenizer.decode([token]) or "\ufffd"
                text.append(piece)
                if streams:
                    self.send(writer, chat, [{"text": piece}])
        usage = {
            "prompt_tokens": len(prompt),
            "completion_tokens": request.delivered,
            "total_tokens": len(prompt) + request.delivered,
        }
        if streams:
            self.send(writer, chat, [{"text": "", "finish_reason": "length"}])
            self.send(writer, chat, [], usage)
            chunk(writer, b"data: [DONE]\n\n")
            writer.write(b"0\r\n\r\n")
        else:
            choice = {"index": 0, "finish_reason": "length"}
            whole = "".join(text)
            choice.update({"message": {"role": "assistant", "content": whole}} if chat else {"text": whole})
            answer(writer, 200, {"model": self.name, "choices": [choice], "usage": usage})

    def send(self, writer, chat, choices, usage=None):
        said = {"id": "cmpl", "model": self.name, "choices": []}
        for choice in choices:
            reason = choice.get("finish_reason")
            piece = {"delta": {"content": choice["text"]}} if chat else {"text": choice["text"]}
            said["choices"].append({"index": 0, "finish_reason": reason, **piece})
        if usage:
            said["usage"] = usage
        chunk(writer, b"data: " + json.dumps(said).encode() + b"\n\n")


def chunk(writer, data):
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))


def answer(writer, status, value):
    body = json.dumps(value).encode()
    reason = {200: "OK", 400: "Bad Request", 404: "Not Found"}[status]
    head = f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)


async def main(options):
    engine = Engine(options)
    engine.start()
    # The engine's threads stay on their core. What talks to clients goes where there is room: on the
    # engine's core it would wait for a step, and tokens with it.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(os.cpu_count()))
    server = Server(engine, options.name)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", options.port, limit=1 << 22)
    port = listening.sockets[0].getsockname()[1]
    print(f"listening on http://127.0.0.1:{port}", flush=True)
    async with listening:
        await listening.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--name", default="plimsoll-random")
    parser.add_argument("--port", type=int, default=8101)
    parser.add_argument("--seats", type=int, default=32)
    parser.add_argument("--step-tokens-max", type=int, default=512)
    parser.add_argument("--kv-blocks", type=int, default=1024)
    parser.add_argument("--block-tokens", type=int, default=32)
    parser.add_argument("--context-max", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=1)
    asyncio.run(main(parser.parse_args()))
