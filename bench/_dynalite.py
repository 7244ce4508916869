"""dynalite, a server of DynamoDB's API in JavaScript, fetched from npm for comparison.

It keeps its tables in memory (LevelDB's in-memory variant), in one Node.js process, and answers
JSON over HTTP/1.1.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench._http_lane import is_whole
from bench._items import KEY_NAME, DynamoRequests
from wire.addresses import parse_address

VERSION = "4.0.0"
DESCRIPTION = f"dynalite {VERSION}, in memory, one Node.js process"

# Beside the virtual environment, and as easily deleted.
DIRECTORY = Path(__file__).resolve().parents[1] / ".bench" / f"dynalite-{VERSION}"

_INSTALL_S_MAX = 180.0
_START_S_MAX = 30.0
_STOP_S = 5.0

# Ends with whoever started it, however that ends: its standard input closes then.
_PROGRAM = """
const server = require('dynalite')({ createTableMs: 0, deleteTableMs: 0, updateTableMs: 0 })
server.listen(0, '127.0.0.1', () => console.log(server.address().port))
process.stdin.on('end', () => process.exit(0)).resume()
"""


class Unavailable(Exception):  # noqa: N818 - it is what dynalite is
    """dynalite cannot be had here; the message says why, for people."""


def install() -> None:
    """Fetches it into DIRECTORY, unless it is there. Raises Unavailable."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise Unavailable(f"there is no {program} on this machine; install Node.js to compare")
    if (DIRECTORY / "node_modules/dynalite/package.json").exists():
        return
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    # In memory it needs nothing that an install script would build.
    options = ["--no-audit", "--no-fund", "--ignore-scripts", "--no-save"]
    # One more try, and not npm's ten seconds to a minute before it.
    options += ["--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
    try:
        done = subprocess.run(
            ["npm", "install", "--prefix", str(DIRECTORY), *options, f"dynalite@{VERSION}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_INSTALL_S_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"npm did not end within {_INSTALL_S_MAX:.0f} s") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise Unavailable(f"npm could not fetch dynalite@{VERSION}: {lines[0]}")


@contextmanager
def dynalite(table: str) -> Iterator[tuple[str, int]]:
    """Its address on loopback and its process id, with an empty table.

    Raises Unavailable; RuntimeError if it does not do what it should.
    """
    install()
    process = subprocess.Popen(
        ["node", "-e", _PROGRAM],
        cwd=DIRECTORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Its own session: the terminal's Ctrl-C is for the benchmark.
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        if not port.isdigit():
            raise RuntimeError("dynalite did not start; its error is above")
        address = f"127.0.0.1:{port}"
        _create_table(address, table)
        yield address, process.pid
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _create_table(address: str, table: str) -> None:
    requests = DynamoRequests(table, 1, address)
    definition = {
        "TableName": table,
        "AttributeDefinitions": [{"AttributeName": KEY_NAME, "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": KEY_NAME, "KeyType": "HASH"}],
        "ProvisionedThroughput": {"ReadCapacityUnits": 1_000_000, "WriteCapacityUnits": 1_000_000},
    }
    _ask(address, requests.request("CreateTable", definition))
    give_up = time.monotonic() + _START_S_MAX
    while time.monotonic() < give_up:
        answer = _ask(address, requests.request("DescribeTable", {"TableName": table}))
        if answer["Table"]["TableStatus"] == "ACTIVE":
            return
        time.sleep(0.02)
    raise RuntimeError(f"dynalite's table is not active after {_START_S_MAX:.0f} s")


def _ask(address: str, request: bytes) -> dict[str, Any]:
    answer = b""
    with socket.create_connection(parse_address(address), _START_S_MAX) as connection:
        connection.sendall(request)
        while not is_whole(answer):
            received = connection.recv(65536)
            if not received:
                raise RuntimeError("dynalite closed the connection before it had answered")
            answer += received
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise RuntimeError(f"dynalite refuses: {body.decode(errors='replace')}")
    content: dict[str, Any] = json.loads(body)
    return content
