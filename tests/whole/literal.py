"""The stages under mutation once more, as plain loops over images and mutations.

Only the files of a run folder, its settings, and the operator's drawing and applying are used:
nothing of the pipeline, the compiled graph, the tallies or the sequential tests.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import cache
from pathlib import Path

import keras
import numpy as np

from nmutant_cli.config.settings import Settings
from nmutant_cli.mutation.operator import MutationStream, apply

Z = {0.99: 2.5758293035489004, 0.95: 1.959963984540054}


def set_names(settings: Settings) -> list[str]:
    return ["normal", *settings.attack.sets, "wl"]


def network_of(settings: Settings, name: str) -> str:
    return settings.attack.sets[name].model if name in settings.attack.sets else "base"


class Run:
    """The files of one run folder."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder, self.settings = folder, settings

    def samples(self, name: str) -> dict[str, np.ndarray]:
        """A sample set, those that count."""
        where = "adversarial" if name in self.settings.attack.sets else "samples"
        with np.load(self.folder / where / f"{name}.npz") as arrays:
            return {key: arrays[key][arrays["counts"]] for key in arrays.files}

    def rows(self, name: str) -> np.ndarray:
        where = "adversarial" if name in self.settings.attack.sets else "samples"
        with np.load(self.folder / where / f"{name}.npz") as arrays:
            return np.flatnonzero(arrays["counts"])

    @cache  # noqa: B019
    def model(self, network: str) -> keras.Model:
        file = "model.keras" if network == "base" else f"model-{network}.keras"
        return keras.models.load_model(self.folder / file, compile=False)

    def labels(self, network: str, images: np.ndarray, keys: np.ndarray | None = None):
        """What ``network`` says of ``images``; ``keys`` choose the masks of its dropout."""
        model, found = self.model(network), []
        for first in range(0, len(images), 100):
            x = images[first : first + 100]
            if self.settings.model_settings(network).stochastic_inference:
                noise = np.zeros(len(images), np.int64) if keys is None else keys
                logits = with_dropout(model, x, noise[first : first + 100])
            else:
                logits = model(x, training=False)
            found += np.asarray(logits).argmax(axis=1).tolist()
        return np.array(found, np.int64)

    def images(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The images that are mutated, and the labels their mutants are compared with."""
        samples = self.samples(name)
        if name in self.settings.attack.sets and self.settings.attack.eight_bit:
            return samples["image8"] / np.float32(255), samples["label"]
        if self.settings.samples.stochastic:
            return samples["image"], samples["label"]
        return samples["image"], self.labels(network_of(self.settings, name), samples["image"])

    def mutants(self, images, network: str, step: float, streams, count: int) -> np.ndarray:
        """The label of each of ``count`` mutants of each image: ``(n, count)``."""
        clip = (0.0, 1.0) if self.settings.mutation.clip else None
        found = []
        for image, stream in zip(images, streams, strict=True):
            m = stream.take(0, count)
            mutated = apply(np.repeat(image[None], count, axis=0), m, step, clip)
            found.append(self.labels(network, mutated, m.noise.astype(np.int64)))
        return np.array(found).reshape(len(images), count)

    def stream(self, *names: str | int) -> MutationStream:
        s = self.settings
        return MutationStream((28, 28, 1), s.mutation, s.seed, s.dataset, *names)

    def fresh(self, purpose: str, name: str) -> list[MutationStream]:
        samples = self.samples(name)
        pairs = zip(samples["index"].tolist(), samples["target"].tolist(), strict=True)
        return [self.stream(purpose, name, index, target) for index, target in pairs]

    def kappa_rows(self, name: str) -> list[tuple]:
        """The rows of kappa.csv for one sample set."""
        s, samples = self.settings, self.samples(name)
        images, compared = self.images(name)
        table = []
        for step in s.sensitivity.step_sizes:
            streams = self.fresh("kappa", name)
            if s.sensitivity.shared_mutations:
                streams = [self.stream("kappa", "shared")] * len(images)
            m = s.sensitivity.mutations
            labels = self.mutants(images, network_of(s, name), step, streams, m)
            for i, row in enumerate(self.rows(name).tolist()):
                against = samples["true"] if s.sensitivity.true_label else compared
                changes = sum(label != against[i] for label in labels[i].tolist())
                where = (name, row, int(samples["index"][i]), int(samples["true"][i]))
                own = samples["label"] if s.sensitivity.true_label else compared
                counts = (int(own[i]), step, m, changes, changes / m)
                table.append((*where, *counts, majority(labels[i].tolist(), int(against[i]))))
        return table

    def detection_rows(self, name: str, kappa1: float, published: bool = False) -> list[tuple]:
        """The rows of detections.csv for one sample set, or of detections-as-published.csv."""
        d, samples, rows = self.settings.detection, self.samples(name), self.rows(name)
        images, compared = self.images(name)
        network, streams, rules = (
            network_of(self.settings, name),
            self.fresh("detect", name),
            d.rules,
        )

        def asked_of(other):
            if name in self.settings.attack.sets:
                return other, samples["label"]
            return other, self.labels(other, images)

        if d.model is not None:
            network, compared = asked_of(d.model)
        if published:
            protocol, rules = d.as_published[name], ["published"]
            if protocol.model is not None:
                network, compared = asked_of(protocol.model)
            if protocol.true_label:
                compared = samples["true"]
            kept = np.arange(len(images))
            if protocol.right_only:
                kept = np.flatnonzero(samples["label"] == samples["true"])
            images, compared, rows = images[kept], compared[kept], rows[kept]
            streams = [streams[i] for i in kept]
            samples = {key: array[kept] for key, array in samples.items()}
        labels = self.mutants(images, network, d.step_size, streams, d.cap)
        table = []
        for i, row in enumerate(rows.tolist()):
            changed = [label != compared[i] for label in labels[i].tolist()]
            for rule in rules:
                for mu in d.mu:
                    sigma = (mu - 1) * kappa1 if d.sigma is None else d.sigma
                    p0, p1 = mu * kappa1 - sigma, mu * kappa1 + sigma
                    outcome = decide(rule, changed, p0, p1, d.alpha, d.beta, d.cap)
                    where = (name, row, int(samples["index"][i]), rule)
                    table.append((*where, kappa1, mu, p0, p1, *outcome))
        return table

    def measured_kappa1(self) -> float:
        s = self.settings
        rows = self.kappa_rows("normal")
        return interval([r[8] for r in rows if r[5] == s.detection.step_size], 0.99)[1]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def half_width(values: list[float], confidence: float) -> float:
    variance = mean([(v - mean(values)) ** 2 for v in values])
    return Z[confidence] * math.sqrt(variance) / math.sqrt(len(values))


def interval(values: list[float], confidence: float) -> tuple[float, float]:
    """Hall's (1992): t is where t + a t^2 + a^2 t^3 / 3 + a / 2 has the normal quantile."""

    def end(sample: list[float], z: float) -> float:
        deviation = math.sqrt(mean([(v - mean(sample)) ** 2 for v in sample]))
        if deviation == 0:
            return mean(sample)
        skewness = mean([((v - mean(sample)) / deviation) ** 3 for v in sample])
        a = skewness / 3 / math.sqrt(len(sample))
        low, high = -100.0, 100.0
        for _ in range(200):  # by bisection: it rises with t
            t = (low + high) / 2
            rises_above = t + a * t**2 + a**2 * t**3 / 3 + a / 2 > z
            low, high = (low, t) if rises_above else (t, high)
        return mean(sample) - t * deviation / math.sqrt(len(sample))

    z = Z[confidence]
    upper = max(end(values, -z), end([*values, max(values)], -z))
    return max(0.0, end(values, z)), min(1.0, upper)


def majority(labels: list[int], own: int) -> int:
    votes = Counter(labels)
    most = [label for label in votes if votes[label] == max(votes.values())]
    return own if own in most else min(most)


def decide(rule, changed, p0, p1, alpha, beta, cap) -> tuple[str, int, int]:
    """Verdict, n and c of Algorithm 1, of Wald's test, or of the rule that gave Table 2."""
    n = c = 0
    total = 0.0
    for change in changed:
        if n >= cap:
            break
        n = n + 2 if rule == "published" else n + 1
        if change:
            c = c + 1
        ratio = c * math.log(p1 / p0) + (n - c) * math.log((1 - p1) / (1 - p0))
        if rule == "published":
            total = total + ratio
            ratio = total
        if rule == "algorithm1" and not change:
            continue
        if ratio >= math.log((1 - beta) / alpha):
            return "adversarial", n, c
        if ratio <= math.log(beta / (1 - alpha)):
            return "normal", n, c
    return "undecided", n, c


def with_dropout(model: keras.Model, x: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """The logits with dropout left on, each row's masks chosen by its key."""
    for salt, layer in enumerate(model.layers):
        if not isinstance(layer, keras.layers.Dropout):
            x = np.asarray(layer(x))
            continue
        key = mixed(keys ^ salt)[:, None]
        bits = mixed(key ^ mixed(np.arange(x[0].size))[None])
        keep = bits.astype(np.float32) * np.float32(2.0**-31) >= np.float32(layer.rate)
        x = x * keep.reshape(x.shape) / np.float32(1 - layer.rate)
    return x


def mixed(x: np.ndarray) -> np.ndarray:
    """MurmurHash3's finaliser on 31 bits."""
    for shift, factor in ((16, 0x45D9F3B), (15, 0x2C1B3C6D), (16, 1)):
        x = ((x ^ (x >> shift)) * factor) & 0x7FFFFFFF
    return x
