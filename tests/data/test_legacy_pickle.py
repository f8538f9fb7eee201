"""The restricted pickle reader: reads the old adjacency files, runs nothing, and never fails in its own way."""

import contextlib
import os
import pickle
import struct
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ealinformer.data import legacy_pickle
from ealinformer.data.legacy_pickle import read_adjacency_pickle
from ealinformer.errors import InputError

IDS = ["400001", "400017", "400030"]
MATRIX = np.array([[1.0, 0.5, 0.0], [0.25, 1.0, 0.125], [0.0, 0.0, 1.0]], dtype=np.float32)
TRIPLE = (IDS, {name: number for number, name in enumerate(IDS)}, MATRIX)

# Written by hand as Python 2 writes it: text is a byte string (S), array bytes are a quoted byte string as well.
PYTHON_2 = (
    b"(lp0\n(lp1\nS'a'\np2\naS'b'\np3\naa(dp4\ng2\nI0\nsg3\nI1\nsacnumpy.core.multiarray\n_reconstruct\np5\n"
    b"(cnumpy\nndarray\np6\n(I0\ntp7\nS'b'\np8\ntp9\nRp10\n(I1\n(I2\nI2\ntp11\ncnumpy\ndtype\np12\n(S'f4'\np13\n"
    b"I0\nI1\ntp14\nRp15\n(I3\nS'<'\np16\nNNNI-1\nI-1\nI0\ntp17\nbI00\n"
    b"S'\\x00\\x00\\x80?\\x00\\x00\\x00?\\x00\\x00\\x00\\x00\\x00\\x00\\x80?'\np18\ntp19\nba."
)


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "adj.pkl"
    path.write_bytes(data)
    return path


def refusal(path: Path) -> str:
    """The message of the refusal of `path`, which is one line that starts with its name."""
    with pytest.raises(InputError) as caught:
        read_adjacency_pickle(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "expected" in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("protocol", range(6))
def test_reads_every_protocol(tmp_path: Path, protocol: int) -> None:
    ids, matrix = read_adjacency_pickle(written(tmp_path, pickle.dumps(TRIPLE, protocol)))
    assert ids == IDS
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, MATRIX)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(
    "matrix",
    [
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(6, dtype=">i4").reshape(2, 3),
        np.array([[True, False], [False, True]]),
        np.array([[np.nan, np.inf], [-1.0, 0.0]]),
    ],
    ids=["fortran order", "big endian", "bool", "not finite"],
)
def test_reads_a_bare_matrix_of_any_layout(tmp_path: Path, matrix: np.ndarray, protocol: int) -> None:
    ids, read = read_adjacency_pickle(written(tmp_path, pickle.dumps(matrix, protocol)))
    assert ids is None
    assert read.dtype == matrix.dtype.newbyteorder("=")
    np.testing.assert_array_equal(read, matrix)


def test_reads_a_pickle_of_python_2(tmp_path: Path) -> None:
    ids, matrix = read_adjacency_pickle(written(tmp_path, PYTHON_2))
    assert ids == ["a", "b"]
    np.testing.assert_array_equal(matrix, np.array([[1.0, 0.5], [0.0, 1.0]], dtype=np.float32))


def test_reads_numbers_as_ids_and_numpy_scalars(tmp_path: Path) -> None:
    content = [np.array([7, 8, 9]), {7: np.int64(0), 8: np.int64(1), 9: np.int64(2)}, MATRIX]
    ids, matrix = read_adjacency_pickle(written(tmp_path, pickle.dumps(content, 2)))
    assert ids == ["7", "8", "9"]
    np.testing.assert_array_equal(matrix, MATRIX)


@pytest.mark.real_data
@pytest.mark.skipif("EALINFORMER_RAW_DIR" not in os.environ, reason="skipped: no raw data")
def test_reads_the_published_pems_bay_file() -> None:
    ids, matrix = read_adjacency_pickle(Path(os.environ["EALINFORMER_RAW_DIR"]) / "graphs" / "adj_mx_bay.pkl")
    assert ids is not None
    assert (len(ids), ids[0], matrix.shape, matrix.dtype) == (325, "400001", (325, 325), np.float32)
    loops = np.count_nonzero(matrix.diagonal())
    assert (loops, np.count_nonzero(matrix) - loops) == (325, 2369)


class Call:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("place", ["alone", "as the matrix", "in the ids"])
@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "builtins.getattr", "numpy.save"])
def test_runs_no_function_of_the_file(tmp_path: Path, name: str, place: str, protocol: int) -> None:
    trace = tmp_path / "trace.npy"
    calls = {
        "os.system": Call(os.system, f"echo > {trace}"),
        "builtins.eval": Call(eval, f"open({str(trace)!r}, 'w').close()"),
        "builtins.getattr": Call(trace.touch),  # a bound method is stored as a call of getattr
        "numpy.save": Call(np.save, str(trace), MATRIX),
    }
    call = calls[name]
    contents = {"alone": call, "as the matrix": (IDS, {}, call), "in the ids": ([call], {}, MATRIX)}
    data = pickle.dumps(contents[place], protocol)

    pickle.loads(data)
    assert trace.exists(), "the payload must work where nothing holds it back"
    trace.unlink()

    assert "refused" in refusal(written(tmp_path, data))
    assert not trace.exists()


