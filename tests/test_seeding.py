from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nmutant_cli.seeding import library_seed, stream, stream_key

names = st.lists(st.one_of(st.integers(-5, 2**40), st.text(max_size=8)), max_size=4)


@given(seed=st.integers(0, 2**63), name=names)
def test_a_stream_is_known_by_its_name_alone(seed, name):
    first = stream(seed, *name).random(4)
    stream(seed, *name, "other").random(100)
    assert (stream(seed, *name).random(4) == first).all()
    assert 0 <= library_seed(seed, *name) < 2**31


@given(seed=st.integers(0, 2**63), name=names, other=names)
def test_different_names_are_different_streams(seed, name, other):
    if name != other:
        assert stream_key(seed, *name) != stream_key(seed, *other)
    assert stream_key(seed, *name) != stream_key(seed + 1, *name)


def test_a_number_and_its_digits_are_different_names():
    assert stream_key(0, 1) != stream_key(0, "1")


def test_blocks_are_further_stretches_of_one_stream():
    assert (stream(7, "a", block=3).random(8) != stream(7, "a", block=4).random(8)).all()
    # numpy's own jump is 2**128 draws; a block lies beyond any number of them we could take.
    assert stream(7, "a", block=1).bit_generator.state["state"]["counter"].tolist() == [0, 0, 0, 1]
