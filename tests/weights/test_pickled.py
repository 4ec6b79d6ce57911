"""Pickles read as data: what comes out, and that nothing in them runs."""

import collections
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from faceswap_diffusion.weights.pickled import Inert, Name, PickleReader, read_arrays
from faceswap_diffusion.weights.registry import ModelFileError


class Call:
    """Pickles as a call of anything."""

    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


class Plain:
    def __init__(self):
        self.attribute = 1


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_is_what_pickle_makes_of_it(protocol: int):
    repeated = ["again", 7]
    data = {
        "numbers": [0, 1, -1, 255, 65_536, -(2**31), 2**70, 1.5, -0.0],
        "constants": (None, True, False, ()),
        "text": ["", "a" * 300, "größer"],
        "tuples": [(1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "repeated": [repeated, repeated],
        "nested": {"a": {"b": [[]]}},
    }
    assert PickleReader().read(pickle.dumps(data, protocol)) == data


def test_sets_and_bytes_of_newer_protocols():
    data = {"set": {1, 2}, "frozen": frozenset({3}), "bytes": b"\x00\xff"}
    assert PickleReader().read(pickle.dumps(data, 4)) == data


def test_the_oldest_protocol_is_read_too():
    assert PickleReader().read(pickle.dumps({"a": [1, "b", (2.5, None)]}, 0)) == {"a": [1, "b", (2.5, None)]}


def test_ordered_dictionaries_are_dictionaries():
    data = collections.OrderedDict(a=1, b=2)
    data.metadata = {"version": 1}  # pyright: ignore
    assert PickleReader().read(pickle.dumps(data, 2)) == {"a": 1, "b": 2}


def test_classes_are_names_and_their_objects_inert():
    read = PickleReader().read(pickle.dumps({"class": Plain, "object": Plain(), Plain: np.float64(2)}, 2))
    name = Name(f"{__name__}.Plain")
    assert read["class"] == name
    assert isinstance(read["object"], Inert)
    assert isinstance(read[name], Inert)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("nested", [False, True])
def test_calls_are_not_made(tmp_path: Path, protocol: int, nested: bool):
    trace = tmp_path / "it ran"
    calls = [Call(os.system, f"touch '{trace}'"), Call(os.mkdir, str(trace)), Call(eval, f"open({str(trace)!r}, 'w')")]
    if nested:
        calls = [Call(collections.OrderedDict, [("a", call)]) for call in calls]
    pickled = pickle.dumps(calls, protocol)
    PickleReader().read(pickled)
    assert not trace.exists()
    pickle.loads(pickle.dumps(calls[1], protocol))  # it would have, with pickle
    assert trace.exists()


def test_built_objects_keep_their_hands_off_ours():
    """A pickle may set attributes of what it names: here of the function that stands for a dictionary's class."""
    pickled = b"\x80\x02ccollections\nOrderedDict\n}X\x06\x00\x00\x00updateNsb."
    read = PickleReader().read(pickled)
    assert read == Name("collections.OrderedDict")
    assert callable(collections.OrderedDict.update)


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"not a pickle",
        pickle.dumps([1, 2, 3], 2)[:-3],
        b"\x80\x02.",  # nothing on the stack
        b"\x80\x02K\x01s.",  # an item without a dictionary
        b"\x80\x02K\x01K\x02K\x03s.",  # an item of a number
        b"\x80\x02}(]K\x01u.",  # a list as the key of a dictionary
        b"\x80\x02h\x05.",  # something again that never was
        b"\x80\x02\x82\x01.",  # an extension code
        b"\x80\x02K\x01Q.",  # a storage that is a number
    ],
)
def test_what_is_damaged_is_a_value_error(damaged: bytes):
    with pytest.raises(ValueError, match="no pickle of a checkpoint, or a damaged one"):
        PickleReader().read(damaged)


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        np.array([[1, -2]], ">i2"), np.array([True, False]), np.zeros((0, 2), np.uint8), np.array(3.5, np.float16),
    ],
)  # fmt: skip
def test_arrays_are_read(array: np.ndarray, protocol: int, tmp_path: Path):
    again = {"a": {"b": array}, "same": array}
    (tmp_path / "arrays.ckpt").write_bytes(pickle.dumps(again, protocol))
    read = read_arrays(tmp_path / "arrays.ckpt")
    for got in (read["a"]["b"], read["same"]):
        assert (got.dtype, got.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", r"names os\.system: only NumPy arrays are read"),
        (pickle.dumps({"a": [1.0]}, 4), "holds a list: only NumPy arrays are read"),
        (pickle.dumps({"a": np.array([{}, "text"], object)}, 4), "an array holds something else than numbers"),
        (pickle.dumps({"a": np.zeros(9)}, 4)[:-20], "it is no pickle of a checkpoint, or a damaged one"),
    ],
)
def test_a_file_of_anything_else_than_arrays_is_refused(content: bytes, told: str, tmp_path: Path):
    (tmp_path / "other.ckpt").write_bytes(content)
    with pytest.raises(ModelFileError, match=told):
        read_arrays(tmp_path / "other.ckpt")


def test_an_array_whose_bytes_are_fewer_than_its_shape_says_is_refused(tmp_path: Path):
    content = pickle.dumps({"a": np.zeros(3, np.uint8)}, 4)
    assert content.count(b"K\x03\x85") == 1  # the shape, (3,)
    (tmp_path / "short.ckpt").write_bytes(content.replace(b"K\x03\x85", b"K\x04\x85"))
    with pytest.raises(ModelFileError, match="cannot reshape array of size 3"):
        read_arrays(tmp_path / "short.ckpt")
