"""What nginx or stunnel is before a master: takes TLS and hands the bytes on."""

import select
import socket
import ssl
import threading


class TlsFront:
    """Listens on a loopback port with the certificate NAME.pem and its NAME.key; `port` is the master's."""

    def __init__(self, certificate, port):
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(str(certificate), str(certificate.with_suffix(".key")))
        self._port, self._listener, self._over = port, socket.create_server(("127.0.0.1", 0)), threading.Event()
        self.url = "https://127.0.0.1:{}".format(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection):
        try:
            with self._context.wrap_socket(connection, server_side=True) as worker, \
                    socket.create_connection(("127.0.0.1", self._port)) as master:
                while not self._over.is_set():
                    readable = [worker] if worker.pending() else select.select([worker, master], [], [], 0.1)[0]
                    for source, sink in ((worker, master), (master, worker)):
                        if source in readable:
                            data = source.recv(65536)
                            if not data:
                                return
                            sink.sendall(data)
        except OSError:
            return  # either side went away
