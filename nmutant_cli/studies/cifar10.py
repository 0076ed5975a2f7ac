"""The open questions about the published CIFAR10 numbers, asked of one trained network.

Takes the network and samples of a run of the config cifar10-small, counts which labels each image
gets under mutation (kept in the run's folder ``questions``, so that a stopped study goes on), with
dropout off, on as trained, and on at twice that rate, and works out kappa against the image's own
label, the label kept before saving, and the true one. The tables of the other runs are read only.
See docs/reproduction-cifar10.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from nmutant_cli.datasets import load_dataset
from nmutant_cli.detection.exact import Mixture
from nmutant_cli.detection.sprt import SequentialTest
from nmutant_cli.networks import inference
from nmutant_cli.paper import published
from nmutant_cli.pipeline.samples import SampleSet
from nmutant_cli.report.tables import KAPPA_COLUMNS
from nmutant_cli.studies.from_kappa import TITLES, beta, expected
from nmutant_cli.studies.study import Findings, Inputs
from nmutant_cli.studies.votes import ATTACKS, Votes, count, samples_file, share
from nmutant_cli.types import Floats, Ints

PAPER = published.table1().query("dataset == 'CIFAR10'")
PAPER2 = published.table2().query("dataset == 'CIFAR10'")
SIZES = {"normal": 500, "WL": 500} | {
    name: int(PAPER2.loc[PAPER2["samples"] == name, "adversary"].iloc[0])
    for name in ("FGSM", "C&W", "JSMA", "BB")
}
KAPPA1 = 0.2418
REVERSED = {1.0: 10.0, 5.0: 5.0, 10.0: 1.0}
"""Step sizes as the published column of JSMA has them, if it was written down upside down."""
WRONG_ANYWAY = "own label, normal images whose own label is wrong"
Part = tuple[dict[str, Any], Floats, Floats | None]
"""A row, its kappas, and their weights."""


def study(inputs: Inputs, *, mutations: int) -> Findings:
    """questions.csv: kappa, and the spread behind each interval; expected.csv: Table 2 of it."""
    run = inputs.runs[0]
    for slug in TITLES:
        inputs.file(run, samples_file(slug))
    inputs.file(run, "model.keras")
    parts = list(_from_runs(inputs))
    with inputs.opened(run) as experiment:
        parts += _from_votes(count(experiment, mutations))
    rows = pd.DataFrame([row for row, _, _ in parts])
    rows = pd.concat(
        [rows, pd.DataFrame(_lumps(rows)), pd.DataFrame(_shares(inputs))], ignore_index=True
    )
    rows = rows.sort_values("question", kind="stable")
    return Findings({"questions": rows, "expected": _predictions(parts)})


def line(
    question: str,
    name: str,
    setting: str,
    step: float,
    kappas: Floats,
    weights: Floats | None = None,
    beside: float | None = None,
) -> dict[str, Any]:
    """A row; ``beside``: another step size of the published column."""
    at = step if beside is None else beside
    theirs = PAPER[(PAPER["samples"] == name) & (PAPER["step_size"] == at)].iloc[0]
    mean = np.average(kappas, weights=weights)
    std = np.sqrt(np.average((kappas - mean) ** 2, weights=weights))
    return {
        "question": question,
        "samples": name,
        "setting": setting,
        "step_size": step,
        "n": len(kappas),
        "kappa_percent": 100 * mean,
        "ci99_percent": 100 * published.Z99 * std / np.sqrt(len(kappas)),
        "published": theirs["kappa_percent"],
        "std_percent": 100 * std,
        "published_std_percent": theirs["ci99_percent"] * np.sqrt(SIZES[name]) / published.Z99,
        "above_5_6": int((kappas > 5 / 6 + 1e-9).sum()),
    }


def _from_runs(inputs: Inputs) -> Iterator[Part]:
    """Question a from the two runs, d beside the published column in both orders."""
    for setting, run in zip(("dropout off", "dropout on"), inputs.runs, strict=False):
        records = inputs.table(run, "kappa.csv", KAPPA_COLUMNS)
        for _, part in records.groupby(["samples", "step_size"], sort=False):
            slug, step = part["samples"].iloc[0], float(part["step_size"].iloc[0])
            kappas, name = part["kappa"].to_numpy(), TITLES[slug]
            yield line("a", name, f"{setting}, whole run", step, kappas), kappas, None
            if slug == "jsma":
                text = f"{setting}, whole run, beside the published column reversed"
                yield line("d", name, text, step, kappas, beside=REVERSED[step]), kappas, None
    for run in inputs.runs[2:]:
        records = inputs.table(run, "kappa.csv", KAPPA_COLUMNS).query("samples == 'fgsm'")
        text = "dropout on, FGSM of eps 0.3 on the scale of 0..255 (500 attempts)"
        for _, part in records.groupby("step_size"):
            kappas, step = part["kappa"].to_numpy(), float(part["step_size"].iloc[0])
            yield line("f", "FGSM", text, step, kappas), kappas, None


def _from_votes(votes: Votes) -> Iterator[Part]:
    """Questions b, c and f: a row, its kappas and their weights."""
    for setting, sets in votes.items():
        for slug, (samples, by_step) in sets.items():
            for step, counted in by_step.items():
                for row in _of_one(setting, slug, samples, counted):
                    question, text, kappas, weights = row
                    # What an attack that does nothing would find.
                    names = ("FGSM", "BB") if WRONG_ANYWAY in text else (TITLES[slug],)
                    for name in names:
                        yield line(question, name, text, step, kappas, weights), kappas, weights


def _of_one(setting: str, slug: str, samples: SampleSet, votes: Ints) -> Iterator[Any]:
    own, true = votes[:, 0], samples.true
    to_own, to_true = share(votes, own), share(votes, true)
    if "float" in setting:
        yield "c", f"{setting}, label before saving", share(votes, samples.label), None
        return
    if slug in ATTACKS:
        before = share(votes, samples.label)
        yield "c", f"{setting}, 8-bit images, label before saving", before, None
        yield "c", f"{setting}, 8-bit images, own label", to_own, None
        yield "f", f"{setting}, true label", to_true, None
    else:
        yield "b", f"{setting}, own label", to_own, None
        yield "b", f"{setting}, true label", to_true, None
    wrong = own != true
    if slug == "normal":
        yield "b", f"{setting}, own label, only images it is right on", to_own[~wrong], None
        # Where 80% would be rightly labelled.
        weights = np.where(wrong, 0.2 / wrong.sum(), 0.8 / (~wrong).sum())
        yield "b", f"{setting}, true label, weighted to 80% right and 20% wrong", to_true, weights
        yield "f", f"{setting}, {WRONG_ANYWAY}", to_own[wrong], None


def _lumps(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The share of images with kappa 1 that, among images as ours, gives the published mean.

    ``kappa_percent`` is that share, ``std_percent`` the spread that such a mixture has.
    """
    for _, row in rows[rows["question"] == "a"].iterrows():
        ours, theirs = row["kappa_percent"] / 100, row["published"] / 100
        f = (theirs - ours) / (1 - ours)
        if f < 0:
            continue
        square = (row["std_percent"] / 100) ** 2 + ours**2
        setting = f"{row['setting']}: share with kappa 1 that would give the published mean"
        yield dict(row) | {
            "question": "f",
            "setting": setting,
            "kappa_percent": 100 * f,
            "ci99_percent": float("nan"),
            "std_percent": 100 * np.sqrt((1 - f) * square + f - theirs**2),
            "above_5_6": float("nan"),
        }


