"""docs/own-model.md runs, with small images and models, and for speed few mutations of them."""

from __future__ import annotations

import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from conftest import ROOT, nmutant

from nmutant_cli.own_model.calibration import Calibration

PAGE = (ROOT / "docs" / "own-model.md").read_text(encoding="utf-8")
COMMON, *_ = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SECTIONS = dict(re.findall(r"### ([^\n]*)\n\n```python\n(.*?)```", PAGE, re.DOTALL))
ATTACKS = dict(
    re.findall(r"^With (\w+) [^\n]*\n\n```python\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
)
COMMANDS = re.findall(r"^    nmutant (calibrate|detect) (.*)$", PAGE, re.MULTILINE)
SHAPE, CLASSES = (8, 8, 3), 3
NEEDS = {
    "PyTorch": ["torch"],
    "ONNX": ["onnx", "onnxruntime"],
    "A function": [],
    "HTTP": [],
    "Keras": ["keras"],
}
WEIGHTS = np.random.default_rng(3).normal(0, 0.2, (int(np.prod(SHAPE)), CLASSES))


def labels(images):
    return (images.reshape(len(images), -1) @ WEIGHTS).argmax(axis=1)


class Labels(BaseHTTPRequestHandler):
    """Gives the labels of what is posted."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        found = labels(np.array(json.loads(body)["images"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"labels": found.tolist()}).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def address():
    server = HTTPServer(("127.0.0.1", 0), Labels)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def save_models(name):
    """What the reader has: the linear model above, in the form of this section."""
    if name == "Keras":
        import keras

        layers = [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(CLASSES)]
        model = keras.Sequential(layers)
        model.set_weights([WEIGHTS.astype(np.float32), np.zeros(CLASSES, np.float32)])
        model.save("mine.keras")
    if name == "ONNX":
        from onnx import TensorProto, helper, numpy_helper, save

        nodes = [
            helper.make_node("Transpose", ["x"], ["last"], perm=[0, 2, 3, 1]),
            helper.make_node("Flatten", ["last"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["scores"]),
        ]
        rows, columns, channels = SHAPE
        batch, tensor = "n", helper.make_tensor_value_info
        graph = helper.make_graph(
            nodes,
            "mine",
            [tensor("x", TensorProto.FLOAT, [batch, channels, rows, columns])],
            [tensor("scores", TensorProto.FLOAT, [batch, CLASSES])],
            [numpy_helper.from_array(WEIGHTS.astype(np.float32), "weights")],
        )
        opset = [helper.make_opsetid("", 17)]
        save(helper.make_model(graph, opset_imports=opset, ir_version=10), "mine.onnx")


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """The reader's folder: images, and a module ``mine``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nmutant_cli.own_model.guarantee.ODDS", (8.0,))  # for speed
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(
        "import test_own_page as page\n"
        "class forest:\n"
        "    @staticmethod\n"
        "    def predict(rows):\n"
        "        return page.labels(rows)\n"
        "def __getattr__(name):\n"
        "    if name != 'module':\n"
        "        raise AttributeError(name)\n"
        "    import torch\n"
        "    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))\n"
        "    torch.manual_seed(0)\n"
        "    torch.nn.init.normal_(net[1].weight)\n"
        "    return net\n"
    )
    rng = np.random.default_rng(0)
    for name, n in (("clean", 120), ("adversarial", 12), ("new", 6)):
        np.save(f"{name}.npy", rng.random((n, *SHAPE), dtype=np.float32))
    return tmp_path


def test_every_section_is_tried():
    assert set(SECTIONS) == set(NEEDS)
    assert len(COMMANDS) == 4
    for code in SECTIONS.values():
        assert len([line for line in code.splitlines() if line.strip()]) <= 5


@pytest.mark.parametrize("name", NEEDS)
def test_a_section_and_what_all_have_in_common(name, reader, address):
    for library in NEEDS[name]:
        pytest.importorskip(library)
    save_models(name)
    code = SECTIONS[name].replace("localhost:8000", address)
    names: dict = {}
    exec(compile(code, f"own-model.md, {name}", "exec"), names)
    common = COMMON.replace("target=", "step_sizes=[5], mutations=60, target=")
    exec(compile(common, "own-model.md", "exec"), names)
    assert len(names["found"]) == 6
    assert Calibration.load("mine.yaml") == names["calibration"]
    if name != "PyTorch":
        assert (names["found"].label == labels(np.load("new.npy"))).all()


@pytest.mark.parametrize(("name", "library"), [("ART", "art"), ("Foolbox", "foolbox")])
@pytest.mark.filterwarnings("ignore")
def test_adversarial_images_from_a_library(name, library, reader):
    pytest.importorskip("torch")
    pytest.importorskip(library)
    assert set(ATTACKS) == {"ART", "Foolbox"}
    names: dict = {"np": np, "clean": np.load("clean.npy")[:20]}
    exec(compile(SECTIONS["PyTorch"], "own-model.md, PyTorch", "exec"), names)
    code = ATTACKS[name].replace("steps=100", "steps=40").replace(", 10\n", f", {CLASSES}\n")
    exec(compile(code, f"own-model.md, {name}", "exec"), names)
    adversarial, predict, clean = (names[key] for key in ("adversarial", "predict", "clean"))
    assert len(adversarial) > 10
    assert adversarial.shape[1:] == SHAPE
    assert ((adversarial >= 0) & (adversarial <= 1)).all()
    nearest = ((adversarial[:, None] - clean[None]) ** 2).sum(axis=(2, 3, 4)).argmin(axis=1)
    assert len(set(nearest)) == len(nearest)
    assert (predict(adversarial) != predict(clean)[nearest]).all()


@pytest.mark.parametrize(("name", "commands"), [("Keras", COMMANDS[:2]), ("ONNX", COMMANDS[2:])])
def test_the_commands(name, commands, reader):
    for library in NEEDS[name]:
        pytest.importorskip(library)
    save_models(name)
    for command, line in commands:
        cheap = ["--step-size", "5", "--mutations", "60"] if command == "calibrate" else []
        done = nmutant(command, *line.split(), *cheap)
        assert done.code == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1 + len(np.load("new.npy"))
