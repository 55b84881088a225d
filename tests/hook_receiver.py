"""hook_receiver.py PORT CERT KEY SECRET FILE: a webhook's receiver, as a site would write one.

Checks the signature by itself, answers 503 while FILE.down is there, and appends 'event good|bad body' to FILE.
"""
import hashlib
import hmac
import http.server
import os
import ssl
import sys
import time

port, cert, key, secret, log = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4].encode(), sys.argv[5]


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if os.path.exists(log + ".down"):
            self.send_response(503)
            self.end_headers()
            return
        signed = dict(part.split("=") for part in self.headers["X-Carzerod-Signature"].split(","))
        mac = hmac.new(secret, signed["t"].encode() + b"." + body, hashlib.sha256).hexdigest()
        good = hmac.compare_digest(mac, signed["v1"]) and abs(time.time() - int(signed["t"])) < 60
        with open(log, "a") as f:
            f.write("%s %s %s\n" % (self.headers["X-Carzerod-Event"], "good" if good else "bad", body.decode()))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args):
        pass


server = http.server.HTTPServer(("127.0.0.1", port), Receiver)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
