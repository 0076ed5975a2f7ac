"""What ``import nmutant_cli`` offers: every name with an example that runs, and nothing heavy."""

from __future__ import annotations

import doctest
import inspect

import numpy as np
import own
import pytest
from conftest import python

import nmutant_cli
from nmutant_cli.config.mutation import Mutation
from nmutant_cli.errors import ConfigError, DataError, ModelError
from nmutant_cli.mutation.operator import apply
from nmutant_cli.mutation.sensitivity import streams

NAMES = [name for name in nmutant_cli.__all__ if name != "__version__"]


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_each_name(name):
    thing = getattr(nmutant_cli, name)
    finder = doctest.DocTestFinder(recurse=False)
    (example,) = finder.find(thing, name, inspect.getmodule(thing), globs={})
    assert example.examples, f"{name} has no example"
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    assert runner.run(example, out=said.append).failed == 0, "".join(said)


def test_what_is_offered():
    assert set(nmutant_cli.__all__) <= set(dir(nmutant_cli))
    assert {name: getattr(nmutant_cli, name).__name__ for name in NAMES} == {n: n for n in NAMES}
    with pytest.raises(AttributeError, match="no attribute 'Detctor'"):
        _ = nmutant_cli.Detctor


def test_importing_every_name_imports_nothing_heavy():
    heavy = "{'keras', 'tensorflow', 'jax', 'torch', 'pandas', 'scipy', 'matplotlib'}"
    done = python(
        "import sys, nmutant_cli\n"
        "print({'numpy', 'pydantic'} & set(sys.modules))\n"
        "from nmutant_cli import *\n"
        f"print({heavy} & set(sys.modules), Experiment.__name__)"
    )
    assert done.stdout == "set()\nset() Experiment\n", done.stderr


@pytest.mark.parametrize("kind", ["labels", "scores", "keras"])
def test_kappa_is_that_of_a_literal_loop(kind):
    predict = {"labels": own.labels, "scores": own.scores, "keras": own.network()}[kind]
    kappas = nmutant_cli.kappa(predict, own.IMAGES, step_size=8, mutations=30, seed=5)
    assert (kappas.dtype, kappas.shape) == (np.float64, (12,))
    label = own.labels(own.IMAGES)
    for i, stream in enumerate(streams(own.IMAGES, Mutation(), 5, "kappa")):
        drawn, changes = stream.take(0, 30), 0
        for j in range(30):
            mutated = apply(own.IMAGES[i : i + 1], drawn[j : j + 1], 8)
            changes += int(own.labels(mutated)[0] != label[i])
        assert kappas[i] == changes / 30
    assert len(set(kappas)) > 2


def test_kappa_does_not_depend_on_company_and_does_on_the_seed():
    together = nmutant_cli.kappa(own.labels, own.IMAGES, 8, 30)
    assert (nmutant_cli.kappa(own.labels, own.IMAGES[::-1], 8, 30) == together[::-1]).all()
    assert nmutant_cli.kappa(own.labels, own.IMAGES[3:4], 8, 30) == together[3]
    assert (nmutant_cli.kappa(own.labels, own.IMAGES, 8, 30, seed=1) != together).any()
    assert nmutant_cli.kappa(own.labels, own.IMAGES[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"step_size": 0}, ConfigError, "step_size: 0 is not allowed; it must be above 0"),
        ({"step_size": float("inf")}, ConfigError, "step_size: inf is not allowed"),
        ({"mutations": 0}, ConfigError, "mutations: 0 is not allowed; it must be 1 or more"),
        ({"images": own.IMAGES8}, DataError, "images: holds uint8; images are float"),
        ({"predict": lambda images: images}, ModelError, "the model gave float32 of shape"),
    ],
)
def test_kappas_that_cannot_be(change, error, said):
    with pytest.raises(error, match=said):
        nmutant_cli.kappa(**{"predict": own.labels, "images": own.IMAGES, **change})


def test_a_config_as_the_command_line_reads_it():
    settings = nmutant_cli.load_config("digits", ["detection.cap=77"], seed=5)
    assert (settings.dataset, settings.detection.cap, settings.seed) == ("digits", 77, 5)
    with pytest.raises(nmutant_cli.NMutantError, match="--config digts: no such file"):
        nmutant_cli.load_config("digts")
