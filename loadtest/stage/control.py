"""The port by which scripts have things done that happen to a cluster: POST /store/stop, /store/start, /store/flush,
/reload, /reload/broken, /drain/0; GET /store/keys, /memory. Each answers when it is done."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .local import Stage


class Control:
    def __init__(self, stage: Stage):
        acts = {
            "/store/stop": lambda: stage.redis.stop(),
            "/store/start": lambda: stage.redis.start(),
            "/store/flush": lambda: stage.redis.flush(),
            "/store/keys": lambda: stage.redis.keys(),
            "/memory": lambda: {"kib": stage.memory()},
            "/reload": stage.reload,
            "/reload/broken": stage.break_settings,
            **{f"/drain/{place}": replica.drain for place, replica in enumerate(stage.replicas)},
        }

        class Handler(BaseHTTPRequestHandler):
            def act(self) -> None:
                try:
                    work = acts.get(self.path)
                    status, told = (200, work()) if work else (404, None)
                except Exception as error:
                    status, told = 500, {"error": str(error)}
                body = json.dumps(told if isinstance(told, dict) else {}).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = act

            def log_message(self, *_) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"
