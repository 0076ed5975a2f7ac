"""The open questions about the published CIFAR10 numbers, asked of one trained network.

    python scripts/cifar_questions.py runs/cifar10-small runs/cifar10-dropout \\
        --weak runs/cifar10-weak --out results/cifar10-small

Takes the network and samples of a run of the config cifar10-small, counts which labels each image
gets under mutation (kept in the run's folder ``questions``, so that a stopped script goes on), with
dropout off, on as trained, and on at twice that rate, and works out kappa against the image's own
label, the label kept before saving, and the true one. The tables of the two runs are read only.

Writes questions.csv (kappa, and the spread behind each interval) and expected.csv (what the rule
``published`` makes of these kappas and of published ones). See docs/reproduction-cifar10.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from from_kappa import beta, expected

from nmutant_cli.config.loading import load
from nmutant_cli.datasets import load_dataset
from nmutant_cli.detection.exact import Mixture
from nmutant_cli.detection.sprt import SequentialTest
from nmutant_cli.files import read_records
from nmutant_cli.mutation.operator import Mutations, MutationStream
from nmutant_cli.mutation.sensitivity import FixedMutations, Subjects
from nmutant_cli.networks import inference
from nmutant_cli.paper import published
from nmutant_cli.pipeline.jobs import Answers, Here, Job, NetworkFile
from nmutant_cli.pipeline.samples import SampleSet, from_8_bits
from nmutant_cli.report.tables import to_csv, to_text
from nmutant_cli.types import Floats

TITLES = {"normal": "normal", "fgsm": "FGSM", "cw": "C&W", "jsma": "JSMA", "bb": "BB", "wl": "WL"}
ATTACKS = ("fgsm", "cw", "jsma", "bb")
CLASSES = 10
PAPER = published.table1().query("dataset == 'CIFAR10'")
PAPER2 = published.table2().query("dataset == 'CIFAR10'")
SIZES = {"normal": 500, "WL": 500} | {
    name: int(PAPER2.loc[PAPER2["samples"] == name, "adversary"].iloc[0])
    for name in ("FGSM", "C&W", "JSMA", "BB")
}
KAPPA1 = 0.2418
WRONG_ANYWAY = "own label, normal images whose own label is wrong"
Found = dict[str, dict[str, tuple[SampleSet, dict[float, Any]]]]
"""For each setting and set its samples, and ``(n, 11)`` votes for each step size."""


@dataclass(frozen=True)
class Votes:
    """Of each image its own label, then how many mutations give each class."""

    mutations: int

    def __call__(self, subjects: Subjects, sources: Sequence[FixedMutations]) -> Answers:
        n, m = len(sources), self.mutations
        drawn = Mutations.concatenate(source.take(0, m) for source in sources)
        labels = subjects.mutated(np.arange(n).repeat(m), drawn).reshape(n, m)
        votes = (labels[..., None] == np.arange(CLASSES)).sum(axis=1)
        found: Answers = np.column_stack([subjects.own, votes]).tolist()
        return found


def count(args: argparse.Namespace) -> Found:
    _, settings = load("cifar10-small")
    shape, steps = (32, 32, 3), settings.sensitivity.step_sizes
    stream = MutationStream(shape, settings.mutation, settings.seed, "cifar10", "kappa", "shared")
    everything = tuple(TITLES)
    here, folder = Here(), args.run / "questions"
    folder.mkdir(exist_ok=True)
    found: Found = {}
    with tempfile.TemporaryDirectory() as temporary:
        doubled = Path(temporary) / "doubled.keras"
        base = NetworkFile(
            (args.run / "model.keras").resolve(), settings.mutation, None, 1000, False
        )
        asked: dict[str, tuple[NetworkFile, tuple[str, ...], int, bool]] = {
            "dropout off": (base, everything, args.mutations, True),
            "dropout on": (replace(base, stochastic=True), everything, args.mutations, True),
            "dropout off, float images": (base, ATTACKS, args.mutations, False),
            "dropout on, twice the rate": (
                replace(base, path=doubled, stochastic=True),
                ("normal", "wl"),
                args.mutations * 2 // 3,
                True,
            ),
        }
        for setting, (network, slugs, m, rounded) in asked.items():
            source = FixedMutations(stream.take(0, m))
            for slug in slugs:
                where = "adversarial" if slug in ATTACKS else "samples"
                samples = SampleSet.load(args.run / where / f"{slug}.npz").counted()
                images = from_8_bits(samples.image8) if rounded else samples.image
                found.setdefault(setting, {})[slug] = samples, (by_step := {})
                for step in steps:
                    kept = folder / f"{setting}-{slug}-{step:g}-{m}.csv".replace(" ", "-")
                    if not kept.exists():
                        if network.path == doubled and not doubled.exists():
                            _double_dropout(base.path, doubled)
                        job = Job(network, step, Votes(m), images, None, [source] * len(images))
                        print(setting, slug, step, flush=True)
                        answers = job.done_with(here.label(network, step))
                        np.savetxt(kept, answers, "%d", delimiter=",")
                    by_step[step] = np.loadtxt(kept, delimiter=",", dtype=np.int64, ndmin=2)
    return found


def _double_dropout(old: Path, new: Path) -> None:
    model = inference.load(old)
    for layer in model.layers:
        if hasattr(layer, "rate"):
            layer.rate = 2 * layer.rate
    model.save(new)


def share(votes: Any, labels: Any) -> Floats:
    """kappa of each image compared with ``labels``."""
    mutations = votes[:, 1:].sum(axis=1)
    return 1 - votes[np.arange(len(votes)), 1 + labels] / mutations


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


def from_runs(args: argparse.Namespace) -> Iterator[tuple[dict[str, Any], Floats, None]]:
    """Question a from the two runs, d beside the published column in both orders."""
    for setting, folder in (("dropout off", args.run), ("dropout on", args.other)):
        records = read_records(folder / "kappa.csv")
        for (slug, step), part in records.groupby(["samples", "step_size"], sort=False):
            kappas, name = part["kappa"].to_numpy(), TITLES[str(slug)]
            yield line("a", name, f"{setting}, whole run", float(step), kappas), kappas, None
            if slug == "jsma":
                reversed_ = {1: 10.0, 5: 5.0, 10: 1.0}[int(step)]
                text = f"{setting}, whole run, beside the published column reversed"
                yield line("d", name, text, float(step), kappas, None, reversed_), kappas, None
    if args.weak:
        records = read_records(args.weak / "kappa.csv").query("samples == 'fgsm'")
        text = "dropout on, FGSM of eps 0.3 on the scale of 0..255 (500 attempts)"
        for step, part in records.groupby("step_size"):
            kappas = part["kappa"].to_numpy()
            yield line("f", "FGSM", text, float(step), kappas), kappas, None


def from_votes(found: Found) -> Iterator[tuple[dict[str, Any], Floats, Floats | None]]:
    """Questions b, c and f: a row, its kappas and their weights."""
    for setting, sets in found.items():
        for slug, (samples, by_step) in sets.items():
            for step, votes in by_step.items():
                for row in _of_one(setting, slug, samples, votes):
                    question, text, kappas, weights = row
                    # What an attack that does nothing would find.
                    names = ("FGSM", "BB") if WRONG_ANYWAY in text else (TITLES[slug],)
                    for name in names:
                        yield line(question, name, text, step, kappas, weights), kappas, weights


def _of_one(setting: str, slug: str, samples: SampleSet, votes: Any) -> Iterator[Any]:
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


def lumps(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
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


def shares(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """``kappa_percent`` is a share of an attack set: relabelled by saving, or wrong before."""
    folders = [(args.run, slug, "") for slug in ATTACKS]
    folders += [(args.weak, "fgsm", ", eps 0.3 on the scale of 0..255")] if args.weak else []
    model, data = inference.load(args.run / "model.keras"), load_dataset("cifar10")
    for folder, slug, which in folders:
        samples = SampleSet.load(folder / f"adversarial/{slug}.npz").counted()
        before = inference.predict_labels(model, data.x_test[samples.index])
        for question, text, those in (
            (
                "c",
                "share whose label differs once saved in 8 bits",
                samples.label8 != samples.label,
            ),
            ("f", "share that was labelled wrongly before the attack", before != samples.true),
        ):
            yield {
                "question": question,
                "samples": TITLES[slug],
                "setting": f"dropout off: {text}{which}",
                "n": len(samples),
                "kappa_percent": 100 * those.mean(),
            }


def predictions(parts: list[tuple[dict[str, Any], Floats, Floats | None]]) -> pd.DataFrame:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="a run of cifar10-small")
    parser.add_argument("other", type=Path, help="the same with dropout on")
    parser.add_argument("--weak", type=Path, help="the same with FGSM at eps 0.3/255")
    parser.add_argument("--mutations", type=int, default=150)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--count-only", action="store_true", help="stop once all is counted")
    args = parser.parse_args()
    found = count(args)
    if args.count_only:
        return
    parts = [*from_runs(args), *from_votes(found)]
    rows = pd.DataFrame([row for row, _, _ in parts])
    rows = pd.concat(
        [rows, pd.DataFrame(lumps(rows)), pd.DataFrame(shares(args))], ignore_index=True
    )
    rows = rows.sort_values("question", kind="stable")
    for name, table in (("questions", rows), ("expected", predictions(parts))):
        print(to_text(table), end="\n\n")
        if args.out:
            path = args.out / f"{name}.csv"
            path.write_text(to_csv(table), encoding="utf-8")
            print(path)


if __name__ == "__main__":
    main()
