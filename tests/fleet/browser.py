"""A real browser, without a window, that opens a page and tells what it sees."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

_FLAGS = (
    *("--headless=new", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-sandbox"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", "--virtual-time-budget=8000", "--window-size=1000,1400"),
)
_DARK = "--blink-settings=preferredColorScheme=0"

_POLICY = "default-src 'none'"

# Asks the page itself, once it is laid out. Whatever the page would load is refused by its policy,
# and counted.
_PROBE = """
const refused = [], errors = [];
addEventListener("securitypolicyviolation", (event) => refused.push(event.blockedURI));
addEventListener("error", (event) => errors.push(String(event.message)), true);
const sized = (node) => {
  const box = node.getBoundingClientRect();
  return box.width > 0 || box.height > 0;
};
const plot = (svg) => {
  const marks = [];
  for (let number = 0; number < Number(svg.dataset.marks); number++) {
    const shapes = svg.querySelectorAll(`[data-mark="${number}"] :is(path, use, image)`);
    marks.push([...shapes].filter((node) => !node.closest("defs") && sized(node)).length);
  }
  const box = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll("text")].filter(sized);
  return {
    name: svg.dataset.plot, marks, width: box.width, height: box.height, left: box.left,
    right: box.right, texts: texts.map((node) => node.textContent.trim()),
    font: Math.min(...texts.map((node) => node.getBoundingClientRect().height)),
  };
};
addEventListener("load", () => {
  const body = getComputedStyle(document.body);
  const found = {
    plots: [...document.querySelectorAll("svg[data-plot]")].map(plot),
    refused, errors, ink: body.color, paper: body.backgroundColor,
    loaded: performance.getEntriesByType("resource").map((entry) => entry.name),
    width: document.documentElement.scrollWidth, viewport: innerWidth,
    tables: document.querySelectorAll("table").length,
  };
  const shown = document.createElement("pre");
  shown.id = "probe";
  shown.textContent = JSON.stringify(found);
  document.body.append(shown);
});
"""


def find_browser() -> str:
    for name in NAMES:
        found = shutil.which(name)
        if found:
            return found
    raise FileNotFoundError("no Chromium here; scripts/bootstrap --tests installs one")


def look_at(page: Path, *, dark: bool = False) -> dict[str, Any]:
    """Opens a copy of the page in which a script asks what can be seen. Raises on no answer."""
    text = page.read_text()
    assert _POLICY in text
    # The copy's own script, and nothing else, may run.
    text = text.replace(_POLICY, f"{_POLICY}; script-src 'unsafe-inline'", 1)
    text = text.replace("</title>", f"</title><script>{_PROBE}</script>", 1)
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / "copy.html"
        copy.write_text(text)
        done = _browse(directory, copy, "--dump-dom", *([_DARK] if dark else []))
    answer = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    assert answer is not None, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(html.unescape(answer[1]))
    return found


def picture_of(page: Path, to: Path, *, dark: bool = False) -> Path:
    """A PNG of its beginning."""
    with tempfile.TemporaryDirectory() as directory:
        _browse(directory, page, f"--screenshot={to}", *([_DARK] if dark else []))
    return to


def _browse(profile: str, page: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Waits for all of the browser's processes: the group is ended with it, whatever happens."""
    return subprocess.run(
        [find_browser(), *_FLAGS, *flags, f"--user-data-dir={profile}/profile", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={name: value for name, value in os.environ.items() if "PROXY" not in name.upper()},
    )
