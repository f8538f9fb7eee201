"""Sealed files: to the bit, no altered byte unnoticed, nothing run and no memory taken by a forged one."""

import hashlib
import io
import os
import pickle
import pickletools
import random
import resource
import struct
import subprocess
import sys
import textwrap
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from ealinformer.errors import InputError
from ealinformer.training.checkpoints.sealed import read_sealed, seal, unseal, write_sealed

PATH = Path("some.pt")
DTYPES = (
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128),
    *(torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2),
)
GREETING = b"ealinformer sha256:"


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def same(one: object, two: object) -> bool:
    """Equal to the bit; NaN equals itself."""
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        return (one.dtype, one.shape, bits(one)) == (two.dtype, two.shape, bits(two))
    if isinstance(one, dict) and isinstance(two, dict):
        return list(one) == list(two) and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple) and type(one) is type(two):
        return len(one) == len(two) and all(map(same, one, two))
    return type(one) is type(two) and repr(one) == repr(two)


def sealed_anew(archive: bytes) -> bytes:
    """A zip archive without comment, with the comment that its own bytes ask for."""
    comment = struct.pack("<H", len(GREETING) + 64)
    assert archive[-2:] == b"\0\0"
    content = archive[:-2] + comment
    return content + GREETING + hashlib.sha256(content).hexdigest().encode()


def forged(pickled: bytes, *storages: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A sealed file whose checksum is right and whose pickle is anything."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", sys.byteorder)
        for key, raw in enumerate(storages):
            archive.writestr(f"archive/data/{key}", raw)
        archive.writestr("archive/version", "3\n")
    return sealed_anew(file.getvalue())


def refused(data: bytes) -> str:
    with pytest.raises(InputError) as caught:
        unseal(data, PATH)
    said = str(caught.value)
    assert said.startswith("some.pt ")
    assert "\n" not in said
    assert len(said) < 300
    return said


# Round trip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_every_type_come_back_to_the_bit(dtype: torch.dtype) -> None:
    raw = torch.randint(0, 2 if dtype == torch.bool else 256, (16 * 6,), generator=torch.Generator().manual_seed(1))
    tensor = raw.to(torch.uint8).view(dtype).reshape(2, -1)
    content = {"whole": tensor, "one": tensor[0, 0], "none": tensor[:0], "turned": tensor.T}
    found = unseal(seal(content), PATH)
    assert same(found, content)
    assert found["turned"].stride() == tensor.T.stride()


def test_plain_values_come_back_as_they_were() -> None:
    content = {
        "texts": ["", "ü\ud800\n", "x" * 300],
        "numbers": [0, -1, 255, 65536, 2**31, -(2**40), 2**100, 0.1, -0.0, float("nan"), float("inf"), True, None],
        "nested": {"tuple": (1, (2,), (), [{}]), 7: {0: "by number"}},
        "milestones": Counter({3: 2}),
    }
    found = unseal(seal(content), PATH)
    assert same(found, content)


def test_optimizer_schedule_and_random_states_come_back() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 4])
    net(torch.ones(2, 3)).square().sum().backward()
    optimizer.step()
    schedule.step()
    content = {
        "model": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": np.random.RandomState(3).get_state(legacy=True)[1].tolist(),
        "score": np.float64(2.5),
    }
    found = unseal(seal(content), PATH)
    assert same(found, {**content, "model": dict(net.state_dict()), "score": 2.5})


def test_a_view_brings_its_own_elements_alone() -> None:
    large = torch.arange(100_000.0)
    data = seal({"view": large[5:10], "repeated": torch.ones(1).expand(4), "parameter": nn.Parameter(large[:2])})
    assert len(data) < 10_000
    found = unseal(data, PATH)
    assert found["view"].tolist() == [5, 6, 7, 8, 9]
    assert found["repeated"].tolist() == [1, 1, 1, 1]
    assert type(found["parameter"]) is torch.Tensor
    assert not found["parameter"].requires_grad


