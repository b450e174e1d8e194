"""The run over HTTP: endpoints, who may ask, the server with its TLS, the page."""
