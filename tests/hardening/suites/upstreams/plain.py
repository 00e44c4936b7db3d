"""The server of Python's standard library, with a handler that reads bodies to their end."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

port, log = int(sys.argv[1]), open(sys.argv[2], "a", buffering=1)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __getattr__(self, name):
        # Any method.
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def answer(self):
        log.write(f"200 {self.command} {self.path} {self.request_version}\n")
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
                self.rfile.read(size + 2)
            while self.rfile.readline() not in (b"\r\n", b"\n", b""):
                pass
        else:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("X-Seen", self.path)
        self.send_header("Content-Length", "6")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"hello\n")

    def send_error(self, code, message=None, explain=None):
        log.write(f"400 {message} {self.raw_requestline!r}\n")
        super().send_error(code, message, explain)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, request, client_address):
        # A connection that breaks off.
        pass


Server(("127.0.0.1", port), Handler).serve_forever()
