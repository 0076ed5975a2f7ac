"""The images that the report shows, chosen and mutated."""

from __future__ import annotations

import numpy as np

from nmutant_cli.files import read_records
from nmutant_cli.mutation.operator import Mutations, apply, clip_of
from nmutant_cli.mutation.sensitivity import Subjects
from nmutant_cli.networks.inference import predict_labels
from nmutant_cli.pipeline.experiment import Experiment
from nmutant_cli.pipeline.kappa import kappa_of, measured, stream_of
from nmutant_cli.report.figures.images import PanelRow
from nmutant_cli.report.figures.neighbourhood import Neighbourhood, labels_around
from nmutant_cli.seeding import stream
from nmutant_cli.types import Images


def panel_rows(experiment: Experiment) -> list[PanelRow]:
    """For each attack its first sample that is adversarial, with a mutation that gives it away."""
    settings, data = experiment.settings, experiment.data
    step = settings.detection.step_size
    rows = []
    for slug, params in settings.attack.sets.items():
        chosen = experiment.samples(slug).counted()
        if not len(chosen):
            continue
        images, labels, _ = measured(experiment, slug)
        label = experiment.label(params.model, step)
        subjects = Subjects(label, images[:1], None if labels is None else labels[:1])
        mutation = _telling(experiment, subjects, "panel", slug)
        rows.append(
            PanelRow(
                title=experiment.titles[slug],
                original=data.x_test[chosen.index[0]],
                adversarial=images[0],
                mutation=_applied(experiment, images[:1], mutation)[0],
                original_label=int(chosen.true[0]),
                adversarial_label=int(subjects.labels[0]),
                mutation_label=int(label(images[:1], mutation)[0]),
            )
        )
    return rows


def neighbourhoods(experiment: Experiment) -> list[Neighbourhood]:
    """An adversarial sample, its original, and a mutation of both: [] where there is none.

    The sample is the first of the most sensitive set, the mutation the first that gives it away;
    the maps reach twice as far as the attack went.
    """
    settings = experiment.settings
    sensitive = []
    for slug in settings.attack.sets:
        chosen = experiment.samples(slug).counted()
        # An image that was wrong before was not attacked; one in 8 bits may be right again.
        rows = np.flatnonzero((chosen.l2 > 0) & (chosen.label8 != chosen.true))
        if len(rows):
            kappa = float(read_records(kappa_of(experiment, slug))["kappa"].mean())
            sensitive.append((kappa, slug, int(rows[0])))
    if not sensitive:
        return []
    _, slug, row = max(sensitive)
    chosen = experiment.samples(slug).counted()
    reach = 2 * float(chosen.l2[row])
    network = experiment.network_of(slug)
    model = experiment.model(network)
    images, labels, _ = measured(experiment, slug)
    one = slice(row, row + 1)
    label = experiment.label(network, settings.detection.step_size)
    subjects = Subjects(label, images[one], None if labels is None else labels[one])
    mutation = _telling(experiment, subjects, "neighbourhood")

    def shown(title: str, image: Images) -> Neighbourhood:
        mutated = _applied(experiment, image[None], mutation)[0]
        around = labels_around(
            lambda many: predict_labels(model, many),
            image,
            reach,
            stream(settings.seed, settings.dataset, "neighbourhood", "directions"),
        )
        before, after = predict_labels(model, np.stack([image, mutated])).tolist()
        return Neighbourhood(title, image, before, mutated, after, around, reach)

    original = experiment.data.x_test[chosen.index[row]]
    return [shown("normal", original), shown(experiment.titles[slug], images[row])]


def _telling(experiment: Experiment, subjects: Subjects, *names: str) -> Mutations:
    """The first of 1,000 mutations that changes the label of the one subject, or the very first.

    ``names`` are those of the stream that they are drawn from.
    """
    drawn = stream_of(experiment, *names).take(0, 1000)
    first = int(subjects.changes(np.zeros(1000, np.int64), drawn).argmax())
    return drawn[first : first + 1]


def _applied(experiment: Experiment, images: Images, mutation: Mutations) -> Images:
    settings = experiment.settings
    clip = clip_of(settings.mutation, experiment.data.bounds)
    return apply(images, mutation, settings.detection.step_size, clip)
