"""The address of the tilers: processes share it, and the kernel distributes connections among them."""

from __future__ import annotations

import socket
from contextlib import ExitStack


def held_socket(host: str, port: int) -> socket.socket:
    """Bind an address without listening, to hold it for the processes.

    The processes share the address, and another tiler could share it too; so it is first bound alone, as a check.
    """
    if port:
        with socket.socket(family_of(host), socket.SOCK_STREAM) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind((host, port))
    return shared_socket(host, port)


def shared_socket(host: str, port: int) -> socket.socket:
    """Bind an address that several processes listen on; the kernel distributes connections among them."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family_of(host), socket.SOCK_STREAM))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        stack.pop_all()
    return listener


def family_of(host: str) -> socket.AddressFamily:
    """Return the address family: IPv6 if the host has colons."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET
