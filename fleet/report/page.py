"""Answers as one HTML document that loads nothing from anywhere."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from fleet.answer import CHOSEN, MEASURED, Answer
from fleet.format import number
from fleet.outcome import Plot
from fleet.report import tables
from fleet.report.palette import Colour
from fleet.report.style import sheet
from fleet.report.svg import colours_of, draw

# Nothing is loaded and no script runs: what a browser is told to make sure of.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

# Characters of a sentence that can be set large.
_LONG = 160

_TITLE = "What the fleet models answer"


@dataclass(frozen=True, slots=True)
class Section:
    """An answer with its plots drawn, which is what takes time: once for all its pages."""

    answer: Answer
    plots: str


def section(answer: Answer) -> Section:
    drawn = answer.outcome.plots
    return Section(answer, plots(drawn, colours_of(drawn), answer.scenario))


def answer_page(of: Section) -> str:
    """One scenario."""
    return page(of.answer.title, "", _scenario(of, heading="h1"))


def run_page(sections: Sequence[Section]) -> str:
    """All of a run, with contents."""
    answers = [each.answer for each in sections]
    contents = "".join(
        f'<li><a href="#{escape(each.scenario)}">{escape(each.title)}</a>'
        f"<p>{escape(each.outcome.conclusion)}</p>"
        f'<p class="about">{_verdict(each)}</p></li>'
        for each in answers
    )
    checks = [check for each in answers for check in each.outcome.checks]
    held = sum(check.holds for check in checks)
    header = (
        f"<h1>{_TITLE}</h1>"
        f'<p class="question">{len(answers)} scenarios. {held} of {len(checks)} checks hold,'
        " against what is published, closed forms and a second model.</p>"
        f'<nav aria-label="Scenarios"><ol>{contents}</ol></nav>'
    )
    return page(_TITLE, header, "\n".join(_scenario(each, heading="h2") for each in sections))


def page(title: str, header: str, body: str) -> str:
    """header and body are HTML, title is text."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<link rel="icon" href="data:,">
<title>{escape(title)} · Keyplane</title>
<style>
{sheet()}
</style>
</head>
<body>
<header>{header}</header>
<main>
{body}
</main>
<footer>Written by <code>keyplane fleet</code>. Requests are counted as simulated only where each
one was; what rates represent is said apart.</footer>
</body>
</html>
"""


def plots(found: Sequence[Plot], colours: Mapping[str, Colour], prefix: str) -> str:
    """prefix: of the ids in them, unique in the page."""
    return "\n".join(
        f"<figure><h3>{escape(plot.title)}</h3><figcaption>{escape(plot.caption)}</figcaption>"
        f'<div class="wide">{draw(plot, colours, f"{prefix}-{plot.name}").svg}</div></figure>'
        for plot in found
    )


def concluded(sentence: str) -> str:
    look = "conclusion long" if len(sentence) > _LONG else "conclusion"
    return f'<p class="{look}">{escape(sentence)}</p>'


def command(answer: Answer) -> str:
    """What gives the same answer again."""
    words = ["keyplane", "fleet", "run", answer.asked_as, "--seed", str(answer.seed)]
    if answer.preset == MEASURED:
        words += ["--preset", MEASURED]
    for each in answer.settings:
        if each.origin == CHOSEN:
            words += ["--" + each.name.replace("_", "-"), repr(each.value)]
    return shlex.join(words)


def _scenario(of: Section, heading: str) -> str:
    answer, outcome = of.answer, of.answer.outcome
    paragraphs = [
        f"<{heading}>{escape(answer.title)}</{heading}>",
        f'<p class="question">{escape(answer.question)}</p>',
        concluded(outcome.conclusion),
        f'<p class="about">{_verdict(answer)} {escape(_work(answer))}</p>',
        of.plots,
        f"<h3>Figures</h3>{tables.figures(outcome.figures)}",
        *(f'<div class="more">{tables.of_outcome(each)}</div>' for each in outcome.tables),
        f"<h3>Checks</h3>{tables.checks(outcome.checks)}" if outcome.checks else "",
        f"<h3>How it was reckoned</h3><p>{escape(answer.explanation)}</p>",
        _notes(outcome.notes),
        f"<h3>Parameters</h3>{tables.settings(answer.settings)}",
        f"<h3>The same again</h3><pre><code>{escape(command(answer))}</code></pre>",
    ]
    inside = "\n".join(each for each in paragraphs if each)
    return f'<section class="scenario" id="{escape(answer.scenario)}">\n{inside}\n</section>'


def _notes(notes: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<ul class="notes">{items}</ul>' if items else ""


def _verdict(answer: Answer) -> str:
    checks = answer.outcome.checks
    if not checks:
        return "Checked against nothing."
    held = sum(check.holds for check in checks)
    look = "held" if held == len(checks) else "broken"
    return f'<span class="{look}">{held} of {len(checks)} checks hold.</span>'


def _work(answer: Answer) -> str:
    outcome = answer.outcome
    parts = []
    if outcome.requests_simulated:
        parts.append(f"{outcome.requests_simulated:,} requests simulated one by one")
    if outcome.requests_represented:
        parts.append(f"{number(outcome.requests_represented)} represented by rates")
    did = " and ".join(parts) or "Closed forms alone"
    return f"{did}, in {answer.seconds:.2g} s. Preset {answer.preset}, seed {answer.seed}."
