"""What the artefacts of a run are called: paths in its folder, and names in its manifest.

``slug`` is a sample set: ``normal``, ``wl``, or an attack set as the config names it.
"""

from __future__ import annotations


def network(name: str) -> str:
    """The trained network ``name``; ``base`` is that of the section ``model``."""
    return "model.keras" if name == "base" else f"model-{name}.keras"


def samples(slug: str) -> str:
    return f"{'samples' if slug in ('normal', 'wl') else 'adversarial'}/{slug}.npz"


def kappa(slug: str) -> str:
    """Label changes of each sample under each step size."""
    return f"kappa/{slug}.csv"


def detections(slug: str) -> str:
    """What the tests say of each sample."""
    return f"detections/{slug}.csv"


def scores(detector: str, network: str) -> str:
    """The scores of a detector on the sets of a network."""
    return f"compare/{detector}-{network}.csv"
