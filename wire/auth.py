"""Whether a server asks who calls."""

from __future__ import annotations

import enum


class Auth(enum.StrEnum):
    """What a server takes: signed calls only, or all."""

    OFF = "off"
    REQUIRED = "required"