def global_(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("__builtin__", "eval"),
        ("builtins", "getattr"),
        ("builtins", "bytearray"),
        ("numpy", "load"),
        ("numpy", "fromfile"),
        ("numpy", "memmap"),
        ("numpy.core.multiarray", "fromfile"),
        ("numpy._core.multiarray", "_vec_string"),
        ("numpy.testing._private.utils", "runstring"),
        ("numpy", "ndarray.tofile"),
        ("numpy", "dtype.__class__"),
        ("_codecs", "lookup"),
        ("codecs", "encode"),
        ("copyreg", "_reconstructor"),
        ("torch.storage", "_load_from_bytes"),
        ("ealinformer.data.legacy_pickle", "_reconstruct"),
    ],
)
def test_names_outside_the_list_are_refused(tmp_path: Path, module: str, name: str) -> None:
    by_line = written(tmp_path, global_(module, name) + b")R.")
    assert f"asks for '{module}.{name}'" in refusal(by_line)
    words = b"".join(b"\x8c" + bytes([len(word)]) + word.encode() for word in (module, name))
    by_stack = written(tmp_path, b"\x80\x04" + words + b"\x93)R.")
    assert f"asks for '{module}.{name}'" in refusal(by_stack)


DTYPE = global_("numpy", "dtype")
ARRAY = global_("numpy.core.multiarray", "_reconstruct") + b"(" + global_("numpy", "ndarray") + b"(I0\ntS'b'\ntR"


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"Pname\n.", "opcode 0x50"),  # a persistent id
        (b"\x80\x02U\x04nameQ.", "opcode 0x51"),
        (b"\x80\x02\x82\x01.", "opcode 0x82"),  # the extension registry
        (b"(ios\nsystem\n.", "opcode 0x69"),  # instances of old and new classes
        (b"(" + DTYPE + b"S'f4'\no.", "opcode 0x6f"),
        (b"\x80\x02" + DTYPE + b"U\x02f4\x85\x81.", "opcode 0x81"),
        (DTYPE + b"(S'O8'\nI0\nI1\ntR.", "dtype 'O8'"),  # bytes taken for pointers
        (DTYPE + b"(S'V8'\nI0\nI1\ntR.", "dtype 'V8'"),
        (DTYPE + b"(dS'x'\nI1\nsb.", "a state for a type"),  # writing attributes of a stand-in
        (global_("_codecs", "encode") + b"(dS'x'\nI1\nsb.", "a state for a method"),
        (global_("_codecs", "encode") + b"(S'x'\nS'rot13'\ntR.", "an encoding other than latin1"),
        (global_("numpy.core.multiarray", "_reconstruct") + b"(" + DTYPE + b"(I0\ntS'b'\ntR.", "subclass of ndarray"),
        (ARRAY + b".", "an array without content"),
        (ARRAY + b"I5\nb.", "an array without content"),
    ],
)
def test_other_ways_into_the_interpreter_are_closed(tmp_path: Path, data: bytes, found: str) -> None:
    assert found in refusal(written(tmp_path, data))


def array_state(shape: bytes, raw: bytes) -> bytes:
    return (
        ARRAY
        + b"(I1\n("
        + shape
        + b"t"
        + DTYPE
        + b"(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\n"
        + raw
        + b"tb."
    )


def test_the_state_built_by_hand_is_valid(tmp_path: Path) -> None:
    _, matrix = read_adjacency_pickle(written(tmp_path, array_state(b"I1\nI2\n", b"S'\\x00\\x00\\x80?aaaa'\n")))
    assert matrix.shape == (1, 2)
    assert matrix[0, 0] == 1


@pytest.mark.parametrize(
    ("shape", "raw"),
    [
        (b"I2\nI2\n", b"S'aaaa'\n"),
        (b"I1\n", b"S'aaaaaaaa'\n"),
        (b"I-1\nI-1\n", b"S'aaaa'\n"),
        (b"L1000000000000000000000L\nI0\n", b"S''\n"),
        (b"S'1'\n", b"S'aaaa'\n"),
        (b"I1\n", b"I4\n"),
    ],
    ids=["too short", "too long", "negative", "beyond memory", "text", "number"],
)
def test_shape_and_bytes_have_to_agree(tmp_path: Path, shape: bytes, raw: bytes) -> None:
    refusal(written(tmp_path, array_state(shape, raw)))


