"""An endpoint of a test's own, which gives the answers of a list."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def reply(text: Any, tokens: int = 10) -> dict[str, Any]:
    """A chat completion."""
    return {"choices": [{"message": {"content": text}}], "usage": {"total_tokens": tokens}}


class Server(ThreadingHTTPServer):
    """Gives the next answer of a list (status, content, headers), and the last one for ever; remembers what came."""

    daemon_threads = True
    answers: list[Any]
    asked: list[dict[str, Any]]
    released: threading.Event

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.asked.append({"path": self.path, "key": self.headers["Authorization"], **body})
        answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
        if answer == "slow":
            server.released.wait(20)
            return
        status, content, headers = (*answer, {})[:3]
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        if status == "trickle":  # the head at once, and the content byte by byte until the test ends
            self.send_response(200)
            self.end_headers()
            while not server.released.wait(0.02):
                try:
                    self.wfile.write(b" ")
                except OSError:
                    return
            return
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass
