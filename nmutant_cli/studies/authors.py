"""Which published MNIST numbers follow from the authors' own files, and under which protocol.

authors.csv has a row for each value: what is published, what is found, the ends ``low`` and
``high`` of where it may lie, and a verdict. ``network`` says whose labels the mutations got. Parts:

- ``table 1 from counts``: means of their counts, with the 99% interval of the mean.
- ``table 2 from counts``: the exact expectation of the rule ``published``, each image with the
  kappa that they counted under the attacked network. Nothing is drawn. The interval of #Identified
  holds 99% of runs. Normal images: those of each network, the paper does not say which it used.
- ``table 2 from images``: the same rule on their images with our mutations, which are labelled by
  their public network, or by one of ours, and compared with the recorded labels, those of another
  network. Found is the mean over the seeds; ``low``, ``high`` are the least and the most of them.
- ``labels``: the test accuracy of their network, and how often a network gives an adversarial image
  the label that they recorded. The interval is that of Clopper and Pearson at 99%.
- ``kappa``: of their adversarial images under our networks, compared with the image's own label and
  with the recorded one, beside the published kappa of the attacked network.

A verdict is on one value: ``reproduced`` within `NEAR` and its like (our kappas: within the joint
99% interval), ``same conclusion`` at most a factor of two away, else ``differs``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nmutant_cli.config.settings import Settings
from nmutant_cli.datasets import (
    AUTHORS_MUTATIONS,
    AUTHORS_STEPS,
    Authors,
    authors_file,
    load_authors,
    load_dataset,
)
from nmutant_cli.detection.detect import detect
from nmutant_cli.detection.exact import Mixture, curves
from nmutant_cli.detection.intervals import clopper_pearson, count_interval, mean_interval
from nmutant_cli.detection.sprt import SequentialTest
from nmutant_cli.errors import ConfigError
from nmutant_cli.mutation.operator import clip_of
from nmutant_cli.mutation.sensitivity import Subjects, half_width, streams
from nmutant_cli.networks.inference import load, predict_labels
from nmutant_cli.paper import published
from nmutant_cli.pipeline import artefacts
from nmutant_cli.studies.from_kappa import TITLES, expected
from nmutant_cli.studies.study import Findings, Inputs
from nmutant_cli.studies.votes import CountVotes, share
from nmutant_cli.types import Bools, Bounds, Floats, Images, Ints, Labels, Verdict

if TYPE_CHECKING:
    import keras

    from nmutant_cli.mutation.graph import CompiledLabeller

NEAR = 0.05
"""How near #Identified and #Mutations are to come, as a share of the printed value. #Mutations is
floored, as it is printed; one mutation is always near."""
NEAR_CHANGES, NEAR_FALSE_ALARMS = 0.2, 4
"""How near #Label changes, and the false alarms among normal images, are to come."""
LAST_DIGIT = 0.01
"""How near the values of Table 1 are to come: it is printed to two digits, cut or rounded."""
COUNTED = ("identified", "mutations", "label_changes")
SHAPE = (28, 28, 1)
TRANSFERRED = ("jsma", "cw")
"""Attacks whose rows of Table 2 do not follow from the counts."""
SLUGS = {title: slug for slug, title in TITLES.items()}
UNKNOWN = (math.nan, math.nan)

Row = dict[str, Any]
log = logging.getLogger("nmutant")


def study(inputs: Inputs, *, seeds: int, mutations: int) -> Findings:
    """authors.csv."""
    for name, value in (("seeds", seeds), ("mutations", mutations)):
        if value < 1:
            raise ConfigError(f"--{name} {value}: must be at least 1")
    path = authors_file()
    authors, settings = load_authors(path), inputs.load()
    inputs.note(path.parent, path)
    rows = [*table1_rows(authors), *table2_rows(authors), *_their_network(authors, settings, seeds)]
    for run in inputs.runs:
        rows += _our_networks(inputs, run, authors, settings, seeds, mutations)
    columns = ["part", "network", "samples", "step_size", "mu", "value"]
    columns += ["published", "found", "low", "high", "verdict"]
    return Findings({"authors": pd.DataFrame(rows)[columns]})


def verdict(found: float, said: float, near: float) -> str:
    """The verdict on a value, ``said`` being the published one; empty where there is none."""
    if math.isnan(said):
        return published.NOT_PUBLISHED
    if abs(found - said) <= near + 1e-9:
        return "reproduced"
    order = published.ORDER
    return "same conclusion" if said / order <= found <= said * order else "differs"