def test_small_files_cannot_claim_much_memory_or_end_the_process(tmp_path: Path) -> None:
    start = time.process_time()
    refusal(written(tmp_path, b"\x80\x02Nr" + struct.pack("<I", 0xFFFFFFFF) + b"."))  # the last of 2^32 memo entries
    refusal(written(tmp_path, b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"a."))  # 2^62 bytes to come
    refusal(written(tmp_path, b"\x80\x05\x96" + struct.pack("<Q", 1 << 62) + b"a."))
    nested = b")" + 300_000 * b"\x85" + b"N"  # tuples in tuples, as the key of a dictionary
    for entry in (b"}" + nested + b"s.", b"}(" + nested + b"u.", b"(" + nested + b"d."):
        assert "dictionary key" in refusal(written(tmp_path, b"\x80\x02" + entry))
    encode = global_("_codecs", "encode") + b"q\x00X" + struct.pack("<I", 9000) + 9000 * b"a" + b"q\x01"
    again = 100 * b"h\x00h\x01X\x06\x00\x00\x00latin1\x86R"  # the same text made bytes 100 times
    assert "more bytes than the file holds" in refusal(written(tmp_path, b"\x80\x02" + encode + again + b"."))
    assert time.process_time() - start < 20  # about 2 of a processor


def test_a_file_above_the_limit_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, pickle.dumps(TRIPLE, 2))
    monkeypatch.setattr(legacy_pickle, "MAX_BYTES", path.stat().st_size)
    read_adjacency_pickle(path)
    monkeypatch.setattr(legacy_pickle, "MAX_BYTES", path.stat().st_size - 1)
    assert f"has {path.stat().st_size} bytes" in refusal(path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"adjacency": MATRIX}, "holds a dict of 1"),
        ((IDS, MATRIX), "holds a tuple of 2"),
        ((IDS, TRIPLE[1], MATRIX.tolist()), "holds a tuple of 3"),
        ((IDS[:2], {}, MATRIX), "2 ids (2 of them distinct) for 3 matrix rows"),
        ((["a", "b", "a"], None, MATRIX), "3 ids (2 of them distinct)"),
        (([1.5, "b", "c"], None, MATRIX), "the ids are a list of 3"),
        (("abc", None, MATRIX), "the ids are a str"),
        ((IDS, {name: 2 - number for number, name in enumerate(IDS)}, MATRIX), "otherwise than ids"),
        (np.array([["a", "b"]]), "dtype 'U1'"),
        (np.array([[None]]), "dtype 'O8'"),
        (np.array([[1j]]), "dtype 'c16'"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: object, found: str) -> None:
    assert found in refusal(written(tmp_path, pickle.dumps(content, 2)))


def test_no_file_and_no_pickle(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "none.pkl")
    assert "is not a file" in refusal(tmp_path)
    assert "is empty" in refusal(written(tmp_path, b""))
    refusal(written(tmp_path, b"from,to,cost\n1,2,3\n"))


@pytest.mark.parametrize("data", [PYTHON_2, *(pickle.dumps(TRIPLE, protocol) for protocol in (0, 2, 4, 5))])
def test_every_truncation_is_refused(tmp_path: Path, data: bytes) -> None:
    for length in range(1, len(data)):
        refusal(written(tmp_path, data[:length]))


@settings(max_examples=100, deadline=None)
@given(
    protocol=st.sampled_from([0, 2, 5]),
    damages=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_damaged_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, protocol: int, damages: list[tuple[float, int]]
) -> None:
    content = bytearray(pickle.dumps(TRIPLE, protocol))
    for place, byte in damages:
        content[int(place * len(content))] = byte
    path = written(tmp_path_factory.getbasetemp(), bytes(content))
    with contextlib.suppress(InputError):  # any other exception fails the test
        _, matrix = read_adjacency_pickle(path)
        assert matrix.dtype.kind in "fiub"


def test_lists_that_double_and_sizes_that_multiply_are_refused_at_once(tmp_path: Path) -> None:
    start = time.process_time()
    doubled = b"]q\x00" + b"".join(b"](h" + bytes([k, ord("h"), k]) + b"eq" + bytes([k + 1]) for k in range(60))
    assert "dtype (list)" in refusal(written(tmp_path, doubled + DTYPE + b"(h\x3ctR."))
    large = b"\x8b" + struct.pack("<I", 100_000) + b"\xff" * 99_999 + b"\x7fq\x00"  # a whole number of 100 kB
    refusal(written(tmp_path, large + b"0" + array_state(b"h\x00" * 50_000, b"S'aaaa'\n")))
    assert time.process_time() - start < 5


def test_a_length_beyond_the_file_takes_no_memory(tmp_path: Path) -> None:
    # Python's own reader makes room for the 2 GiB first.
    message = refusal(written(tmp_path, b"\x80\x05\x96" + struct.pack("<Q", 2**31) + b"abcd."))
    assert "MemoryError" not in message
    tracemalloc.start()
    refusal(written(tmp_path, b"\x80\x05\x96" + struct.pack("<Q", 2**31) + b"abcd."))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20
