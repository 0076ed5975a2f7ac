"""A training under way, kept after every epoch so that a stopped one goes on as if it had not been.

What is kept is every number of the network, its optimizer and its dropout's random state. The
order of the images needs none of it: each epoch's is drawn again from its stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nmutant_cli.errors import DataError
from nmutant_cli.files import read_npz, replacing

if TYPE_CHECKING:
    import keras


@dataclass
class Checkpoint:
    """The file ``path``; ``key`` stands for what is trained, and another key's file is not read.

    ``seconds``: how long the kept epochs took, over all starts.
    """

    path: Path
    key: str
    seconds: float = 0.0

    def restore(self, model: keras.Model) -> int:
        """Set ``model``, compiled, to where it was left; how many epochs were done, 0 for none."""
        variables = _variables(model)
        names = [f"variable{i}" for i in range(len(variables))]
        try:
            kept = read_npz(self.path, ("key", "epochs", "seconds", *names))
        except DataError:
            return 0  # none there, or damaged: training starts at the beginning
        values = [kept[name] for name in names]
        if str(kept["key"]) != self.key:
            return 0
        if [v.shape for v in values] != [tuple(v.shape) for v in variables]:
            return 0
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        self.seconds = float(kept["seconds"])
        return int(kept["epochs"])

    def save(self, model: keras.Model, epochs: int) -> None:
        """Keep ``model`` after ``epochs`` epochs. Raises ArtifactError if the disk is full."""
        import keras

        values = {
            f"variable{i}": keras.ops.convert_to_numpy(v.value)
            for i, v in enumerate(_variables(model))
        }
        with replacing(self.path) as temporary:
            np.savez(temporary, key=self.key, epochs=epochs, seconds=self.seconds, **values)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def _variables(model: keras.Model) -> list[Any]:
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    return [*model.variables, *model.optimizer.variables]
