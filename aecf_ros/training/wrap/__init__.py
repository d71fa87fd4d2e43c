"""Preprocessing put into an encoder's graph: `aecf wrap-encoder`."""
