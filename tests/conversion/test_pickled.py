"""Pickles read as data: what comes out, and that nothing in them runs."""

import collections
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from faceswap_diffusion.conversion.pickled import Inert, Name, PickleReader


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
