"""The weight files that belong to an ONNX file are part of what it is."""

from __future__ import annotations

import own
import pytest

from nmutant_cli.errors import ModelError
from nmutant_cli.files import file_digest
from nmutant_cli.own_model.model import open_model
from nmutant_cli.own_model.onnx_file import onnx_digest, weight_files

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def save(path, **external):
    """The network of the tests, its weights in ``weights.bin`` beside it."""
    own.save_onnx(path)
    onnx.save(onnx.load(path), path, save_as_external_data=True, size_threshold=0, **external)


def elsewhere(name, location="far.bin"):
    """A tensor that another file holds."""
    tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=[1])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("offset", "0"), ("location", location), ("length", "4")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def test_another_weight_file_is_another_model(tmp_path):
    path, weights = tmp_path / "net.onnx", tmp_path / "weights.bin"
    save(path, location="weights.bin")
    before, digest = open_model(str(path)), file_digest(path)
    assert (before.predict(own.IMAGES).argmax(axis=1) == own.labels(own.IMAGES)).all()
    data = bytearray(weights.read_bytes())
    data[0] ^= 1
    weights.write_bytes(data)
    after = open_model(str(path))
    assert file_digest(path) == digest
    assert after.network.name == before.network.name
    assert after.network.sha256 != before.network.sha256
    data[0] ^= 1
    weights.write_bytes(data)
    assert open_model(str(path)).network == before.network


def test_every_weight_file_counts(tmp_path):
    path = tmp_path / "net.onnx"
    save(path, all_tensors_to_one_file=False)
    names = sorted(p.name for p in tmp_path.iterdir() if p != path)
    assert names == sorted(own.ONNX_WEIGHTS)
    assert sorted(weight_files(memoryview(path.read_bytes()))) == names
    digests = {onnx_digest(path)}
    for name in names:
        with (tmp_path / name).open("ab") as file:
            file.write(b"0")
        digests.add(onnx_digest(path))
    assert len(digests) == 1 + len(names)


def test_a_file_that_holds_its_weights_is_known_by_its_bytes(tmp_path):
    own.save_onnx(tmp_path / "net.onnx")
    assert onnx_digest(tmp_path / "net.onnx") == file_digest(tmp_path / "net.onnx")


def model_with(tensor_in: str, tensor):
    """A model that has ``tensor`` in one of the places that ONNX knows for tensors."""
    helper = onnx.helper
    constant = helper.make_node("Constant", [], ["c"])
    attribute = constant.attribute.add(name="value")
    inner = helper.make_graph([], "inner", [], [])
    graph = helper.make_graph([], "outer", [], [])
    model = helper.make_model(graph)
    if tensor_in == "initializer":
        model.graph.initializer.append(tensor)
    elif tensor_in == "sparse values":
        model.graph.sparse_initializer.add().values.CopyFrom(tensor)
    elif tensor_in == "sparse indices":
        model.graph.sparse_initializer.add().indices.CopyFrom(tensor)
    elif tensor_in == "inner graph":
        inner.initializer.append(tensor)
        attribute.g.CopyFrom(inner)
        model.graph.node.append(constant)
    elif tensor_in == "inner graphs":
        inner.initializer.append(tensor)
        attribute.graphs.append(inner)
        model.graph.node.append(constant)
    else:
        if tensor_in == "attributes":
            attribute.tensors.append(tensor)
        elif tensor_in == "sparse attribute":
            attribute.sparse_tensor.values.CopyFrom(tensor)
        elif tensor_in == "sparse attributes":
            attribute.sparse_tensors.add().values.CopyFrom(tensor)
        else:
            attribute.t.CopyFrom(tensor)
        nodes = model.functions.add().node if tensor_in == "function" else model.graph.node
        nodes.append(constant)
    return model


PLACES = (
    "initializer", "sparse values", "sparse indices", "inner graph", "inner graphs", "attribute",
    "attributes", "sparse attribute", "sparse attributes", "function",
)  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_weights_are_found_wherever_a_tensor_can_be(place):
    data = model_with(place, elsewhere("w")).SerializeToString()
    assert list(weight_files(memoryview(data))) == ["far.bin"]
    within = elsewhere("w")
    within.data_location = onnx.TensorProto.DEFAULT
    data = model_with(place, within).SerializeToString()
    assert list(weight_files(memoryview(data))) == []


@pytest.mark.parametrize("location", ["far.bin", "/etc/hostname", "../net.onnx", "."])
def test_weights_that_are_not_beside_the_model(tmp_path, location):
    folder = tmp_path / "deep"
    folder.mkdir()
    (tmp_path / "net.onnx").write_bytes(b"")
    data = model_with("initializer", elsewhere("w", location)).SerializeToString()
    (folder / "net.onnx").write_bytes(data)
    with pytest.raises(ModelError, match=r"net.onnx: its weights are in .*, which is not beside"):
        open_model(str(folder / "net.onnx"))


def test_any_cut_is_one_clear_error(tmp_path):
    path = tmp_path / "net.onnx"
    own.save_onnx(path)
    data = path.read_bytes()
    for end in range(1, 120):
        path.write_bytes(data[:end])
        with pytest.raises(ModelError, match=r"not a readable ONNX model|takes"):
            open_model(str(path))