def _row(
    where: Row,
    value: str,
    found: float,
    ends: tuple[float, float] = UNKNOWN,
    said: float = math.nan,
    near: float = 0.0,
) -> Row:
    compared = math.floor(found) if value == "mutations" else found
    row = {"value": value, "published": said, "found": found, "low": ends[0], "high": ends[1]}
    return where | row | {"verdict": verdict(compared, said, near)}


# from their counts alone


def _published(table: pd.DataFrame, *titles: str) -> Iterator[pd.Series]:
    """The rows of a published table about MNIST and ``titles``, else those of which are files."""
    titles = titles or ("normal", "FGSM", "C&W", "JSMA")
    for _, row in table[table["dataset"] == "MNIST"].iterrows():
        if row["samples"] in titles:
            yield row


def _kappas(authors: Authors, slug: str, normal: bool, step_size: float) -> Floats:
    """The kappas that they counted of the adversarial or the normal images, in [0, 1]."""
    theirs = authors.sets[slug]
    changes = theirs.normal if normal else theirs.changes[theirs.adversarial]
    kappas: Floats = changes[:, AUTHORS_STEPS.index(step_size)] / AUTHORS_MUTATIONS
    return kappas


def table1_rows(authors: Authors) -> Iterator[Row]:
    """Its normal column is that of the network that JSMA attacked."""
    for row in _published(published.table1()):
        normal = row["samples"] == "normal"
        slug = "jsma" if normal else SLUGS[row["samples"]]
        kappas = _kappas(authors, slug, normal, row["step_size"])
        where = {"part": "table 1 from counts", "network": f"attacked by {TITLES[slug]}"}
        where |= {"samples": row["samples"], "step_size": row["step_size"]}
        low, high = mean_interval(kappas, 0.99)
        for value, found, ends in (
            ("kappa_percent", kappas.mean(), (100 * low, 100 * high)),
            ("ci99_percent", half_width(kappas, 0.99), UNKNOWN),
        ):
            yield _row(where, value, 100 * found, ends, row[value], LAST_DIGIT)


def table2_rows(authors: Authors) -> Iterator[Row]:
    """Its normal rows for the normal images of each network."""
    for row in _published(published.table2()):
        normal = row["samples"] == "normal"
        for slug in authors.sets if normal else [SLUGS[row["samples"]]]:
            kappas = _kappas(authors, slug, normal, 1.0)
            test = _test(row)
            percent, *means = expected(Mixture(kappas), test, normal)
            identified = percent * len(kappas) / 100
            ends = count_interval(curves(test, kappas).adversarial, 0.99)
            where = {"part": "table 2 from counts", "network": f"attacked by {TITLES[slug]}"}
            yield from _of_table2(where, row, [identified, *means], [ends, UNKNOWN, UNKNOWN])


def _test(row: pd.Series) -> SequentialTest:
    """The test behind a row of the published Table 2: sigma is (mu - 1) * kappa1."""
    kappa1, mu = row["kappa1"], row["mu"]
    return SequentialTest("published", kappa1, (2 * mu - 1) * kappa1)


def _of_table2(
    where: Row, row: pd.Series, found: list[float], ends: list[tuple[float, float]]
) -> Iterator[Row]:
    """The three values beside a row of the published Table 2."""
    where = where | {"samples": row["samples"], "step_size": 1.0, "mu": row["mu"]}
    normal = row["samples"] == "normal"
    near = (
        NEAR_FALSE_ALARMS if normal else NEAR * row["identified"],
        max(1.0, NEAR * row["mutations"]),
        NEAR_CHANGES,
    )
    for value, mean, interval, reach in zip(COUNTED, found, ends, near, strict=True):
        yield _row(where, value, mean, interval, row[value], reach)


# from their images and their network


def _their_network(authors: Authors, settings: Settings, seeds: int) -> Iterator[Row]:
    model = _rebuilt(authors)
    data = load_dataset("mnist")
    right = predict_labels(model, data.x_test) == data.y_test
    network = "theirs, public"
    yield _share({"part": "labels", "network": network}, "accuracy_percent", right)
    for slug in authors.sets:
        _, labels, given = _given(authors, slug, model)
        where = {"part": "labels", "network": network, "samples": TITLES[slug]}
        yield _share(where, "recorded_label_percent", given == labels)
    label = _labeller(model, settings)
    for slug in TRANSFERRED:
        yield from _drawn(authors, slug, network, label, settings, seeds)


