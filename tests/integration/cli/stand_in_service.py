"""A service's stand-in: it answers 200 on its health port and, for the gateway, listens on the gateway's port."""

import http.server
import os


class Ready(http.server.BaseHTTPRequestHandler):
    """Answers everything."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()


if __name__ == "__main__":
    ports = [int(os.environ[name]) for name in ("KITEMESH_HEALTH_PORT", "STAND_IN_PORT") if name in os.environ]
    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", port), Ready) for port in ports]
    servers[0].serve_forever()
