"""Data sets: what is loaded, and what is refused."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from nmutant_cli.datasets import ARRAYS, load_dataset
from nmutant_cli.errors import DataError
from nmutant_cli.files import read_npz


def refused(name="mnist"):
    with pytest.raises(DataError) as caught:
        load_dataset(name)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


def test_digits():
    data = load_dataset("digits")
    assert data.x_train.shape == (1097, 28, 28, 1)
    assert data.x_test.shape == (700, 28, 28, 1)
    assert data.image_shape == (28, 28, 1)
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        assert (x.dtype, y.dtype) == (np.float32, np.int64)
        assert (x.min(), x.max()) == (0, 1)
        assert set(y) == set(range(10))
        np.testing.assert_array_equal(np.rint(x * 255) / np.float32(255), x)
    assert data.digest == load_dataset("digits").digest


def test_a_small_valid_file(arrays, data_dir):
    np.savez(data_dir / "mnist.npz", **arrays)
    data = load_dataset("mnist")
    assert data.x_train.shape == (30, 28, 28, 1)
    assert data.x_test.shape == (20, 28, 28, 1)
    for half in ("train", "test"):
        x, y = getattr(data, f"x_{half}"), getattr(data, f"y_{half}")
        assert (x.dtype, y.dtype) == (np.float32, np.int64)
        assert 0 <= x.min() < x.max() <= 1
        np.testing.assert_array_equal((x[..., 0] * 255).astype(np.uint8), arrays[f"x_{half}"])
        np.testing.assert_array_equal(y, arrays[f"y_{half}"])


def test_the_digest_is_that_of_the_content(arrays, data_dir):
    np.savez(data_dir / "mnist.npz", **arrays)
    first = load_dataset("mnist").digest
    np.savez_compressed(data_dir / "mnist.npz", **dict(reversed(arrays.items())))
    assert load_dataset("mnist").digest == first
    arrays["x_test"][0, 0, 0] ^= 1
    np.savez(data_dir / "mnist.npz", **arrays)
    assert load_dataset("mnist").digest != first


def test_colour_images(data_dir):
    x = np.zeros((4, 32, 32, 3), np.uint8)
    y = np.zeros(4, np.uint8)
    np.savez(data_dir / "cifar10.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    assert load_dataset("cifar10").image_shape == (32, 32, 3)


def test_a_missing_file(data_dir):
    text = refused()
    assert text.startswith(f"{data_dir / 'mnist.npz'}: no such file; put it there")
    assert "NMUTANT_DATA_DIR" in text


def test_a_missing_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NMUTANT_DATA_DIR", str(tmp_path / "nowhere"))
    assert refused().startswith(f"{tmp_path / 'nowhere' / 'mnist.npz'}: no such file")


def test_a_folder_in_its_place(data_dir):
    (data_dir / "mnist.npz").mkdir()
    assert refused().startswith(f"{data_dir / 'mnist.npz'}: no such file")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file(arrays, data_dir, save, kept):
    path = data_dir / "mnist.npz"
    save(path, **arrays)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert refused().startswith(f"{path}: damaged or not an .npz file")


def test_flipped_bytes_are_found(arrays, data_dir):
    path = data_dir / "mnist.npz"
    np.savez(path, **arrays)
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)
    assert refused().startswith(f"{path}: damaged or not an .npz file (Bad CRC-32")


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04" + bytes(100), b"\x80\x04.", b"text"])
def test_a_file_of_another_kind(data_dir, content):
    (data_dir / "mnist.npz").write_bytes(content)
    assert refused().startswith(f"{data_dir / 'mnist.npz'}: damaged or not an .npz file")


def test_a_single_array(arrays, data_dir):
    with (data_dir / "mnist.npz").open("wb") as file:
        np.save(file, arrays["x_train"])
    assert refused().startswith(f"{data_dir / 'mnist.npz'}: damaged or not an .npz file")


@pytest.mark.parametrize("name", ARRAYS)
def test_a_missing_array(arrays, data_dir, name):
    del arrays[name]
    np.savez(data_dir / "mnist.npz", **arrays)
    assert refused().startswith(f"{data_dir / 'mnist.npz'}: lacks the array {name!r}")


def test_a_member_that_is_no_array(arrays, data_dir):
    path = data_dir / "mnist.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if name != "x_test"})
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("x_test", b"text")
    assert refused().startswith(f"{path}: lacks the array 'x_test'")


def test_an_array_that_claims_to_be_huge(arrays, data_dir):
    path = data_dir / "mnist.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if name != "x_test"})
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**15, 28, 28)}
    )
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("x_test.npy", header.getvalue())
    assert refused().startswith(f"{path}: damaged or not an .npz file")


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        (
            "x_train",
            lambda x: x[:, :27],
            "x_train has shape (30, 27, 28), expected (60000, 28, 28)",
        ),
        ("x_train", lambda x: x[..., None], "x_train has shape (30, 28, 28, 1), expected"),
        ("x_train", lambda x: x.reshape(30, 784), "x_train has shape (30, 784), expected"),
        ("x_test", lambda x: x[:0], "x_test has shape (0, 28, 28), expected (10000, 28, 28)"),
        ("x_test", lambda x: x.repeat(501, 0), "x_test has shape (10020, 28, 28), expected"),
        ("x_test", lambda x: np.uint8(3), "x_test has shape (), expected"),
        ("x_test", lambda x: x / 255, "x_test is float64, expected uint8"),
        ("y_test", lambda y: y.astype(np.int64), "y_test is int64, expected uint8"),
        ("y_test", lambda y: y[:-1], "y_test has shape (19,), expected (20,)"),
        ("y_test", lambda y: np.eye(10, dtype=np.uint8)[y], "y_test has shape (20, 10), expected"),
        ("y_train", lambda y: np.uint8(3), "y_train has shape (), expected (30,)"),
        ("y_train", lambda y: y + np.uint8(1), "y_train has the label 10, expected 0 to 9"),
    ],
)
def test_arrays_that_are_not_what_they_should_be(arrays, data_dir, name, change, expected):
    np.savez(data_dir / "mnist.npz", **arrays | {name: change(arrays[name])})
    assert refused().startswith(f"{data_dir / 'mnist.npz'}: {expected}")


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickles_are_refused_and_never_loaded(arrays, data_dir, tmp_path):
    path, trace = data_dir / "mnist.npz", tmp_path / "trace"
    payload = np.array([Payload(trace)], dtype=object)
    np.savez(path, **arrays | {"y_test": payload}, allow_pickle=True)
    assert refused() == f"{path}: holds pickled objects, which are never loaded"
    path.write_bytes(pickle.dumps(Payload(trace)))
    assert refused().startswith(f"{path}: damaged or not an .npz file")
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists()  # so the payload works


def test_read_npz_of_no_file(tmp_path):
    with pytest.raises(DataError, match=r"none\.npz: no such file"):
        read_npz(tmp_path / "none.npz", ARRAYS)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_without_a_folder_keras_downloads(name, monkeypatch, arrays, capsys):
    import keras

    if name == "cifar10":
        arrays = {
            key: np.zeros((len(a), 32, 32, 3), np.uint8) if key[0] == "x" else a[:, None]
            for key, a in arrays.items()
        }

    def load_data():
        print("Downloading data from afar")
        return (arrays["x_train"], arrays["y_train"]), (arrays["x_test"], arrays["y_test"])

    monkeypatch.delenv("NMUTANT_DATA_DIR", raising=False)
    monkeypatch.setattr(getattr(keras.datasets, name), "load_data", load_data)
    assert load_dataset(name).y_test.shape == (20,)
    assert capsys.readouterr() == ("", "Downloading data from afar\n")


def test_without_network_the_message_says_where_to_put_the_file(monkeypatch):
    import keras

    def load_data():
        raise Exception("URL fetch failure\non https://example.org")

    monkeypatch.setenv("NMUTANT_DATA_DIR", "")
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", load_data)
    text = refused("cifar10")
    assert "the download failed (URL fetch failure)" in text
    assert "put cifar10.npz with the arrays x_train, y_train, x_test, y_test (uint8)" in text
    assert text.endswith("set NMUTANT_DATA_DIR to it")
