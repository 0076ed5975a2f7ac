"""Everything but BIM, PGD and attacks with dropout on runs on JAX and PyTorch without TensorFlow.

Each is tested where it is installed.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, environment, nmutant, options

from nmutant_cli.config.mutation import Mutation
from nmutant_cli.mutation.dropout import KeyedDropout
from nmutant_cli.mutation.graph import Mutate
from nmutant_cli.mutation.operator import MutationStream, apply, draw
from nmutant_cli.networks import backend, inference
from nmutant_cli.pipeline.samples import SampleSet, from_8_bits

SEED = 20180514
NO_TENSORFLOW = "import sys; sys.modules |= dict.fromkeys(('tensorflow', 'cleverhans'))\n"
COMMANDS = "from nmutant_cli.cli import main\n" + "main(sys.argv[1:], prog_name='nmutant')\n"
FLOAT32 = 1e-4
"""Logits of one image by two backends are nearer than this for the networks here."""

installed = [
    pytest.param(
        name,
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(
                importlib.util.find_spec(name) is None, reason=f"{name} is not installed"
            ),
        ],
    )
    for name in ("jax", "torch")
]


def on(backend_name, code, *arguments):
    """Run ``code`` in a fresh interpreter on that backend, with no TensorFlow to be imported."""
    env = environment()
    env["PYTHONPATH"] += os.pathsep + os.environ.get("PYTHONPATH", "")
    env.pop("KERAS_BACKEND", None)
    if backend_name:
        env["KERAS_BACKEND"] = backend_name
    return subprocess.run(
        [sys.executable, "-c", NO_TENSORFLOW + code, *(str(a) for a in arguments)],
        capture_output=True,
        text=True,
        env=env,
        check=False,
    )


@pytest.fixture
def crafted(finished, tmp_path):
    """A run folder with networks and sample sets, and nothing that was measured."""
    path = tmp_path / "run"
    for name in ("samples", "adversarial"):
        shutil.copytree(finished / name, path / name)
    for file in finished.glob("model*.keras"):
        shutil.copy(file, path)
    entries = json.loads((finished / "manifest.json").read_text())["artefacts"]
    kept = {k: e for k, e in entries.items() if k.endswith((".keras", ".npz"))}
    (path / "manifest.json").write_text(json.dumps({"artefacts": kept}))
    return path


def margins(folder, slug, row, step):
    """How far ahead the first logit is: for a sample itself, and under each shared mutation."""
    samples = SampleSet.load(folder / next(folder.rglob(f"{slug}.npz")).relative_to(folder))
    image = samples.image if slug in ("normal", "wl") else from_8_bits(samples.image8)
    shape = image.shape[1:]
    drawn = MutationStream(shape, Mutation(), SEED, "digits", "kappa", "shared").take(0, 20)
    images = np.concatenate([image[[row]], apply(image[[row] * 20], drawn, step)])
    logits = np.sort(inference.logits_fn(inference.load(folder / "model.keras"))(images), axis=1)
    ahead = logits[:, -1] - logits[:, -2]
    return ahead[0], ahead[1:]


@pytest.mark.parametrize("name", installed)
def test_measured_and_reported_without_tensorflow(name, finished, crafted):
    done = on(name, COMMANDS, "report", *options(crafted))
    assert done.returncode == 0, done.stderr
    entries = json.loads((crafted / "manifest.json").read_text())["artefacts"]
    assert entries["model.keras"]["versions"]["backend"] == "tensorflow"
    made = entries["kappa/normal.csv"]
    assert made["versions"]["backend"] == name
    assert made["versions"]["device"]
    assert made["counts"]["mutations_per_second"] > 0
    ours, theirs = (pd.read_csv(f / "kappa.csv") for f in (crafted, finished))
    key = ["samples", "index", "source_index", "step_size", "mutations"]
    pd.testing.assert_frame_equal(ours[key], theirs[key])
    for at in np.flatnonzero(ours["changes"] != theirs["changes"]):
        row = ours.loc[at]
        own, mutated = margins(crafted, row.samples, row["index"], row.step_size)
        flips = abs(row.changes - theirs.loc[at, "changes"])
        assert own < FLOAT32 or flips <= (mutated < FLOAT32).sum(), row
    for table in ("detections.csv", "table1.csv", "table2.csv"):
        assert len(pd.read_csv(crafted / table)) == len(pd.read_csv(finished / table))


@pytest.mark.parametrize("name", installed)
def test_training_without_tensorflow(name, tmp_path):
    weights = []
    for run in ("a", "b"):
        done = on(name, COMMANDS, "train", *options(tmp_path / run))
        assert done.returncode == 0, done.stderr
        weights.append(inference.load(tmp_path / run / "model.keras").get_weights())
        assert not list((tmp_path / run).glob(".*checkpoint*"))
    for one, two in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, two)


def arrays():
    rng = np.random.default_rng(5)
    shape, n = (9, 7, 3), 60
    drawn = draw(rng, n, shape, Mutation(amplitude=4))
    corners = np.stack(
        [drawn.top, drawn.left, drawn.top + drawn.height, drawn.left + drawn.width], axis=1
    )
    images = rng.random((n, *shape), dtype=np.float32)
    return {
        "images": images,
        "corners": corners,
        "level": 5 * drawn.level,
        "patch": 5 * drawn.patch,
        "key": np.concatenate([[0, 2**31 - 1], rng.integers(0, 2**31, n - 2)]).astype(np.int32),
    }, apply(images, drawn, 5)


LAYERS = """
import numpy as np, keras
from nmutant_cli.mutation.dropout import KeyedDropout
from nmutant_cli.mutation.graph import Mutate
a = np.load(sys.argv[1])
a = {k: keras.ops.convert_to_tensor(a[k]) for k in a.files}
out = {
    "mutated": Mutate()([a["images"], a["corners"], a["level"], a["patch"]]),
    "kept": KeyedDropout(0.5, salt=7)([keras.ops.ones_like(a["images"]), a["key"]]),
}
np.savez(sys.argv[2], **{k: keras.ops.convert_to_numpy(v) for k, v in out.items()})
"""


def hashed(key, salt, size):
    """The keyed mask, in whole numbers that cannot overflow."""

    def mix(x):
        for shift, factor in ((16, 0x45D9F3B), (15, 0x2C1B3C6D), (16, 1)):
            x &= 0x7FFFFFFF
            x = (x ^ (x >> shift)) * factor & 0xFFFFFFFF
        return x & 0x7FFFFFFF

    rows = [mix(int(k) ^ salt) for k in key]
    columns = [mix(i) for i in range(size)]
    return np.array([[mix(r ^ c) for c in columns] for r in rows])


@pytest.mark.parametrize("name", ["tensorflow", *installed])
def test_mutations_and_masks_are_the_same_on_every_backend(name, tmp_path):
    given, mutated = arrays()
    if name == "tensorflow":
        found = {
            "mutated": Mutate()([given[k] for k in ("images", "corners", "level", "patch")]),
            "kept": KeyedDropout(0.5, salt=7)([np.ones_like(given["images"]), given["key"]]),
        }
    else:
        np.savez(tmp_path / "in.npz", **given)
        done = on(name, LAYERS, tmp_path / "in.npz", tmp_path / "out.npz")
        assert done.returncode == 0, done.stderr
        found = dict(np.load(tmp_path / "out.npz"))
    np.testing.assert_allclose(np.asarray(found["mutated"]), mutated, atol=1e-6)
    bits = hashed(given["key"], 7, mutated[0].size).astype(np.float32)
    expected = np.where(bits * np.float32(2**-31) >= 0.5, 2, 0).reshape(mutated.shape)
    np.testing.assert_array_equal(np.asarray(found["kept"]), expected)


BFLOAT16_FIRST = """
import json, numpy as np, keras
from nmutant_cli.config.mutation import Mutation
from nmutant_cli.mutation import cascade, doubt
from nmutant_cli.mutation.audit import Audit
from nmutant_cli.mutation.graph import CompiledLabeller
from nmutant_cli.mutation.operator import MutationStream
from nmutant_cli.networks.architectures import NETWORKS
from nmutant_cli.networks.inference import in_bfloat16
cascade.WORTH, doubt.LEARNT = 0.0, 100
model = NETWORKS["mnist"]((28, 28, 1), 10, None)
images = np.random.default_rng(0).random((600, 28, 28, 1), dtype=np.float32)
drawn = MutationStream((28, 28, 1), Mutation(), 0, "x").take(0, 600)
exact, quick = (
    CompiledLabeller(of, 4.0, mutation=Mutation(), batch_size=200)
    for of in (model, in_bfloat16(model))
)
audit = Audit()
found = cascade.Cascade(exact, lambda: (quick, 2.0), audit).at(4.0)(images, drawn)
apart = np.abs(exact.ranked(images, drawn)[1] - quick.ranked(images, drawn)[1]).max()
wrong = int((found != exact(images, drawn)).sum())
print(json.dumps({"wrong": wrong, "apart": float(apart), **audit.as_counts()}))
"""


@pytest.mark.parametrize("name", installed)
def test_labels_asked_in_bfloat16_first_are_those_of_float32(name):
    done = on(name, BFLOAT16_FIRST)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == 0
    assert found["bfloat16_labels"] == 600
    assert 0 < found["apart"] < 1
    assert 0 < found["largest_bound"] <= 2 * found["apart"] + 1e-4


SHORTCUTS = """
import json, numpy as np
from nmutant_cli.config.mutation import Mutation
from nmutant_cli.mutation import doubt
from nmutant_cli.mutation.audit import Audit
from nmutant_cli.mutation.cascade import labeller
from nmutant_cli.mutation.operator import MutationStream
from nmutant_cli.mutation.sensitivity import changes_of
from nmutant_cli.networks.architectures import NETWORKS
doubt.LEARNT = 100
model = NETWORKS["mnist"]((28, 28, 1), 10, None)
images = np.random.default_rng(0).random((6, 28, 28, 1), dtype=np.float32)
sources = [MutationStream((28, 28, 1), Mutation(), 0, "x", i) for i in range(6)]
audit = Audit()
found, expected = (
    changes_of(
        labeller(model, audit, mutation=Mutation(), batch_size=100, shortcuts=way).at(4.0),
        images, sources, 200
    )
    for way in (True, False)
)
print(json.dumps({"wrong": int((found != expected).sum()), **audit.as_counts()}))
"""


@pytest.mark.parametrize("name", installed)
def test_labels_come_by_without_asking_are_those_of_asking(name):
    done = on(name, SHORTCUTS)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == 0
    assert found["light_labels"] > 300
    assert found["occlusion_labels"] > 300


def refusal(done):
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert done.stderr.startswith("Error: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stdout == ""
    return done.stderr.removeprefix("Error: ").rstrip("\n")


@pytest.mark.parametrize("name", installed)
def test_attack_sets_without_tensorflow(name, finished, crafted):
    shutil.rmtree(crafted / "adversarial")
    done = on(name, COMMANDS, "attack", *options(crafted))
    assert done.returncode == 0, done.stderr
    for path in sorted((finished / "adversarial").glob("*.npz")):
        theirs, ours = SampleSet.load(path), SampleSet.load(crafted / "adversarial" / path.name)
        np.testing.assert_array_equal(ours.index, theirs.index)
        # The substitute of a black box is another network on each backend.
        if path.stem != "bb":
            assert (ours.counts == theirs.counts).mean() >= 0.9, path.stem


ATTACKS = [
    {"method": "fgsm", "eps": 0.1},
    {"method": "fgsm", "eps": 0.1, "norm": "1", "targets": "others"},
    {"method": "fgsm", "eps": 0.1, "norm": "2"},
    {"method": "cw", "binary_search_steps": 2, "max_iterations": 30, "learning_rate": 0.05},
    {"method": "cw", "max_iterations": 20, "learning_rate": 0.05, "restarts": 1},
    {"method": "jsma", "theta": 1.0, "gamma": 0.3},
    {"method": "adaptive", "max_iterations": 15, "draws": 7, "learning_rate": 0.3},
    {
        "method": "adaptive", "max_iterations": 15, "draws": 7, "learning_rate": 0.3,
        "mutation": {"kinds": ["translation"]},
    },
    {"method": "past_squeezing", "bits": 3, "max_iterations": 40, "learning_rate": 0.05},
    {"method": "noise", "eps": 1.0},
]  # fmt: skip
CRAFT = """
import json
import attack_tools as tools
import numpy as np
from nmutant_cli.attacks import craft
from nmutant_cli.config.attacks import METHODS

