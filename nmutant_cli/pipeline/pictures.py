"""The images that the report shows, chosen and mutated."""

from __future__ import annotations

import numpy as np

from nmutant_cli.mutation.operator import MutationStream, apply
from nmutant_cli.mutation.sensitivity import Subjects
from nmutant_cli.networks.inference import predict_labels
from nmutant_cli.pipeline.experiment import Experiment
from nmutant_cli.pipeline.kappa import measured
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
        stream = MutationStream(
            data.image_shape, settings.mutation, settings.seed, settings.dataset, "panel", slug
        )
        drawn = stream.take(0, 1000)
        changed = np.flatnonzero(subjects.changes(np.zeros(1000, np.int64), drawn))
        pick = slice(changed[0], changed[0] + 1) if len(changed) else slice(0, 1)
        mutation = drawn[pick]
        clip = data.bounds if settings.mutation.clip else None
        rows.append(
            PanelRow(
                title=experiment.titles[slug],
                original=data.x_test[chosen.index[0]],
                adversarial=images[0],
                mutation=apply(images[:1], mutation, step, clip)[0],
                original_label=int(chosen.true[0]),
                adversarial_label=int(subjects.labels[0]),
                mutation_label=int(label(images[:1], mutation)[0]),
            )
        )
    return rows


def neighbourhoods(experiment: Experiment) -> list[Neighbourhood]:
    """An adversarial sample, its original, and a mutation of both: [] where there is none.

    The sample is the first of the set that lies nearest to its originals, the mutation the first
    that gives it away; the maps reach twice as far as the attack went.
    """
    settings, data = experiment.settings, experiment.data
    found = []
    for slug in settings.attack.sets:
        chosen = experiment.samples(slug).counted()
        # An image that was wrong before was not attacked; one in 8 bits may be right again.
        rows = np.flatnonzero((chosen.l2 > 0) & (chosen.label8 != chosen.true))
        if len(rows):
            found.append((float(chosen.l2[rows].mean()), slug, int(rows[0])))
    if not found:
        return []
    _, slug, row = min(found)
    chosen = experiment.samples(slug).counted()
    distance = float(chosen.l2[row])
    network = experiment.network_of(slug)
    model, step = experiment.model(network), settings.detection.step_size
    images, labels, _ = measured(experiment, slug)
    own = None if labels is None else labels[row : row + 1]
    subjects = Subjects(experiment.label(network, step), images[row : row + 1], own)
    names = (settings.dataset, "neighbourhood")
    source = MutationStream(data.image_shape, settings.mutation, settings.seed, *names)
    drawn = source.take(0, 1000)
    changed = np.flatnonzero(subjects.changes(np.zeros(1000, np.int64), drawn))
    mutation = drawn[np.array([changed[0] if len(changed) else 0])]
    clip = data.bounds if settings.mutation.clip else None

    def shown(title: str, image: Images) -> Neighbourhood:
        mutated = apply(image[None], mutation, step, clip)
        around = labels_around(
            lambda many: predict_labels(model, many),
            image,
            2 * distance,
            stream(settings.seed, *names, "directions"),
        )
        own, after = predict_labels(model, np.stack([image, mutated[0]])).tolist()
        return Neighbourhood(title, image, own, mutated[0], after, around, 2 * distance)

    original = data.x_test[chosen.index[row]]
    return [shown("normal", original), shown(experiment.titles[slug], images[row])]
