"""Damage inside of containers, whose checksums and directories are then right: zip, pickle, HDF5, Parquet."""

import contextlib
import hashlib
import io
import pickle
import pickletools
import random
import struct
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

from tests.fuzz import mutate

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def zip_(rng: random.Random, data: bytes) -> bytes:
    """An archive with members changed, renamed, doubled or missing, packed anew so that its checksums are right."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
    except Exception:  # a seed that is none, or a bad one
        return mutate.bytes_(rng, data)
    for _ in range(rng.choice((1, 1, 1, 2))):
        if not members:
            break
        at = rng.randrange(len(members))
        name, content = members[at]
        what = rng.random()
        if what < 0.75:
            members[at] = name, member(rng, name, content)
        elif what < 0.8:
            del members[at]
        elif what < 0.85:
            members.append((name, member(rng, name, content)))
        elif what < 0.9:
            members.append((rng.choice(mutate.WORDS)[:1000] + ".npy", content))
        else:
            members[at] = rng.choice((name + "x", name.removesuffix(".npy"), "", "data.npy", "../" + name)), content
    return zipped(members, rng.choice(_METHODS))


def zipped(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of these members."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as archive:
        warnings.simplefilter("ignore")  # of doubled names
        for name, content in members:
            with contextlib.suppress(UnicodeEncodeError, ValueError):
                archive.writestr(zipfile.ZipInfo(name or "x"), content, method)
    return file.getvalue()


def sealed(rng: random.Random, data: bytes) -> bytes:
    """A checkpoint changed inside, with the checksum that then belongs to it."""
    changed = zip_(rng, data)
    if not changed.endswith(b"\0\0"):  # the length of no comment, with which archives end
        return mutate.bytes_(rng, data)
    mark = b"ealinformer sha256:"
    body = changed[:-2] + struct.pack("<H", len(mark) + 64)
    return body + mark + hashlib.sha256(body).hexdigest().encode()


def member(rng: random.Random, name: str, content: bytes) -> bytes:
    """One member, changed by what it is."""
    if content.startswith(b"\x93NUMPY"):
        return rng.choice((mutate.npy, mutate.npy, mutate.bytes_, values))(rng, content)
    if name.endswith(".pkl"):
        return rng.choice((pickle_, pickle_, mutate.bytes_))(rng, content)
    return mutate.bytes_(rng, content)


def values(rng: random.Random, data: bytes) -> bytes:
    """A `.npy` file of the same array with odd values, of another type, or turned."""
    try:
        with np.errstate(all="ignore"):
            return mutate.npy_bytes(_other_array(rng, np.load(io.BytesIO(data), allow_pickle=False)))
    except Exception:  # of a member that is damaged already numpy says so in many ways
        return mutate.bytes_(rng, data)


def _other_array(rng: random.Random, array: np.ndarray) -> np.ndarray:
    what = rng.randrange(3)
    if what == 0 and array.size and array.dtype.kind in "iuf":
        array = array.copy()
        odd = (np.nan, np.inf, -np.inf, -1, 1e300, 1e-300, 0, 2**31, 2**63, 2**70)
        array.flat[rng.randrange(array.size)] = rng.choice(odd)
        return array
    if what == 1:
        return array.astype(rng.choice(("f2", "f8", ">f4", "i1", "u8", "c8", "?", "S4", "U3", "O", "M8[s]", "m8[s]")))
    return rng.choice((array.T, array[..., None], array.ravel(), array[:0], array.reshape(-1)[0], array[::-1]))


def pickle_(rng: random.Random, data: bytes) -> bytes:
    """A pickle with opcodes left out, repeated, exchanged or new, each of them well formed."""
    try:
        starts = [place for _, _, place in pickletools.genops(data)]
    except Exception:  # pickletools has no error of its own
        return mutate.bytes_(rng, data)
    pieces = [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(pieces))
        what = rng.randrange(5)
        if what == 0 and len(pieces) > 1:
            del pieces[at]
        elif what == 1:
            piece = rng.choice(pieces)
            pieces[at:at] = [piece] * min(rng.choice((1, 2, 3, 3000)), 1 + mutate.MAX_SIZE // (1 + len(piece)))
        elif what == 2:
            pieces[at] = rng.choice(pieces)
        elif what == 3:
            pieces[at:at] = [_opcode(rng)]
        else:
            pieces[at] = _opcode(rng)
    return b"".join(pieces)


def _opcode(rng: random.Random) -> bytes:
    """Any opcode there is, with an argument of its kind."""
    opcode = rng.choice(pickletools.opcodes)
    code = opcode.code.encode("latin1")
    kind = opcode.arg.name if opcode.arg else ""
    number = rng.choice((*mutate.INTEGERS, rng.randrange(8)))
    word = rng.choice((b"a", b"f4", b"O8", b"numpy", b"ndarray", b"dtype", b"system", b"os", b"latin1", b"x" * 70_000))
    if not kind:
        return code
    if kind.endswith("4") and kind[:3] in ("int", "uin"):
        return code + struct.pack("<I", number % 2**32)
    if kind in ("uint1", "uint2", "uint8"):
        return code + (number % 2 ** (8 * int(kind[-1]))).to_bytes(int(kind[-1]), "little")
    if kind == "float8":
        return code + rng.randbytes(8)
    if kind[-1] in "148":  # a text or a number behind its length
        size, text = int(kind[-1]), word[: 255 if kind[-1] == "1" else None]
        return code + len(text).to_bytes(size, "little") + text
    if "pair" in kind:
        return code + word[:20] + b"\n" + word[:20] + b"\n"
    return code + rng.choice((str(number).encode(), b"-1", b"'" + word + b"'", word, b"nan", b"01")) + b"\n"


def hdf5(rng: random.Random, data: bytes) -> bytes:
    """An HDF5 file with another dataset, attribute or link in it, written by the library itself."""
    file = io.BytesIO(data)
    try:
        with h5py.File(file, "r+") as root:
            groups, datasets = [root], []
            root.visititems(lambda _, item: (groups if isinstance(item, h5py.Group) else datasets).append(item))
            for _ in range(rng.choice((1, 1, 2))):
                rng.choice(_HDF5_CHANGES)(rng, rng.choice(groups), rng.choice(datasets))
    except Exception:  # the library refuses what makes no sense in errors of many kinds
        return mutate.bytes_(rng, data)
    return file.getvalue()


def _replace_dataset(rng: random.Random, group: h5py.Group, dataset: h5py.Dataset) -> None:
    name, parent = dataset.name, dataset.parent
    shape = list(dataset.shape)
    if shape and rng.random() < 0.6:
        shape[rng.randrange(len(shape))] = rng.choice((0, 1, 2, 5, 1000, 2**20, 2**31, 2**40))
    dtype = rng.choice(
        (dataset.dtype, "f4", "f8", "i8", "u1", "?", "S3", "c8", h5py.string_dtype(), h5py.ref_dtype, "V9")
    )
    del parent[name]
    options = rng.choice(
        ({}, {"chunks": True}, {"chunks": True, "compression": "gzip"}, {"maxshape": [None] * len(shape)})
    )
    parent.create_dataset(name, shape=rng.choice((shape, shape, shape[::-1], [])), dtype=dtype, **options)


def _set_values(rng: random.Random, group: h5py.Group, dataset: h5py.Dataset) -> None:
    if dataset.dtype.kind in "if" and dataset.size:
        odd = (0, -1, 2**62, -(2**63)) if dataset.dtype.kind == "i" else (np.nan, np.inf, 1e38, -0.0)
        dataset[...] = np.resize(np.array([rng.choice(odd)], dtype=dataset.dtype), dataset.shape)


def _set_attribute(rng: random.Random, group: h5py.Group, dataset: h5py.Dataset) -> None:
    item: Any = rng.choice((group, dataset))
    name = rng.choice((*item.attrs, "tz", "kind", "transposed", "shape", "pandas_type", "freq"))
    content: Any = rng.choice(
        (*mutate.WORDS[:40], 0, 2**62, np.zeros(0), np.zeros((3, 3)), b"\xff\xfe", np.bytes_(b"datetime64[s]"),
         np.bytes_(b"datetime64[D]"), np.bytes_(b"frame_table"), np.bytes_(b"Mars/Crater"), np.bytes_(b"Europe/Berlin"),
         np.bytes_(b"../../etc"), item.ref, h5py.Empty("f4"))
    )  # fmt: skip
    if isinstance(content, str):
        content = content.replace("\0", "")
    item.attrs[name] = content


def _delete(rng: random.Random, group: h5py.Group, dataset: h5py.Dataset) -> None:
    del dataset.parent[dataset.name]


def _link(rng: random.Random, group: h5py.Group, dataset: h5py.Dataset) -> None:
    name, parent = dataset.name, dataset.parent
    del parent[name]
    parent[name] = rng.choice(
        (h5py.SoftLink(name), h5py.SoftLink("/nothing"), h5py.ExternalLink("/dev/zero", "/"), parent, group,
         h5py.ExternalLink("none.h5", "/axis0"), np.dtype("f4"))
    )  # fmt: skip


_HDF5_CHANGES: tuple[Callable[[random.Random, h5py.Group, h5py.Dataset], None], ...] = (
    _replace_dataset, _replace_dataset, _set_values, _set_attribute, _set_attribute, _delete, _link,
)  # fmt: skip


def parquet(rng: random.Random, data: bytes) -> bytes:
    """A Parquet file with another column, or another account of its columns for pandas, written by Arrow itself."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(data))
        at = rng.randrange(table.num_columns)
        what = rng.randrange(4)
        if what == 0:
            account = (table.schema.metadata or {}).get(b"pandas", b"{}")
            table = table.replace_schema_metadata({b"pandas": mutate.json_(rng, account)})
        elif what == 1:
            table = table.remove_column(at)
        elif what == 2:
            table = table.append_column(rng.choice((*mutate.WORDS[:40], *table.column_names)), table.column(at))
        else:
            n = table.num_rows
            kinds: tuple[Any, ...] = (
                pa.nulls(n), pa.array([[1]] * n), pa.array([{"a": 1}] * n), pa.array([b"\xff"] * n),
                pa.array(["1,5"] * n), pa.array([2**63] * n), pa.array([True] * n),
                pa.array(["x"] * n).dictionary_encode(),
                pa.array([-(2**62)] * n, pa.timestamp("s")), pa.array([0] * n, pa.duration("s")),
                pa.array([2**62] * n, pa.timestamp("ns", "Europe/Berlin")), pa.array([None, *[1.0] * (n - 1)]),
                pa.array([10**30] * n, pa.decimal128(38, 0)),
            )  # fmt: skip
            table = table.set_column(at, table.column_names[at], rng.choice(kinds))
        file = io.BytesIO()
        pq.write_table(table, file, compression=rng.choice(("none", "snappy", "gzip", "zstd")))
        return file.getvalue()
    except Exception:  # Arrow, too
        return mutate.bytes_(rng, data)


def pickled(content: object) -> list[bytes]:
    """A pickle of each kind that files hold: by lines, by Python 2's last protocol and by the newest."""
    return [pickle.dumps(content, protocol) for protocol in (0, 2, 4, 5)]
