"""The names of py-amqp that its documentation does not have.

They were tried on py-amqp 5.1 to 5.4; ``tests/test_private_names.py`` fails when a new
version changes one.
"""

from __future__ import annotations

from inspect import signature

from amqp.transport import SSLTransport


def ssl_options() -> set[str]:
    """Return the names of the options of TLS.

    Each version has more of them, and there is no public list.
    """
    names = {*signature(SSLTransport._wrap_socket_sni).parameters}
    return names - {"self", "sock"} | {"context"}
