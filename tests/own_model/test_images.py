"""Images from folders, files, arrays and lists; every one that cannot be used is named."""

from __future__ import annotations

import os

import numpy as np
import own
import pytest
from PIL import Image

from nmutant_cli.errors import DataError
from nmutant_cli.own_model.images import read


def stacked(items):
    items = list(items)
    assert [item.problem for item in items] == [""] * len(items)
    return np.stack([item.image for item in items])


def problems(items):
    return {item.name.rpartition("/")[2]: item.problem for item in items if item.image is None}


def test_a_folder_in_the_order_of_names(tmp_path):
    own.save_pngs(tmp_path / "in")
    (tmp_path / "in" / ".hidden").write_text("")
    (tmp_path / "in" / ".folder").mkdir()
    (tmp_path / "in" / ".folder" / "a.png").write_text("")
    (tmp_path / "in" / "empty").mkdir()
    items = list(read(str(tmp_path / "in"), own.SHAPE))
    assert [item.name for item in items] == [
        str(tmp_path / "in" / f"{i:02}.png") for i in range(12)
    ]
    found = stacked(items)
    assert found.dtype == np.float32
    assert (found == own.IMAGES).all()


def test_folders_in_a_folder_and_several_paths(tmp_path, monkeypatch):
    """As ImageFolder of torchvision keeps them: a folder for each class."""
    monkeypatch.chdir(tmp_path)
    own.save_pngs(tmp_path / "in")
    for i in range(12):
        folder = tmp_path / "classes" / ("cat" if i % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / f"{i:02}.png").rename(folder / f"{i:02}.png")
    (tmp_path / "classes" / "linked").symlink_to(tmp_path / "classes" / "cat")
    (tmp_path / "classes" / "cat" / "up").symlink_to(tmp_path / "classes")
    (tmp_path / "classes" / "dog" / "broken.png").symlink_to(tmp_path / "absent")
    items = list(read("classes", own.SHAPE))
    assert problems(items) == {"broken.png": "cannot be read (No such file or directory)"}
    cats, dogs = [1, 3, 5, 7, 9, 11], [0, 2, 4, 6, 8, 10]
    assert [item.name for item in items if item.image is not None] == [
        *(f"classes/cat/{i:02}.png" for i in cats),
        *(f"classes/dog/{i:02}.png" for i in dogs),
        *(f"classes/linked/{i:02}.png" for i in cats),
    ]
    np.save("a.npy", own.IMAGES[:2])
    found = stacked(read(["classes/dog/02.png", "a.npy", "classes/cat/01.png"], own.SHAPE))
    assert (found == own.IMAGES[[2, 0, 1, 1]]).all()
    with pytest.raises(DataError, match="absent: no such file"):
        list(read(["a.npy", "absent"], own.SHAPE))


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert problems(read(str(tmp_path))) == {"pipe": "is not a file"}


def test_one_file_and_a_list(tmp_path):
    own.save_pngs(tmp_path / "in")
    one = str(tmp_path / "in" / "03.png")
    assert (stacked(read(one)) == own.IMAGES[3:4]).all()
    lines = [f"{one}\n", "\n", f"{tmp_path / 'absent.png'}\r\n", f"{tmp_path / 'in' / '01.png'}"]
    items = list(read("-", None, lines))
    assert problems(items) == {"absent.png": "cannot be read (No such file or directory)"}
    assert (stacked(i for i in items if not i.problem) == own.IMAGES[[3, 1]]).all()


@pytest.mark.parametrize("array", [own.IMAGES, own.IMAGES8, own.IMAGES[..., 0]])
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
@pytest.mark.parametrize("shape", [None, own.SHAPE, (None, None, 1)])
def test_arrays(tmp_path, array, name, shape):
    path = tmp_path / name
    np.save(path, array) if name == "a.npy" else np.savez(path, array)
    items = list(read(str(path), shape))
    assert [item.name for item in items] == [f"{path}[{i}]" for i in range(12)]
    assert (stacked(items) == own.IMAGES).all()