def _labeller(model: keras.Model, settings: Settings) -> CompiledLabeller:
    from nmutant_cli.mutation.graph import CompiledLabeller

    clip = clip_of(settings.mutation, Bounds(0.0, 1.0))
    return CompiledLabeller(model, 1.0, mutation=settings.mutation, clip=clip)


def _rebuilt(authors: Authors) -> keras.Model:
    """Their public network, without the softmax."""
    from nmutant_cli.networks.architectures import NETWORKS

    model = NETWORKS["mnist"](SHAPE, 10, None)
    model.set_weights(list(authors.weights))
    return model


def _given(authors: Authors, slug: str, model: keras.Model) -> tuple[Images, Labels, Labels]:
    """Adversarial images, their recorded labels, and the labels that a network gives them."""
    theirs = authors.sets[slug]
    images = theirs.images[theirs.adversarial]
    return images, theirs.label[theirs.adversarial], predict_labels(model, images)


def _share(where: Row, value: str, right: Bools) -> Row:
    ends = clopper_pearson(int(right.sum()), len(right), 0.99)
    return _row(where, value, 100 * right.mean(), (100 * ends[0], 100 * ends[1]))


def _drawn(
    authors: Authors,
    slug: str,
    network: str,
    label: CompiledLabeller,
    settings: Settings,
    seeds: int,
) -> Iterator[Row]:
    """Table 2's rows of an attack: decisions on fresh mutations, each seed with its own."""
    theirs = authors.sets[slug]
    images = theirs.images[theirs.adversarial]
    rows = list(_published(published.table2(), TITLES[slug]))
    tests = [_test(row) for row in rows]
    subjects = Subjects(label, images, theirs.label[theirs.adversarial])
    found = []
    for i in range(seeds):
        log.info("%s, seed %d of %d", TITLES[slug], i + 1, seeds)
        sources = streams(images, settings.mutation, settings.seed, f"authors/{i}")
        per_test = []
        for outcome in detect(subjects, sources, tests):
            adversarial = outcome.verdict == Verdict.ADVERSARIAL
            n, c = outcome.n[adversarial], outcome.c[adversarial]
            per_test.append([len(n), n.mean(), c.mean()] if len(n) else [0, math.nan, math.nan])
        found.append(per_test)
    values = np.array(found, np.float64)  # (seeds, tests, 3)
    where = {"part": "table 2 from images", "network": network}
    for j, row in enumerate(rows):
        ends = list(zip(values[:, j].min(axis=0), values[:, j].max(axis=0), strict=True))
        yield from _of_table2(where, row, list(values[:, j].mean(axis=0)), ends)


# their images under our networks


def _our_networks(
    inputs: Inputs, run: Path, authors: Authors, settings: Settings, seeds: int, mutations: int
) -> Iterator[Row]:
    sets = settings.attack.sets
    for slug in authors.sets:
        name = sets[slug].model if slug in sets else "base"
        model = load(inputs.file(run, artefacts.network(name)), SHAPE)
        images, labels, given = _given(authors, slug, model)
        network = f"{run.name} {name}"
        where: Row = {"part": "labels", "network": network, "samples": TITLES[slug]}
        yield _share(where, "recorded_label_percent", given == labels)
        label = _labeller(model, settings)
        sources = streams(images, settings.mutation, settings.seed, "authors")
        for row in _published(published.table1(), TITLES[slug]):
            said, reach, step = row["kappa_percent"], row["ci99_percent"], row["step_size"]
            log.info("%s under %s, step size %g", TITLES[slug], network, step)
            subjects = Subjects(label.at(step), images)
            votes: Ints = np.array(CountVotes(mutations)(subjects, sources))
            where |= {"part": "kappa", "step_size": step}
            for value, compared in (
                ("own_label_kappa_percent", votes[:, 0]),
                ("recorded_label_kappa_percent", labels),
            ):
                kappas = share(votes, compared)
                low, high = mean_interval(kappas, 0.99)
                found = float(kappas.mean())
                ours = (high if said > 100 * found else low) - found
                near = math.hypot(100 * ours, reach)
                yield _row(where, value, 100 * found, (100 * low, 100 * high), said, near)
        if slug in TRANSFERRED:
            yield from _drawn(authors, slug, network, label, settings, seeds)
