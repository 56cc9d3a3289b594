"""A model server without a model: it starts at once, and does what the body of a request says."""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION, PORT = sys.argv[1], int(sys.argv[2])


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200, b"3.17.2" if self.path == "/version" else b"\n")

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.busy += 1
        together = self.server.busy
        time.sleep(asked.get("sleep", 0))
        self.server.busy -= 1
        if asked.get("die"):
            os._exit(3)
        if "status" in asked:
            return self.answer(asked["status"], asked["text"].encode())
        prediction = {
            "mask": "" if VERSION == "maskless" else "AAAA",
            "version": "9" if VERSION == "other" else VERSION,
            "warnings": asked.get("warnings", []),
            "port": PORT,
            "together": together,
        }
        return self.answer(200, json.dumps({"predictions": [prediction]}).encode())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size, busy = 64, 0


if VERSION == "broken":
    sys.exit("no network in postgresql://me:hunter22@db/cells")
time.sleep({"mute": 60, "slow": 0.3}.get(VERSION, 0))
Server(("127.0.0.1", PORT), Handler).serve_forever()
