"""A DynamoDB that throttles one table: a proxy in front of the local cloud that forwards all other requests."""

import json
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def throttling(endpoint: str, table: str) -> ThreadingHTTPServer:
    """Serves on a free port of 127.0.0.1 until it is shut down. Requests that name `table` are refused as throttled."""

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if f'"{table}"'.encode() in body:
                throttled = "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"
                self._respond(400, json.dumps({"__type": throttled, "message": "the table is throttled"}).encode())
                return
            headers = {name: value for name, value in self.headers.items() if name != "Content-Length"}
            request = urllib.request.Request(endpoint + self.path, body, headers, method="POST")
            try:
                with urllib.request.urlopen(request, timeout=30) as response:
                    self._respond(response.status, response.read())
            except urllib.error.HTTPError as error:
                self._respond(error.code, error.read())

        def _respond(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.0")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Logs nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
