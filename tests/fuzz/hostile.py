"""Small files made by hand to cost a reader its time, its memory or its process."""

import io
import struct
import zipfile
import zlib
from functools import cache

import h5py
import numpy as np

from tests.fuzz.containers import zipped
from tests.fuzz.mutate import npy_bytes, npy_joined

_MIB = 2**20


@cache
def npy() -> list[bytes]:
    """Headers that promise more than there is."""
    shapes = (2**31, 3), (2**40, 2), (2**62, 2**62), (2**32, 2**32), (-1, -1), (0, 2**62), (2**33,), (10**30, 0)
    kinds = "<f8", "|i1", "|V0", "|S2000000000", "|O"
    lengths = [b"\x93NUMPY" + version + b"\xff" * 4 + bytes(64) for version in (b"\2\0", b"\3\0", b"\xff\xff")]
    return [*lengths, *(npy_joined(_header(shape, kind), bytes(64)) for shape in shapes for kind in kinds)]


@cache
def npz() -> list[bytes]:
    """Zip bombs: members that unpack to a thousand times their size, and members that promise more than there is."""
    bombs = [_bomb(kind, 1000 * _MIB) for kind in ("<f8", "<i4", "|i1", "|b1")]
    packed = [
        zipped([("data.npy", npy_bytes(np.zeros((9, 5))))], method) for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    ]
    promises = [zipped([("data.npy", content)]) for content in npy()]
    many = zipped([(f"a{number}.npy", b"") for number in range(9000)])
    return [*bombs, *packed, *promises, many]


