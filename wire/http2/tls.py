"""TLS for the engine: HTTP/2 agreed by ALPN (RFC 9113, section 3.2), and mutual TLS."""

from __future__ import annotations

import ssl
from pathlib import Path

_ALPN = "h2"


def server_context(
    certificate: Path, key: Path, client_authority: Path | None = None
) -> ssl.SSLContext:
    """For an `Http2Server`. PEM files: the chain, its key, and who signs clients' certificates.

    With `client_authority` only clients that show such a certificate are let in (mutual TLS).
    Raises ValueError that names the file.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _prepare(context, certificate, key)
    if client_authority is not None:
        _trust(context, client_authority)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(
    authority: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """For an `Http2Transport`. PEM files: who signs servers' certificates (the system's list if
    None), and what this client shows of itself.

    Raises ValueError that names the file.
    """
    context = ssl.create_default_context()
    if authority is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _trust(context, authority)
    _prepare(context, certificate, key)
    return context


def speaks_http2(ssl_object: ssl.SSLObject | None) -> bool:
    """Whether HTTP/2 was agreed; True without TLS, where it is known beforehand."""
    return ssl_object is None or ssl_object.selected_alpn_protocol() == _ALPN


def _prepare(context: ssl.SSLContext, certificate: Path | None, key: Path | None) -> None:
    # RFC 9113, section 9.2: nothing older, no compression, no renegotiation.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols([_ALPN])
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            raise ValueError(f"cannot use the certificate {certificate}: {error}") from error


def _trust(context: ssl.SSLContext, authority: Path) -> None:
    try:
        context.load_verify_locations(authority)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"cannot read certificates from {authority}: {error}") from error