def test_plain_torch_reads_it_and_the_archive_is_an_archive(tmp_path: Path) -> None:
    content = {"model": OrderedDict(weight=torch.arange(3.0)), "epoch": 3}
    digest = write_sealed(tmp_path / "some.pt", content)
    assert same(
        torch.load(tmp_path / "some.pt", weights_only=True), {"model": {"weight": torch.arange(3.0)}, "epoch": 3}
    )
    with zipfile.ZipFile(tmp_path / "some.pt") as archive:
        assert archive.testzip() is None
        assert archive.comment == GREETING + digest.encode()
    raw = (tmp_path / "some.pt").read_bytes()
    assert digest == hashlib.sha256(raw[: -len(archive.comment)]).hexdigest()
    assert same(read_sealed(tmp_path / "some.pt"), unseal(raw, tmp_path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"a": {"b": [1, {2}]}}, "content.a.b.1 is a set "),
        ({"a": np.zeros(2)}, "content.a is a ndarray "),
        ({"a": b"raw"}, "content.a is a bytes "),
        ({"a": torch.eye(2).to_sparse()}, "content.a is a tensor without plain storage"),
        ({"a": {(1, 2): 3}}, "content.a is a dict "),
        ({"a": {-1: 3}}, "content.a is a dict "),
        ({"a": 2**3000}, "content.a is a int "),
    ],
)
def test_what_could_not_be_read_back_is_not_written(tmp_path: Path, content: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        write_sealed(tmp_path / "some.pt", content)
    assert os.listdir(tmp_path) == []


# Accidents


SMALL = seal({"w": torch.arange(3.0), "epoch": 3})


def test_every_altered_byte_is_noticed() -> None:
    for position in range(len(SMALL)):
        for change in (1, 0x80, 0x20, 0xFF):  # 0x20 turns the case of a letter
            altered = bytearray(SMALL)
            altered[position] ^= change
            with pytest.raises(InputError, match=r"some\.pt (is damaged: its content|has no checksum at its end)"):
                unseal(bytes(altered), PATH)


def test_every_truncation_is_noticed() -> None:
    for length in range(len(SMALL)):
        with pytest.raises(InputError, match=r"has no checksum at its end: it is damaged or another kind of file"):
            unseal(SMALL[:length], PATH)


def test_bytes_that_were_added_are_noticed() -> None:
    assert "has no checksum at its end" in refused(SMALL + b"\0")
    assert "does not agree with the checksum" in refused(b"\0" + SMALL)


def test_an_altered_file_is_one_that_torch_would_take() -> None:
    """torch itself compares no checksums: it loads altered weights without a word."""
    weights = torch.arange(3.0).numpy().tobytes()
    assert SMALL.count(weights) == 1
    altered = SMALL.replace(weights, weights[::-1])
    assert not torch.equal(torch.load(io.BytesIO(altered), weights_only=True)["w"], torch.arange(3.0))
    assert "does not agree with the checksum at its end" in refused(altered)


def test_what_is_not_there_or_cannot_be_read(tmp_path: Path) -> None:
    for path, said in (
        (tmp_path / "some.pt", "is not there"),
        (tmp_path, "is not there: it is a folder, name the best.pt or last.pt in it"),
    ):
        with pytest.raises(InputError) as caught:
            read_sealed(path)
        assert str(caught.value) == f"checkpoint {path} {said}"


def test_of_a_large_file_of_another_kind_only_the_end_is_read(tmp_path: Path) -> None:
    with (tmp_path / "some.pt").open("wb") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(InputError, match="has no checksum at its end"):
        read_sealed(tmp_path / "some.pt")


# Malice: all that follows has the right checksum


def test_a_forged_file_is_read_as_long_as_it_is_plain() -> None:
    """So that the refusals below are not for the way in which these tests forge."""
    assert unseal(forged(pickle.dumps({"epoch": 3}, protocol=2)), PATH) == {"epoch": 3}
    with zipfile.ZipFile(io.BytesIO(SMALL)) as archive:
        pickled, storage = archive.read("archive/data.pkl"), archive.read("archive/data/0")
    assert same(unseal(forged(pickled, storage), PATH), unseal(SMALL, PATH))


class Call:
    """Calls something when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def test_a_pickle_that_would_run_code_does_not(tmp_path: Path) -> None:
    trace = tmp_path / "attacked"
    pickled = pickle.dumps({"model": {}, "extra": Call(os.mkdir, str(trace))}, protocol=2)
    assert refused(forged(pickled)) == (
        f"some.pt is refused: it asks for {os.mkdir.__module__}.mkdir, which plain values and tensors do not need"
    )
    assert not trace.exists()
    pickle.loads(pickled)
    assert trace.is_dir()  # the attack is a real one


SHARED: list[object] = []
STRANGE = {
    "byte array": Call(bytearray, 10**9),  # torch's own reader makes it
    "tensor by size": Call(torch.Tensor, 10**6),
    "device": Call(torch.device, "cuda"),
    "parameter": Call(nn.Parameter, 1),
    "complex": Call(complex, 1),
    "eval": Call(eval, "1"),
    "filled OrderedDict": Call(OrderedDict, [("a", 1)]),
    "Counter of a text": Call(Counter, "aab"),
    "tensor of two": Call(torch._utils._rebuild_tensor_v2, 1, 2),
    "tensor of no storage": Call(torch._utils._rebuild_tensor_v2, 1, 0, (1,), (1,), False, OrderedDict()),
    "OrderedDict": OrderedDict(),
    "class": OrderedDict,
    "dtype": torch.float32,
    "set": {1, 2},
    "bytes": b"raw",
    "tuple as key": {(1, 2): 3},
    "large number as key": {2**61 - 1: 3},
    "float as key": {1.5: 3},
    "numpy number": np.float64(1),
    "list twice": [SHARED, SHARED],
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_no_plain_value_is_refused(name: str) -> None:
    said = refused(forged(pickle.dumps({"x": STRANGE[name]}, protocol=2)))
    assert said.startswith("some.pt is refused: it ")


def nested(opening: bytes, closing: bytes, depth: int) -> bytes:
    return b"\x80\x02}X\x01\x00\x00\x00x" + opening * depth + closing * depth + b"s."


def laughs() -> bytes:
    """Ten lists of ten times the list before."""
    pickled = b"\x80\x02}X\x01\x00\x00\x00x]q\x00"
    for level in range(10):
        pickled += b"](" + b"h" + bytes([level]) + 9 * (b"h" + bytes([level])) + b"eq" + bytes([level + 1])
    return pickled + b"s."


MALFORMED = {
    "nothing": b"",
    "no end": b"\x80\x02}",
    "end alone": b".",
    "two marks": b"\x80\x02((.",
    "tuple of nothing": b"\x80\x02\x87.",
    "no target": b"\x80\x02K\x01s.",
    "odd items": b"\x80\x02}(K\x01u.",
    "memo": b"\x80\x02}X\x01\x00\x00\x00xh\x07s.",
    "huge memo": b"\x80\x02}r\xff\xff\xff\xffX\x01\x00\x00\x00xj\xff\xff\xff\xffs.",
    "long text": b"\x80\x02}X\xff\xff\xff\xffx",
    "long bytes": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fx",
    "long number": b"\x80\x02}X\x01\x00\x00\x00x\x8b\xff\xff\xff\x7fs.",
    "protocol": b"\x80\x04}.",
    "list": b"\x80\x02].",
    "number": b"\x80\x02K\x01.",
    "deep tuples": nested(b"", b"", 0)[:-2] + b")" + 50_000 * b"\x85" + b"s.",
    "deep lists": nested(b"]", b"a", 30_000)[:-2] + b"s.",
    "deep dictionaries": nested(b"}K\x01", b"s", 20_000),
    "laughs": laughs(),
    "itself": b"\x80\x02}q\x00X\x01\x00\x00\x00xh\x00s.",
    "digits": b"\x80\x02}X\x01\x00\x00\x00xI" + 90_000 * b"9" + b"\ns.",
    "extension": b"\x80\x02}X\x01\x00\x00\x00x\x82\x01s.",
    "reference": b"\x80\x02}X\x01\x00\x00\x00xPfile\ns.",
    "marks": b"\x80\x02" + 90_000 * b"(",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_pickle_is_refused(name: str) -> None:
    assert refused(forged(MALFORMED[name])).startswith("some.pt is refused: ")


ONE = {
    "storage": "FloatStorage",
    "key": "0",
    "location": "cpu",
    "count": 4,
    "offset": 0,
    "shape": (4,),
    "strides": (1,),
}


def one_tensor(**changes: Any) -> bytes:
    """A file with one tensor of 4 numbers in 16 bytes, or what `changes` claims of it."""

    class Storage:
        pass

    class Pickler(pickle._Pickler):
        def persistent_id(self, value: object) -> object:
            if not isinstance(value, Storage):
                return None
            return ("storage", getattr(torch, claim["storage"]), claim["key"], claim["location"], claim["count"])

    claim = {**ONE, **changes}
    place = (Storage(), claim["offset"], claim["shape"], claim["strides"], False, OrderedDict())
    file = io.BytesIO()
    Pickler(file, protocol=2).dump({"w": Call(torch._utils._rebuild_tensor_v2, *place)})
    return forged(file.getvalue(), bytes(16))


def test_a_tensor_of_its_storage_is_read() -> None:
    assert torch.equal(unseal(one_tensor(), PATH)["w"], torch.zeros(4))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"key": "7"}, "whose storage is not in the file"),
        ({"key": 0}, "whose storage is not in the file"),
        ({"count": 5}, "not the 16 bytes"),
        ({"count": 2**40}, "not the 16 bytes"),
        ({"count": -4}, "not the 16 bytes"),
        ({"count": 4.0}, "not the 16 bytes"),
        ({"storage": "DoubleStorage"}, "not the 16 bytes"),
        ({"storage": "UntypedStorage", "count": 16}, "without dtype"),
        ({"storage": "Tensor"}, "asks for torch"),
        ({"location": "meta"}, "on another device"),
        ({"location": "cuda:0"}, "on another device"),
        ({"shape": (5,)}, "larger than its storage"),
        ({"shape": (2**40,)}, "larger than its storage"),
        ({"shape": (2**40,), "strides": (0,)}, "larger than its storage"),
        ({"shape": (2**62,), "strides": (0,)}, "sizes are no numbers"),
        ({"strides": (2,)}, "larger than its storage"),
        ({"strides": (-1,)}, "sizes are no numbers"),
        ({"offset": 1}, "larger than its storage"),
        ({"offset": -1}, "sizes are no numbers"),
        ({"offset": 2**40, "shape": (0,)}, "larger than its storage"),
        ({"shape": (4, 1)}, "sizes are no numbers"),
        ({"shape": [4]}, "sizes are no numbers"),
        ({"shape": ("4",)}, "sizes are no numbers"),
        ({"shape": 80 * (1,), "strides": 79 * (1,)}, "too many dimensions"),
    ],
)
def test_a_tensor_that_does_not_fit_its_storage_is_refused(changes: dict[str, Any], said: str) -> None:
    assert said in refused(one_tensor(**changes))


def test_one_storage_read_as_two_types_is_refused() -> None:
    """torch would read it as the first of them, and enlarge it for the second."""
    with zipfile.ZipFile(io.BytesIO(seal({"a": torch.zeros(2), "b": torch.zeros(8, dtype=torch.uint8)}))) as archive:
        pickled = archive.read("archive/data.pkl")
    ops = list(pickletools.genops(pickled))
    key = next(place for op, argument, place in ops if op.name == "BINUNICODE" and argument == "1")
    assert key is not None
    altered = bytearray(pickled)
    altered[key + 5] = ord("0")
    assert "reads one storage as two types" in refused(forged(bytes(altered), bytes(8)))


def test_archives_of_another_kind_are_refused() -> None:
    plain = pickle.dumps({"epoch": 3}, protocol=2)
    assert "compressed entries" in refused(forged(plain, bytes(2**24), compression=zipfile.ZIP_DEFLATED))
    for entries, said in (
        ({}, "it has no archive/data.pkl"),
        ({"hello.txt": b"hello"}, "it has no archive/data.pkl"),
        ({"other/data.pkl": plain}, "it has no archive/data.pkl"),
    ):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, raw in entries.items():
                archive.writestr(name, raw)
        assert said in refused(sealed_anew(file.getvalue()))
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as archive:
        archive.writestr("archive/data.pkl", plain)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("archive/data.pkl", plain)
    assert "two entries of one name" in refused(sealed_anew(twice.getvalue()))


def test_entries_that_claim_more_than_the_file_has_are_refused() -> None:
    """One run of bytes as a hundred entries: small in the file, a hundred times as large in memory."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("archive/data/0", bytes(100_000))
        for key in range(1, 100):
            again = zipfile.ZipInfo(f"archive/data/{key}")
            again.header_offset = archive.getinfo("archive/data/0").header_offset
            again.file_size = again.compress_size = 100_000
            again.CRC = archive.getinfo("archive/data/0").CRC
            archive.filelist.append(again)
            archive.NameToInfo[again.filename] = again
    assert "claim more bytes than the file has" in refused(sealed_anew(file.getvalue()))


def test_an_entry_with_another_local_name_is_refused() -> None:
    altered = forged(pickle.dumps({"epoch": 3}, protocol=2)).replace(b"archive/byteorder", b"archive/bytefound", 1)
    assert "it is no archive of torch" in refused(sealed_anew(altered[: -len(GREETING) - 66] + b"\0\0"))


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_altered_pickles_are_read_or_refused_in_one_line(data: st.DataObject) -> None:
    with zipfile.ZipFile(io.BytesIO(SMALL)) as archive:
        pickled, storage = bytearray(archive.read("archive/data.pkl")), archive.read("archive/data/0")
    for _ in range(data.draw(st.integers(1, 4))):
        pickled[data.draw(st.integers(0, len(pickled) - 1))] = data.draw(st.integers(0, 255))
    forgery = forged(bytes(pickled), storage)
    try:
        content = unseal(forgery, PATH)
    except InputError:
        refused(forgery)
    else:
        assert isinstance(content, dict)


def test_small_files_take_little_memory_and_time(tmp_path: Path) -> None:
    """Of a thousand times their size at most: under 1 MiB stays under 1 GiB."""
    text, start = b"X\x01\x00\x00\x00x", b"\x80\x02}X\x01\x00\x00\x00x"
    of_one_hash = (b"\x8a\x0b" + (n * (2**61 - 1)).to_bytes(11, "little") + b"N" for n in range(15_000))
    bombs = {
        **MALFORMED,
        "containers": start + b"](" + 200_000 * b"}" + b"es.",
        "tuples": start + b"](" + 100_000 * b")\x85" + b"es.",
        "texts": start + text.replace(b"\x01", b"\xff", 1) + 254 * b"x" + b"q\x00](" + 50_000 * b"h\x00" + b"es.",
        "left over": b"\x80\x02" + 100_000 * b"]}" + b"}.",
        "keys of one hash": b"\x80\x02}(" + b"".join(of_one_hash) + b"u.",
        "byte array": pickle.dumps({"x": Call(bytearray, 10**11)}, protocol=2),
    }
    for number, pickled in enumerate(bombs.values()):
        (tmp_path / f"{number}.pt").write_bytes(forged(pickled))
    (tmp_path / "wide.pt").write_bytes(one_tensor(shape=(2**40,), strides=(0,)))
    (tmp_path / "dimensions.pt").write_bytes(one_tensor(shape=20_000 * (2**40,), strides=20_001 * (0,)))
    assert all(path.stat().st_size < 2**18 for path in tmp_path.iterdir())
    program = """
        import resource, sys, time
        from pathlib import Path
        from ealinformer.errors import InputError
        from ealinformer.training.checkpoints.sealed import read_sealed
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        before, started = peak(), time.process_time()
        for path in sorted(Path(sys.argv[1]).iterdir()):
            try:
                read_sealed(path)
            except InputError as error:
                assert "\\n" not in str(error)
        print(peak() - before, time.process_time() - started)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.split()
    mebibytes, seconds = float(said[0]), float(said[1])
    assert mebibytes < 256
    assert seconds < 30


# Disks and folders


def test_a_disk_that_fills_up_gets_one_line_and_leaves_the_old_file(tmp_path: Path) -> None:
    """Past the limit a real write fails, of which torch's own writer makes a RuntimeError."""
    path = tmp_path / "some.pt"
    write_sealed(path, {"epoch": 3})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(InputError, match=rf"^cannot write {path}: File too large$"):
            write_sealed(path, {"epoch": 4, "w": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_sealed(path) == {"epoch": 3}
    assert os.listdir(tmp_path) == ["some.pt"]