def _shares(inputs: Inputs) -> Iterator[dict[str, Any]]:
    """``kappa_percent`` is a share of an attack set: relabelled by saving, or wrong before."""
    run, *others = inputs.runs
    folders = [(run, slug, "") for slug in ATTACKS]
    folders += [(weak, "fgsm", ", eps 0.3 on the scale of 0..255") for weak in others[1:]]
    model, data = inference.load(run / "model.keras"), load_dataset("cifar10")
    for folder, slug, which in folders:
        samples = SampleSet.load(inputs.file(folder, samples_file(slug))).counted()
        before = inference.predict_labels(model, data.x_test[samples.index])
        relabelled, wrong = samples.label8 != samples.label, before != samples.true
        for question, text, those in (
            ("c", "share whose label differs once saved in 8 bits", relabelled),
            ("f", "share that was labelled wrongly before the attack", wrong),
        ):
            yield {
                "question": question,
                "samples": TITLES[slug],
                "setting": f"dropout off: {text}{which}",
                "n": len(samples),
                "kappa_percent": 100 * those.mean(),
            }


def _predictions(parts: list[Part]) -> pd.DataFrame:
    """Table 2 under ``published``: from every set of kappas at step 1, and from Table 1."""
    mixtures = [
        (row["samples"], row["setting"], row["n"], Mixture(kappas, weights))
        for row, kappas, weights in parts
        if row["step_size"] == 1 and row["question"] in "abcf"
    ]
    for _, row in PAPER.iterrows():
        name, step = row["samples"], row["step_size"]
        if step != 1 and (name != "JSMA" or step != 10):
            continue
        text = "published Table 1 as a Beta distribution"
        text += ", column reversed" if step == 10 else ""
        for size in (500, 1000) if name == "normal" else (SIZES[name],):
            mixture = beta(row["kappa_percent"] / 100, row["ci99_percent"] / 100, size)
            mixtures.append((name, f"{text}, n = {size}", size, mixture))
    made = []
    for name, setting, size, mixture in mixtures:
        for _, said in PAPER2[PAPER2["samples"] == name].iterrows():
            test = SequentialTest("published", KAPPA1, (2 * said["mu"] - 1) * KAPPA1)
            percent, mutations, changes = expected(mixture, test, name == "normal")
            made.append(
                {
                    "samples": name,
                    "kappas": setting,
                    "n": size,
                    "mu": said["mu"],
                    "identified_percent": percent,
                    "mutations": mutations,
                    "label_changes": changes,
                    "published_identified_percent": 100 * said["identified"] / SIZES[name],
                    "published_mutations": said["mutations"],
                    "published_label_changes": said["label_changes"],
                }
            )
    return pd.DataFrame(made)
