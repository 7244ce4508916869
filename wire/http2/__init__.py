"""Unary gRPC over HTTP/2 as callbacks on asyncio protocols (RFC 9113; gRPC's PROTOCOL-HTTP2).

`Http2Transport` and `Http2Server` stand beside those of `wire.grpcio`, speak the same wire format,
and report the same conditions with the same reasons. A call costs no coroutine, task or future;
what is written within one tick of the event loop leaves in one piece.
"""
