"""One self-contained HTML page: the tables, what their columns mean, the figures and the facts."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
import pandas as pd

from nmutant_cli.report.tables import formatted, is_numeric

TEMPLATES = Path(__file__).parent / "templates"

COLUMNS = {
    "dataset": ("Data set", None),
    "samples": (
        "Samples",
        "the sample set: normal images, images made by an attack (FGSM, C&W, JSMA, BB for the "
        "black-box attack), or WL, training images that the network labels wrongly",
    ),
    "step_size": ("Step size", "the factor by which a mutation is multiplied before it is added"),
    "n": ("n", "how many samples the set has"),
    "kappa_percent": (
        "κ (%)",
        "the sensitivity: the share of random mutations of a sample that change its label, "
        "averaged over the set",
    ),
    "kappa_low": ("κ from", "the interval of that mean, where it matters that most κ are 0"),
    "kappa_high": ("κ to", "its upper end"),
    "rule": ("Rule", "how it is decided from the label changes when to stop and what to say"),
    "kappa1": ("κ₁", "the sensitivity that normal samples are taken to have at most"),
    "mu": ("μ", "a sample is tested for a sensitivity above μ · κ₁"),
    "adversary": ("Adversary", "how many samples are adversarial or wrongly labelled; 0 if normal"),
    "identified": (
        "Identified",
        "how many samples are called adversarial; in the normal rows these are false alarms",
    ),
    "accuracy_percent": (
        "Accuracy (%)",
        "the share of the samples that are called adversarial; in the normal rows the share that "
        "are not, so that an undecided normal sample counts as right, as in the paper",
    ),
    "mutations": (
        "Mutations",
        "mutations until the decision, averaged over the samples decided rightly; empty if there "
        "are none. Counted as the rule counts them: “published” counts each one twice",
    ),
    "label_changes": (
        "Label changes",
        "mutations that changed the label, averaged over the same samples",
    ),
    "undecided": (
        "Undecided",
        "samples for which the limit on mutations came before a decision",
    ),
    **{
        f"{name}_{end}": (f"{title}{heading}", meaning)
        for name, title, meaning in (
            ("auc", "AUC", "100 times the chance that an adversarial sample has the larger κ"),
            ("tpr_at_1", "at 1%", "samples identified at no more than 1% false alarms (%)"),
            ("tpr_at_5", "at 5%", "samples identified at no more than 5% false alarms (%)"),
        )
        for end, heading in (("percent", ""), ("low", ", from"), ("high", ", to"))
    },
    "right_before": ("Right before", "samples whose label is the true one"),
    "right_after": ("Right after", "samples whose majority label under mutation is the true one"),
    "restored": ("Restored", "wrong labels that the majority label corrects"),
    "spoiled": ("Spoiled", "right labels that the majority label replaces by a wrong one"),
    "verdict": (
        "Verdict",
        "reproduced: within the joint 99% interval (mutations, label changes: within 20%); same "
        "conclusion: what the paper concludes from it holds, at most a factor of two away; "
        "differs: neither",
    ),
    "distance": ("Distance", "how far from the paper's row: the sum of |ln(ours / theirs)|"),
    "reason": ("Reason", "why a row differs, where we know"),
    "claim": ("Claim", None),
    "published": ("Published", None),
    "ours": ("Ours", None),
}
"""Heading and meaning of the known columns. Others are shown under their own name."""

RULES = {
    "wald": "the sequential probability ratio test as Wald defined it, checked at every mutation; "
    "its error bounds hold for the decision “κ(x) above or below μ · κ₁”, not for the "
    "rate of false alarms over images",
    "algorithm1": "Algorithm 1 as the paper prints it: the ratio is checked only when a label "
    "changes, so a sample without any change is never called normal",
    "published": "the rule that gives the paper’s Table 2: each mutation counts as two, and "
    "the log ratio, already cumulative, is summed again; the paper’s error bounds do not "
    "hold for it",
}


class _Table(NamedTuple):
    """A table as the template wants it: ``rows`` holds (starts a group, cells)."""

    title: str
    headings: list[str]
    numeric: list[bool]
    rows: list[tuple[bool, list[str]]]
    meanings: list[tuple[str, str]]
    rules: list[tuple[str, str]]


def render(
    dataset: str,
    tables: Mapping[str, pd.DataFrame],
    figures: Iterable[tuple[str, bytes]],
    facts: Mapping[str, object],
) -> str:
    """The page for one run, as text to be written in UTF-8.

    ``dataset`` is the printed name; ``tables`` maps titles to tables, in order; ``figures`` are
    pairs of a caption and a PNG file; ``facts`` are shown as they come (configuration, seed,
    versions, accuracy), with a mapping or list inside spelled out. The page needs nothing from
    outside and depends on nothing but the arguments.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,  # the default goes by the file's ending, and .j2 is not on its list
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.html.j2").render(
        dataset=dataset,
        tables=[_table(title, frame) for title, frame in tables.items()],
        figures=[(text, base64.b64encode(png).decode("ascii")) for text, png in figures],
        facts=[(name, _fact(value)) for name, value in facts.items()],
    )


def _table(title: str, frame: pd.DataFrame) -> _Table:
    cells = formatted(frame).to_numpy().tolist()
    # Rows are set apart where the first column that varies at all changes its value.
    varying = [i for i, name in enumerate(frame.columns) if frame[name].nunique() > 1]
    keys = [row[varying[0]] if varying else None for row in cells]
    starts = [i > 0 and key != keys[i - 1] for i, key in enumerate(keys)]
    columns = [_column(str(name)) for name in frame.columns]
    used = [rule for rule in RULES if "rule" in frame and (frame["rule"] == rule).any()]
    return _Table(
        title=title,
        headings=[heading for heading, _ in columns],
        numeric=[is_numeric(frame[name]) for name in frame.columns],
        rows=list(zip(starts, cells, strict=True)),
        meanings=[(heading, meaning) for heading, meaning in columns if meaning],
        rules=[(rule, RULES[rule]) for rule in used],
    )


def _column(name: str) -> tuple[str, str | None]:
    """Heading and meaning of a column."""
    if match := re.fullmatch(r"ci([\d.]+)_percent", name):
        level = match[1]
        meaning = f"half the width of the {level}% confidence interval of that average"
        return f"± {level}% CI", meaning
    if name.startswith("published_"):
        heading, _ = _column(name.removeprefix("published_"))
        return f"{heading}, published", None
    return COLUMNS.get(name, (name, None))


def _fact(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_fact(inner)}" for name, inner in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_fact(inner) for inner in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
