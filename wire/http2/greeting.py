"""The first bytes of a connection: the preface, or something a person should be told about."""

from __future__ import annotations

import re
from typing import Final

from wire.http2.frames import PREFACE, ConnectionFault, ErrorCode

_HTTP_1: Final = re.compile(rb"[A-Z]{3,10} [^\r\n]{0,8000}", re.DOTALL)
_TLS_HELLO: Final = b"\x16\x03"

_TEXT: Final = (
    b"This port speaks gRPC, over HTTP/2 with prior knowledge.\n"
    b"Try grpcurl, buf curl or a generated client; with curl, --http2-prior-knowledge.\n"
)
HTTP_1_ANSWER: Final = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\n"
    b"content-type: text/plain\r\n"
    b"content-length: %d\r\n"
    b"connection: close\r\n\r\n%b" % (len(_TEXT), _TEXT)
)


class NotHttp2(ConnectionFault):
    """The peer speaks something else; `answer` is what it may understand."""

    def __init__(self, message: str, answer: bytes) -> None:
        super().__init__(ErrorCode.PROTOCOL_ERROR, message)
        self.answer = answer


def check_preface(data: bytes, tls: object) -> bool:
    """Whether the whole preface is there. Raises ConnectionFault as soon as it cannot be."""
    if data.startswith(PREFACE):
        return True
    if PREFACE.startswith(data):
        return False
    if tls is None and data.startswith(_TLS_HELLO):
        raise NotHttp2("a TLS handshake on a port without TLS; connect in plain text", b"")
    if _HTTP_1.match(data) is not None and not data.startswith(b"PRI "):
        raise NotHttp2("HTTP/1 on a port that speaks HTTP/2 only", HTTP_1_ANSWER)
    raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "no HTTP/2 preface")
