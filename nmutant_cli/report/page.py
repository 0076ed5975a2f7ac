"""One self-contained HTML page: what was found, the figures, the tables and the facts."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
import pandas as pd

from nmutant_cli.report.conclusion import short
from nmutant_cli.report.figures.style import DPI
from nmutant_cli.report.tables import formatted, is_numeric

TEMPLATES = Path(__file__).parent / "templates"
CI = r"ci([\d.]+)_percent"

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
        "averaged over the set; in brackets the interval of that average, which allows for most κ "
        "being 0, at the confidence given below (the paper's interval is in table1.csv)",
    ),
    "protocol": (
        "Compared with",
        "what the label of a mutation is compared with: the sample's own label, by the network "
        "that was attacked, or what the paper's row asked instead",
    ),
    "rule": ("Rule", "how it is decided from the label changes when to stop and what to say"),
    "kappa1": ("κ₁", "the sensitivity that normal samples are taken to have at most"),
    "mu": ("μ", "a sample is tested for a sensitivity above μ · κ₁"),
    "adversary": ("Adversary", "how many samples are adversarial or wrongly labelled; 0 if normal"),
    "identified": (
        "Identified",
        "how many samples of the row the rule calls adversarial",
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
        f"tpr_at_{rate}_percent": (
            f"Above {100 - rate}% of normal (%)",
            f"samples whose κ is larger than that of all but {rate}% of the normal samples",
        )
        for rate in (1, 5)
    },
    "auc_percent": (
        "AUC (%)",
        "the chance that a sample of the set has a larger κ than a normal one; 50 is guessing. In "
        "brackets, here and beside, the 95% interval",
    ),
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
    """A table as the template wants it: ``rows`` holds (starts a group, cells).

    ``same``: heading and value of the columns that are left out because all rows agree.
    """

    title: str
    same: list[tuple[str, str]]
    headings: list[str]
    numeric: list[bool]
    rows: list[tuple[bool, list[str]]]
    meanings: list[tuple[str, str]]
    rules: list[tuple[str, str]]


def render(
    dataset: str,
    found: Sequence[str],
    figures: Iterable[tuple[str, bytes]],
    tables: Mapping[str, pd.DataFrame],
    facts: Mapping[str, object],
) -> str:
    """The page for one run, as text to be written in UTF-8.

    ``dataset`` is the printed name; ``found`` says in sentences what came out; ``figures`` are
    pairs of a caption and a PNG file; ``tables`` maps titles to tables, in order; ``facts`` are
    shown as they come (configuration, seed, versions, accuracy), with a mapping or list inside
    spelled out. The page needs nothing from outside and depends on nothing but the arguments.
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
        found=found,
        tables=[_table(title, frame) for title, frame in tables.items()],
        figures=[
            (text, base64.b64encode(png).decode("ascii"), _width(png)) for text, png in figures
        ],
        facts=[(name, _fact(value)) for name, value in facts.items()],
    )


def _table(title: str, frame: pd.DataFrame) -> _Table:
    used = [rule for rule in RULES if "rule" in frame and (frame["rule"] == rule).any()]
    numeric = {str(name) for name in frame if is_numeric(frame[name])}
    frame = _with_intervals(frame)
    agree = [c for c in frame if len(frame) > 1 and frame[c].nunique(dropna=False) == 1]
    same = [
        (_column(str(name))[0], values[0])
        for name, values in formatted(frame[agree]).items()
        if values[0]
    ]
    frame = frame.drop(columns=agree)
    cells = formatted(frame).to_numpy().tolist()
    # Rows are set apart where the first column that varies at all changes its value.
    varying = [i for i, name in enumerate(frame.columns) if frame[name].nunique() > 1]
    keys = [row[varying[0]] if varying else None for row in cells]
    starts = [i > 0 and key != keys[i - 1] for i, key in enumerate(keys)]
    columns = [_column(str(name)) for name in frame.columns]
    return _Table(
        title=title,
        same=same,
        headings=[heading for heading, _ in columns],
        numeric=[str(name) in numeric for name in frame.columns],
        rows=list(zip(starts, cells, strict=True)),
        meanings=[(heading, meaning) for heading, meaning in columns if meaning],
        rules=[(rule, RULES[rule]) for rule in used],
    )


def _with_intervals(frame: pd.DataFrame) -> pd.DataFrame:
    """``x_percent``, ``x_low`` and ``x_high`` as one column of texts: 95 (91-99)."""
    frame = frame.copy()
    for low in [str(name) for name in frame if str(name).endswith("_low")]:
        name = low.removesuffix("_low")
        three = frame[[f"{name}_percent", low, f"{name}_high"]].to_numpy(float)
        frame[f"{name}_percent"] = [
            f"{short(value)} ({short(start)}\N{EN DASH}{short(end)})" if value == value else ""
            for value, start, end in three
        ]
        frame = frame.drop(columns=[low, f"{name}_high"])
        if name == "kappa":  # its other interval, as the paper computes it
            frame = frame.drop(columns=[c for c in frame if re.fullmatch(CI, str(c))])
    return frame


def _column(name: str) -> tuple[str, str | None]:
    """Heading and meaning of a column."""
    if match := re.fullmatch(CI, name):
        level = match[1]
        meaning = f"half the width of the {level}% confidence interval of that average"
        return f"± {level}% CI", meaning
    if name.startswith("published_"):
        heading, _ = _column(name.removeprefix("published_"))
        return f"{heading}, published", None
    return COLUMNS.get(name, (name, None))


def _width(png: bytes) -> int:
    """How wide a figure of `to_png` is on the page, in CSS pixels, so that its text is as large."""
    return int.from_bytes(png[16:20], "big") * 96 // DPI  # the header's first number


def _fact(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_fact(inner)}" for name, inner in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_fact(inner) for inner in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
