"""The application behind gunicorn."""

import os

_log = open(os.environ["SEEN"], "a", buffering=1)


def application(environ, start_response):
    _log.write(f"200 {environ['REQUEST_METHOD']} {environ['RAW_URI']} {environ['SERVER_PROTOCOL']}\n")
    try:
        while environ["wsgi.input"].read(65536):
            pass
    except Exception as error:
        _log.write(f"note: {error!r} in a body\n")
    start_response("200 OK", [("X-Seen", environ["RAW_URI"]), ("Content-Length", "6")])
    return [b"hello\n"]
