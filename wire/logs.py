"""Logs: readable lines on a terminal, JSON lines anywhere else, always on stderr."""

from __future__ import annotations

import contextlib
import enum
import io
import logging
import sys
from typing import TextIO, cast

import structlog
from structlog.typing import Processor


class LogLevel(enum.StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(enum.StrEnum):
    AUTO = "auto"  # console if stderr is a terminal, else json
    CONSOLE = "console"
    JSON = "json"


class _Tolerant(io.TextIOBase):
    """A stream whose lines are lost while it cannot take them: a disk is full, a pipe closed.

    Writes straight to the file behind the stream, if there is one: what stayed in a buffer would
    fail again when the process ends, and change its exit code.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._file: io.FileIO | None = None
        with contextlib.suppress(OSError, ValueError):
            self._file = io.FileIO(stream.fileno(), "w", closefd=False)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            if self._file is not None:
                self._file.write(text.encode(errors="backslashreplace"))
            else:
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def configure_logging(level: LogLevel, format: LogFormat) -> None:
    """Sets structlog up, and the standard library's logging of other packages beside it."""
    stream = cast(TextIO, _Tolerant(sys.stderr))
    console = format is LogFormat.CONSOLE or (format is LogFormat.AUTO and sys.stderr.isatty())
    threshold = logging.getLevelNamesMapping()[level.value.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[Processor]
    if console:
        # No dump of local variables: they hold other people's items.
        plain = structlog.dev.plain_traceback
        render = [structlog.dev.ConsoleRenderer(exception_formatter=plain)]
    else:
        render = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        # Logs go to a file that cannot always be written; nothing may fail because of that.
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    # What other packages say at a lower level is about their insides.
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING), force=True)
