"""A server of completions on this machine, behind which a tiny network is, and what may be wrong with such servers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from torch import nn

from limbeck.data.text import CharacterTokenizer


@dataclass
class Served:
    """How the server behaves, and what it was asked.

    broken: so many first requests are answered with status 503. slow: seconds before each answer. fewer: log-probabilities it
    tells at most. as_ids: whether tokens are told by their ids. echo: whether it tells of prompts. key: what it wants.
    shifted: whether its tokenizer is another. long: whether its answers never end.
    """

    network: nn.Module
    tokenizer: CharacterTokenizer
    broken: int = 0
    slow: float = 0.0
    fewer: int = 1000
    as_ids: bool = True
    echo: bool = True
    key: str | None = None
    shifted: bool = False
    long: bool = False
    asked: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    @torch.no_grad()
    def logits(self, tokens: list[int]) -> torch.Tensor:
        return self.network(input_ids=torch.tensor([tokens])).logits[0].float()

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        if isinstance(body["prompt"], list):
            return self.scored(body["prompt"], body["logprobs"])
        return self.answer(body["prompt"], body)

    def answer(self, prompt: str, body: dict[str, Any]) -> dict[str, Any]:
        tokens = self.tokenizer.encode(prompt)
        written: list[int] = []
        while len(written) < body["max_tokens"]:
            token = int(self.logits([*tokens, *written])[-1].argmax())
            if token == self.tokenizer.eos_token_id and not self.long:
                return {"text": self.tokenizer.decode(written, skip_special_tokens=True), "finish_reason": "stop"}
            written.append(token)
        return {"text": self.tokenizer.decode(written, skip_special_tokens=True), "finish_reason": "length"}

    def scored(self, tokens: list[int], count: int) -> dict[str, Any]:
        if not self.echo:
            return {"text": "", "logprobs": None, "finish_reason": "length"}
        # A table may be longer than the tokenizer is.
        top = (
            self.logits(tokens)[:, : len(self.tokenizer)]
            .log_softmax(-1)
            .topk(min(count, self.fewer, len(self.tokenizer)))
        )
        told = [
            {self.name(int(token)): float(value) for token, value in zip(*row, strict=True)}
            for row in zip(top.indices, top.values, strict=True)
        ]
        named = [self.name(token + self.shifted) for token in tokens]
        # As of vLLM: nothing at the first token, and one that is written at the end.
        return {"text": "", "logprobs": {"tokens": [*named, named[0]], "top_logprobs": [None, *told]}}

    def name(self, token: int) -> str:
        return f"token_id:{token}" if self.as_ids else self.tokenizer.decode([token])


@contextmanager
def serving(served: Served) -> Iterator[Served]:
    """The server, on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.asked.append({"path": self.path, "key": self.headers.get("Authorization"), **body})
            time.sleep(served.slow)
            if served.key is not None and self.headers.get("Authorization") != f"Bearer {served.key}":
                self.reply(401, {"error": {"message": "no such key"}})
            elif len(served.asked) <= served.broken:
                self.reply(503, {"error": {"message": "starting"}})
            else:
                choice = served.complete(body) if self.path.endswith("/v1/completions") else chatted(served, body)
                self.reply(200, {"choices": [choice]})

        def reply(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except (BrokenPipeError, ConnectionResetError):
                pass  # nobody waits for it any more

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def chatted(served: Served, body: dict[str, Any]) -> dict[str, Any]:
    found = served.answer(body["messages"][-1]["content"], body)
    return {"message": {"role": "assistant", "content": found["text"]}, "finish_reason": found["finish_reason"]}