def crafted(given):
    params, model, x = METHODS[given["method"]](**given), tools.network(3), tools.images(20, 3)
    targeted = params.targets != "untargeted"
    y = (tools.targets if targeted else tools.labels)(model, x)
    return craft(model, x, y, params, tools.BOUNDS, tools.generators(len(x))).x_adv
"""
SAVE = """
images = [crafted(given) for given in json.loads(sys.argv[1])]
np.savez(sys.argv[2], *images)
"""


@pytest.mark.parametrize("name", installed)
def test_attacks_are_the_same_on_every_backend(name, tmp_path):
    beside = f"sys.path.append({str(ROOT / 'tests')!r})\n"
    done = on(name, beside + CRAFT + SAVE, json.dumps(ATTACKS), tmp_path / "out.npz")
    assert done.returncode == 0, done.stderr
    here = {}
    exec(CRAFT, here)
    with np.load(tmp_path / "out.npz") as found:
        for given, images in zip(ATTACKS, found.values(), strict=True):
            apart = np.abs(images - here["crafted"](given)).reshape(len(images), -1).max(axis=1)
            # Hundreds of steps of Adam can make the last bits of a gradient visible.
            assert (apart < 1e-3).mean() >= 0.9, (given, apart)
            assert np.median(apart) < 1e-5, (given, apart)


@pytest.mark.parametrize("change", ["bim", "pgd", "attack.stochastic"])
def test_what_needs_tensorflow_says_so(crafted, monkeypatch, change):
    monkeypatch.setattr(backend, "name", lambda: "jax")
    if change == "attack.stochastic":
        slug, changes = "fgsm", ["attack.stochastic=true", "model.network=cifar10_allconv"]
    else:
        slug, changes = change, [f"attack.sets.{change}.method={change}"]
    said = nmutant("attack", "-q", *options(crafted, *changes)).error
    assert said.startswith(f"{crafted}/adversarial/{slug}.npz: this attack set is not there")
    reason = change if change == "attack.stochastic" else change.upper()
    assert f"{reason} needs TensorFlow (Keras runs on jax)" in said
    assert "KERAS_BACKEND=tensorflow" in said
    assert not list(crafted.rglob("*.tmp*"))


def test_a_backend_that_cannot_train(tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "name", lambda: "numpy")
    with pytest.raises(backend.ModelError, match=r"model\.keras: .* cannot do on numpy"):
        backend.require_training(tmp_path / "model.keras")
    found = nmutant("train", "-q", *options(tmp_path / "run"))
    assert found.error.startswith(f"{tmp_path}/run/model.keras: is to be trained")


@pytest.mark.parametrize("name", [None, "tensorflow", "nonesuch"])
def test_a_backend_that_is_not_there(name, tmp_path):
    said = refusal(on(name, COMMANDS, "train", *options(tmp_path / "run")))
    assert said.startswith("Keras cannot be imported (")
    assert "set KERAS_BACKEND to a library that is installed" in said