def _bomb(kind: str, size: int) -> bytes:
    """An archive with an array `[*, 1000]` of zeros that takes `size` bytes unpacked, made without unpacking it.

    Its checksum is wrong, which a reader learns when it has unpacked all.
    """
    deflate = zlib.compressobj(9, wbits=-15)
    array = npy_joined(_header((size // np.dtype(kind).itemsize // 1000, 1000), kind), b"")
    head = deflate.compress(array) + deflate.flush(zlib.Z_FULL_FLUSH)
    block = deflate.compress(bytes(8 * _MIB)) + deflate.flush(zlib.Z_FULL_FLUSH)
    packed = head + block * (size // (8 * _MIB)) + deflate.flush()
    name, flat = b"data.npy", len(array) + size
    sizes = struct.pack("<IIIHH", 0, len(packed), flat, len(name), 0)
    local = struct.pack("<4sHHHHH", b"PK\3\4", 20, 0, zipfile.ZIP_DEFLATED, 0, 33) + sizes + name + packed
    central = struct.pack("<4sHHHHHH", b"PK\1\2", 20, 20, 0, zipfile.ZIP_DEFLATED, 0, 33) + sizes + bytes(14) + name
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 1, 1, len(central), len(local), 0)
    return local + central + end


def _header(shape: tuple[int, ...], kind: str) -> dict[str, object]:
    return {"descr": kind, "fortran_order": False, "shape": shape}


@cache
def saved_graph() -> list[bytes]:
    """Graphs of this project's own format whose shape is no shape, or whose parts are very large."""
    parts = {
        "data": np.ones(2, np.float32), "indices": np.array([1, 0], np.int32), "indptr": np.array([0, 1, 2], np.int32),
        "shape": np.array([2, 2]), "weights": np.array("binary"),
    }  # fmt: skip
    odd: list[dict[str, np.ndarray]] = [
        {"shape": np.array([np.nan, np.nan])},
        {"shape": np.array([np.inf, np.inf])},
        {"shape": np.array(["a", "b"])},
        {"shape": np.array([b"2", b"2"])},
        {"shape": np.array([2 + 1j, 2])},
        {"shape": np.array([2**62, 2**62])},
        {"shape": np.array([2**63, 2**63], np.uint64)},
        {"shape": np.array([-1, -1])},
        {"shape": np.array([2, 2], "datetime64[s]")},
        {"shape": np.array([(2,), (2,)], [("a", "i4")])},
        {"shape": np.array([2.5, 2.5])},
        {"weights": np.array(["binary"] * 3)},
        {"weights": np.array("bin\nary")},
        {"indices": np.array([2**40, 0])},
        {"indices": np.array([-1, 0])},
        {"indptr": np.array([0, 9, 2])},
        {"indptr": np.array([2, 1, 0])},
        {"data": np.ones((2, 2), np.float32)},
        {"data": np.float32(1)},
        {"indptr": np.arange(3)[:, None]},
        {"data": np.array([1, "x"])},
    ]
    return [zipped([(f"{key}.npy", npy_bytes(array)) for key, array in {**parts, **change}.items()]) for change in odd]


@cache
def pickles() -> list[bytes]:
    """Programs that double a list until nobody can print it, multiply large sizes, and nest what is hashed or shown."""
    doubled = b"]q\x00" + b"".join(b"](h" + bytes([k]) + b"h" + bytes([k]) + b"eq" + bytes([k + 1]) for k in range(60))
    dtype, array = b"cnumpy\ndtype\n", b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    f4 = dtype + b"(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
    large = b"\x8b" + struct.pack("<I", 200_000) + b"\xff" * 199_999 + b"\x7fq\x00"  # one whole number of 200 kB
    sizes = b"(" + b"h\x00" * 100_000 + b"t"
    nested = b")" + b"\x85" * 300_000
    encoded = b"X" + struct.pack("<I", 300_000) + b"\xc2\x80" * 150_000 + b"q\x00"
    scalar = b"cnumpy.core.multiarray\nscalar\nq\x01" + f4 + b"q\x02"
    return [
        doubled + dtype + b"(h" + bytes([60]) + b"tR.",  # shown in a message
        doubled + b".",
        doubled + b"h" + bytes([60]) + b"h" + bytes([60]) + array + b"\x87.",  # as ids
        large + b"0" + array + b"(I1\n" + sizes + f4 + b"I00\nS''\ntb.",  # the product of 100,000 of it
        large + b"0" + array + b"(I1\n(h\x00t" + f4 + b"I00\nS''\ntb.",
        array + b"(I1\n(" + b"I0\n" * 100 + b"t" + f4 + b"I00\nS''\ntb.",  # 100 dimensions
        array + b"(I1\n(I0\nI4611686018427387904\nI4611686018427387904\nt" + f4 + b"I00\nS''\ntb.",
        nested + b".",
        nested + dtype + b"q\x000h\x00(" + nested + b"tR.",
        b"}" + nested + b"Ns.",
        encoded + b"0" + scalar + b"0" + b"".join(b"h\x01(h\x02h\x00tR0" for _ in range(60_000)) + b"N.",
        b"(" * 1_000_000,
        b"]" * 1_000_000,
        b"}" * 1_000_000 + b".",
        b"I" + b"9" * 900_000 + b"\n.",
        b"F" + b"9" * 900_000 + b"\n.",
        b"V" + b"\\u0041" * 150_000 + b"\n.",
        b"S'" + b"\\x00" * 200_000 + b"'\n.",
    ]


@cache
def hdf5() -> list[bytes]:
    """Datasets that were never written and are as large as they like, and one of chunks that unpack a thousandfold."""
    blocks = (5, 2**20), (5, 2**28), (2**45, 5), (400_000_000, 5), (130, 2**22)
    return [_hdf5(block, rows) for block in blocks for rows in (130, block[0])] + [_zeros(150_000_000)]


def _hdf5(block: tuple[int, int], rows: int) -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as root:
        _labels(root)
        root.create_dataset("axis1", shape=(rows,), dtype="i8", chunks=(1,))
        root.create_dataset("block0_values", shape=block, dtype="f4", chunks=(1, 1))
    return file.getvalue()


def _labels(root: h5py.File) -> None:
    for name in ("axis0", "block0_items"):
        root.create_dataset(name, data=np.array([b"a", b"b", b"c", b"d", b"e"]))


def _zeros(rows: int) -> bytes:
    """A frame of zeros in 50 chunks that are written; each has the same packed bytes."""
    file, chunk = io.BytesIO(), rows // 50
    with h5py.File(file, "w") as root:
        _labels(root)
        root.create_dataset("axis1", shape=(rows,), dtype="i1", chunks=(chunk,), compression="gzip")
        root.create_dataset("block0_values", shape=(rows, 5), dtype="i1", chunks=(chunk, 5), compression="gzip")
        for dataset, packed in (
            (root["axis1"], zlib.compress(bytes(chunk))),
            (root["block0_values"], _deflated(5 * chunk)),
        ):
            for first in range(0, rows, chunk):
                dataset.id.write_direct_chunk((first, 0)[: dataset.ndim], packed)
    return file.getvalue()


def _deflated(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


@cache
def parquet() -> list[bytes]:
    """Columns of one value, which Parquet keeps in a few bytes however often it is repeated; many columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    written = []
    for rows, columns in ((20_000_000, 8), (1000, 2), (2, 3000)):
        arrays = [pa.repeat(pa.scalar(0, pa.timestamp("ns")), rows), *[pa.repeat(pa.scalar(0.0), rows)] * columns]
        file = io.BytesIO()
        pq.write_table(pa.table(arrays, names=[str(number) for number in range(columns + 1)]), file, compression="zstd")
        written.append(file.getvalue())
    return written


@cache
def csv() -> list[bytes]:
    """Very wide and very long tables, fields and quotes without end."""
    wide = ("time," + ",".join(f"s{number}" for number in range(12_000)) + "\n").encode()
    return [
        wide + b"2018-01-01" + b",1" * 12_000 + b"\n",
        wide + b"2018-01-01" + b",x" * 12_000 + b"\n",
        ("time," + ",".join(f"{number:x}" for number in range(150_000)) + "\n").encode(),
        b"," * 1_000_000,
        b"time,a\n" + b"2018-01-01,1\n" * 70_000,
        b"time,a\n" + b"2018-01-01,x\n" * 70_000,
        b"time,a\n" + b"1 Jan 2018 10pm,1\n" * 50_000,
        b"time,a\n" + b"zzz,1\n" * 150_000,
        b'time,a\n"' + b"a" * 1_000_000,
        b"time,a\n2018-01-01," + b"1" * 1_000_000,
        b"time,a\n" + b"\n" * 1_000_000,
        b"\n" * 1_000_000,
        b"time," + b"a" * 1_000_000 + b"\n2018-01-01,1\n",
        b"time,a,a\x1b[2Jb\n2018-01-01,1,x\n",
        b"a" * 1_000_000 + b"," + b"a" * 1 + b"\n",
    ]


@cache
def edges() -> list[bytes]:
    """Edge lists with long lines, odd line ends and many repeated edges."""
    return [
        b"from,to,cost\n" + b"0,1,1\n" * 170_000,
        b"from,to,cost\n" + b"\r" * 1_000_000,
        b"from,to,cost\n" + b"\r\r\r\r" * 200_000 + b"x",
        b"from,to,cost\n0,1," + b"1" * 1_000_000,
        b"from,to,cost\n" + b"1" * 1_000_000 + b",0,1",
        b'from,to,cost\n"0\n1",1,1\n',
        b'from,to,cost\n"' + b"0\n" * 400_000,
        b"from,to,cost\n0,1,1\x1b[2J\n",
        b"\xef\xbb\xbf" * 3 + b"from,to\n0,1\n",
        b"f" * 1_000_000,
    ]


@cache
def ids() -> list[bytes]:
    """Many ids, of which the last is the first again."""
    return [
        "\n".join([*map(str, range(130_000)), "129999"]).encode(),
        b"," * 1_000_000 + b"1",
        b"a" * 1_000_000,
        b"\x1b[2J\n\x1b[2J\n",
        "a\u2028b\na\u2028b".encode(),
    ]


@cache
def json_() -> list[bytes]:
    """Depth and numbers beyond a parser's."""
    return [
        b"[" * 500_000,
        b'{"a":' * 150_000,
        b'{"format":' + b"[" * 150_000 + b"]" * 150_000 + b"}",
        b'{"format": 1' + b"0" * 5000 + b"}",
        b'{"format": 1e999999}',
        b'{"status": "finished", "a": ' + b"9" * 900_000 + b"}",
        b'"' + b"a" * 900_000 + b'"',
        b'{"format": "' + b"a" * 900_000 + b'"}',
        b'{"status": "' + b"\\u001b" * 100_000 + b'"}',
        b"null",
        b"\xff\xfe{\0}\0",
    ]


@cache
def settings() -> list[bytes]:
    """Words behind `--set` that a parser of Python cannot bear."""
    return [
        b"lr=" + b"(" * 100_000,
        b"lr=" + b"-" * 100_000 + b"1",
        b"lr=" + b"[" * 90 + b"]" * 90,
        b"model.x=" + b"[" * 150 + b"]" * 150,
        b"lr=" + b"1+" * 5000 + b"1j",
        b"seed=" + b"9" * 5000,
        b"seed=0x" + b"f" * 5000,
        b"model.x=0x" + b"f" * 5000,
        b"lr=1" + b"0" * 400,
        b"milestones=" + b"(" + b"1," * 100_000 + b")",
        b"model.x={[]: 1}",
        b"model.x={(): 1, b'a': {2}, ...: 3j}",
        b"model.x=b'\\xff'",
        b"model.x='\\ud800'",
        b"\xff\xfe=1",
        b"lr=\0",
        b"lr=a\x1b[2Jb",
        b"a\x1b[2Jb=1",
        b"model.=1",
        b"a" * 500_000 + b"=1",
        b"lr=" + b"a" * 500_000,
        b"model.x=nan",
        b"model.x=1e999",
        b"=",
        b"",
    ]
