"""A server on a real socket that answers with whatever bytes the test wants, and notes what it was
sent.
"""

import contextlib
import os
import socket
import ssl
import threading


def answer(status=200, body=b"{}", kind="application/json", *headers):
    """An HTTP answer as bytes."""
    lines = [f"HTTP/1.1 {status} X", "Content-Type: " + kind, f"Content-Length: {len(body)}"
             ] + list(headers)
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


class Misbehaving(object):
    """Each request is answered with the next of `answers` (the last one again and again); None
    closes the connection.

    Every connection is closed after `per_connection` answers. hang: the connection is kept open
    without an answer.
    may_hang_up: the client may end the connection while it is answered.
    blind: whatever comes first counts as a request. certificate: the path of a PEM file, whose key
    lies beside it; then it speaks TLS. client_ca: the CA whose certificate a client has to show.
    """

    def __init__(self, *answers, **options):
        self._answers, self._per_connection = list(answers), options.get("per_connection", 1)
        self._blind = options.get("blind", False)
        self._may_hang_up = options.get("may_hang_up", False)
        self.hang, self.requests, self.connections = options.get("hang", False), [], 0
        self._over, self._context = threading.Event(), None
        if "certificate" in options:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(str(options["certificate"]),
                                          str(options["certificate"].with_suffix(".key")))
        if "client_ca" in options:
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(str(options["client_ca"]))
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(16)
        self.url = (
            f"http{'s' if self._context else ''}://127.0.0.1:{self._listener.getsockname()[1]}")
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True,
                                                       do_handshake_on_connect=False)
                try:
                    connection.do_handshake()
                except OSError:  # one of the two did not trust the other
                    self._drain(connection)
                    continue
            with connection:
                for _ in range(self._per_connection):
                    if not self._answer(connection):
                        break

    def _answer(self, connection):
        request = connection.recv(65536) or None if self._blind else self._read(connection)
        if request is None:
            return False
        self.requests.append(request)
        if self.hang:
            self._over.wait()
            return False
        data = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if data is None:
            return False
        try:
            connection.sendall(data)
        except OSError:
            if not self._may_hang_up:
                raise
            return False
        return True

    @staticmethod
    def _drain(connection):
        """Take what lies there unread: else a reset could overtake what TLS said of the failure."""
        with contextlib.suppress(OSError):
            connection.settimeout(0.2)
            while os.read(connection.fileno(), 65536):
                pass
        connection.close()

    @staticmethod
    def _read(connection):
        """(request line, headers by lower-case name, body), or None when nothing more comes."""
        data = b""
        while b"\r\n\r\n" not in data:
            some = connection.recv(65536)
            if not some:
                return None
            data += some
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in lines[1:]}
        while len(body) < int(headers.get("content-length", 0)):
            body += connection.recv(65536)
        return lines[0], headers, body
