"""An OpenAI-compatible endpoint on this machine, for tests: `with ChatServer(answer) as server: server.url`."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    """A request as it came in; `number` counts all requests from 1, `time` is when it came in seconds."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    number: int
    time: float

    @property
    def question(self) -> str:
        return str(self.body["messages"][-1]["content"])


@dataclass(frozen=True)
class Told:
    """What the server sends: `raw` instead of the JSON of `body` where given, `seconds` after it was asked."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    seconds: float = 0.0
    hang_up: bool = False
    drip: float = 0.0


def said(text: str | None, reason: str | None = "stop", prompt: int = 10, answer: int = 5, model: str = "m-1") -> Told:
    """An answer as OpenAI writes it."""
    return Told(
        {
            "id": "x",
            "model": model,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}],
            "usage": {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer},
        }
    )


def echo(asked: Asked) -> Told:
    """Answer every question with itself."""
    return said(f"you said {asked.question}")


class ChatServer:
    """A server in a thread; `asked` holds every request, `most_at_once` how many were under way together."""

    def __init__(self, answer: Callable[[Asked], Told] = echo) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.most_at_once = self._now = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                server.handle(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> ChatServer:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            asked = Asked(handler.path, dict(handler.headers), body, len(self.asked) + 1, time.monotonic())
            self.asked.append(asked)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        told = self.answer(asked)
        time.sleep(told.seconds)
        with self._lock:
            self._now -= 1
        if told.hang_up:
            handler.close_connection = True
            return
        raw = json.dumps(told.body).encode() if told.raw is None else told.raw
        handler.send_response(told.status)
        for name, value in {"Content-Type": "application/json", **told.headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(raw)))
        handler.end_headers()
        try:
            for place in range(len(raw) if told.drip else 1):
                handler.wfile.write(raw[place : place + 1] if told.drip else raw)
                time.sleep(told.drip)
        except (BrokenPipeError, ConnectionResetError):
            handler.close_connection = True