def test_a_single_image_in_an_array(tmp_path):
    for array in (own.IMAGES[0], own.IMAGES[0, ..., 0]):
        np.save(tmp_path / "one.npy", array)
        assert (stacked(read(str(tmp_path / "one.npy"), own.SHAPE)) == own.IMAGES[:1]).all()


def test_the_array_called_images(tmp_path):
    np.savez(tmp_path / "a.npz", labels=np.arange(12), images=own.IMAGES)
    assert len(stacked(read(str(tmp_path / "a.npz")))) == 12
    np.savez(tmp_path / "b.npz", y=np.arange(12), x=own.IMAGES)
    (item,) = read(str(tmp_path / "b.npz"))
    assert item.problem == "holds y, x; it must hold one array, or one called images"


def test_colours(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "rgb.png")
    (item,) = read(str(tmp_path / "rgb.png"), (8, 8, 3))
    assert (item.image == rgb.astype(np.float32) / np.float32(255)).all()
    (item,) = read(str(tmp_path / "rgb.png"), (8, 8, 1))
    assert item.problem == "is 8x8x3, not 8x8x1"


def test_each_that_cannot_be_used_is_named_and_the_others_are_read(tmp_path):
    folder = tmp_path / "in"
    own.save_pngs(folder)
    (folder / "cut.png").write_bytes((folder / "00.png").read_bytes()[:40])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("not an image")
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(folder / "tall.png")
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(folder / "deep.png")
    Image.fromarray(np.zeros((8, 8, 4), np.uint8)).save(folder / "alpha.png")
    np.save(folder / "nan.npy", np.where(np.arange(64).reshape(8, 8) == 5, np.nan, 0.5))
    np.save(folder / "inf.npy", np.full((8, 8), np.inf))
    np.save(folder / "bytes.npy", np.full((8, 8), 200.0))
    np.save(folder / "whole.npy", np.zeros((8, 8), np.int32))
    np.save(folder / "flat.npy", np.zeros(64))
    np.save(folder / "none.npy", np.zeros((0, *own.SHAPE)))
    np.save(folder / "wide.npy", np.zeros((3, 8, 9, 1)))
    np.save(folder / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (folder / "damaged.npz").write_bytes(b"PK\x03\x04 nothing")
    items = list(read(str(folder), own.SHAPE))
    assert sum(item.image is not None for item in items) == 12
    found = problems(items)
    assert found == {
        "cut.png": found["cut.png"],
        "empty.png": "is not an image",
        "text.png": "is not an image",
        "tall.png": "is 9x8x1, not 8x8x1",
        "deep.png": "has the mode I;16; 8-bit grey, RGB and RGBA are read",
        "alpha.png": "is 8x8x4, not 8x8x1",
        "nan.npy[0]": "has a value that is not a number",
        "inf.npy[0]": "is infinite",
        "bytes.npy[0]": "has values from 200 to 200; images lie in [0, 1], or are uint8",
        "whole.npy": "holds int32; images are float (0 to 1) or uint8 (0 to 255)",
        "flat.npy": "has the shape (64,); images are (n, height, width, channels)",
        "none.npy": "holds no image",
        "wide.npy": "holds images of 8x9x1, not 8x8x1",
        "pickled.npy": "holds pickled objects, which are never loaded",
        "damaged.npz": found["damaged.npz"],
    }
    assert "\n" not in "".join(found.values())
    assert found["damaged.npz"].startswith("is damaged or not an array file")


def test_the_first_image_stands_for_all_where_the_model_takes_any(tmp_path):
    own.save_pngs(tmp_path / "in")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "in" / "05b.png")
    assert problems(read(str(tmp_path / "in"))) == {"05b.png": "is 9x9x1, not 8x8x1"}


@pytest.mark.parametrize("path", ["absent", "empty", "-"])
def test_nothing_there(tmp_path, path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    said = {
        "absent": "absent: no such file or folder",
        "empty": "empty: there is no file in this folder",
        "-": "-: no path was given on standard input",
    }
    with pytest.raises(DataError, match=said[path]):
        list(read(path, None, ["\n"]))


def test_a_name_that_no_terminal_can_show(tmp_path):
    (tmp_path / "a\nb.png").write_text("")
    (item,) = read(str(tmp_path))
    assert item.name.endswith("a\\nb.png")
