"""Reading raw series: every published format gives the same values, and whatever is wrong gives one line."""

import os
import pickle
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from ealinformer.data.readers import RawSeries, read_series
from ealinformer.errors import InputError

VALUES = np.array([[1.5, 2.0, -3.25], [np.nan, 0.0, 7.0], [np.inf, 0.1, 1e-3], [4.0, 5.0, 6.0]])  # [4, 3]
CUBE = np.stack([VALUES, VALUES * 10, VALUES * 100], axis=-1)  # [4, 3, 3]
IDS = ["400001", "s2", "773"]
TIMES = pd.date_range("2018-01-01 23:50", periods=4, freq="5min")
STAMPS = TIMES.to_numpy(dtype="datetime64[ns]")


def refusal(path: Path, channel: int = 0, time_column: str | None = None) -> str:
    """The message of the refusal of `path`, which is one line that starts with its name."""
    with pytest.raises(InputError) as caught:
        read_series(path, channel=channel, time_column=time_column)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def text_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "series.csv"
    path.write_bytes(text.encode())
    return path


def npy_file(tmp_path: Path, array: np.ndarray) -> Path:
    path = tmp_path / "series.npy"
    np.save(path, array, allow_pickle=True)
    return path


def npz_file(tmp_path: Path, **arrays: np.ndarray) -> Path:
    path = tmp_path / "series.npz"
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path


def frame() -> pd.DataFrame:
    return pd.DataFrame(VALUES, index=TIMES, columns=IDS)


def csv_file(tmp_path: Path) -> Path:
    path = tmp_path / "series.csv"
    frame().to_csv(path)
    return path


def parquet_file(tmp_path: Path, table: pd.DataFrame | None = None, index: bool | None = None) -> Path:
    path = tmp_path / "series.parquet"
    pytest.importorskip("pyarrow")
    (frame() if table is None else table).to_parquet(path, index=index)
    return path


Blocks = list[tuple[list[str] | list[int], np.ndarray]]


def labels(group: h5py.Group, name: str, items: list[str] | list[int]) -> h5py.Dataset:
    """Column labels as pandas writes them: whole numbers, or bytes of the longest label's length."""
    text = isinstance(items[0], str)
    dataset = group.create_dataset(name, data=np.array([str(item).encode() for item in items]) if text else items)
    dataset.attrs["kind"] = np.bytes_(b"string" if text else b"integer")
    return dataset


def add_frame(
    group: h5py.Group, columns: list[str] | list[int], blocks: Blocks, kind: bytes = b"datetime64[ns]"
) -> None:
    """A frame in pandas' fixed layout; each block is `[T, items]`."""
    group.attrs["pandas_type"] = np.bytes_(b"frame")
    group.attrs["nblocks"] = len(blocks)
    labels(group, "axis0", columns)
    index = group.create_dataset("axis1", data=STAMPS.astype(np.int64))
    index.attrs["kind"] = np.bytes_(kind)
    for number, (items, values) in enumerate(blocks):
        labels(group, f"block{number}_items", items)
        stored = group.create_dataset(f"block{number}_values", data=values, compression="gzip" if values.size else None)
        stored.attrs["transposed"] = np.uint8(1)


def h5_file(
    tmp_path: Path,
    columns: list[str] | list[int] = IDS,
    blocks: Blocks | None = None,
    change: Callable[[h5py.Group], object] = lambda group: None,
    **options: bytes,
) -> Path:
    path = tmp_path / "series.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("speed")
        add_frame(group, columns, [(columns, VALUES)] if blocks is None else blocks, **options)
        change(group)
    return path


def check(series: RawSeries, values: np.ndarray = VALUES, ids: list[str] | None = IDS) -> None:
    """`series` holds exactly `values`, and the usual times where it has ids."""
    assert series.values.dtype == values.dtype
    assert series.values.flags.c_contiguous
    np.testing.assert_array_equal(series.values, values)
    assert series.sensor_ids == ids
    if ids is not None:
        assert series.times is not None
        assert series.times.dtype == np.dtype("datetime64[ns]")
        np.testing.assert_array_equal(series.times, STAMPS)


@pytest.mark.parametrize("write", [npy_file, lambda folder, array: npz_file(folder, data=array)])
def test_arrays(tmp_path: Path, write: Callable[[Path, np.ndarray], Path]) -> None:
    check(read_series(write(tmp_path, VALUES)), VALUES, None)
    check(read_series(write(tmp_path, VALUES.astype(np.float32))), VALUES.astype(np.float32), None)
    check(read_series(write(tmp_path, np.asfortranarray(VALUES))), VALUES, None)
    for channel in range(3):
        check(read_series(write(tmp_path, CUBE), channel=channel), CUBE[..., channel], None)


@pytest.mark.parametrize(
    ("stored", "read"),
    [("int64", "float64"), ("int32", "float64"), ("uint16", "float32"), (">f4", "float32"), (">f8", "float64")],
)
def test_numbers_are_kept_exactly(tmp_path: Path, stored: str, read: str) -> None:
    array = np.array([[1, 2], [65_535, 40_001]], dtype=stored)
    if read == "float64":
        array[0, 0] = 2**30 + 1  # float32 would make 2^30 of it
    check(read_series(npy_file(tmp_path, array)), array.astype(read), None)


def test_npz_takes_data_or_the_only_array(tmp_path: Path) -> None:
    check(read_series(npz_file(tmp_path, other=VALUES[:2], data=VALUES)), VALUES, None)
    check(read_series(npz_file(tmp_path, flow=VALUES)), VALUES, None)
    assert "holds 2 arrays ('flow', 'speed'); expected one called 'data'" in refusal(
        npz_file(tmp_path, flow=VALUES, speed=VALUES)
    )
    assert "no array" in refusal(npz_file(tmp_path))


def test_a_channel_that_is_not_there_is_refused_with_the_number_of_channels(tmp_path: Path) -> None:
    assert "has 3 channels, but channel 3 is asked for; expected 0..2" in refusal(npy_file(tmp_path, CUBE), 3)
    assert "has 3 channels, but channel -1" in refusal(npz_file(tmp_path, data=CUBE), -1)
    for path in (npy_file(tmp_path, VALUES), csv_file(tmp_path), h5_file(tmp_path), parquet_file(tmp_path)):
        assert "has 1 channel, but channel 1" in refusal(path, 1)


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (VALUES[0], "shape [3]; expected [T, N] or [T, N, C]"),
        (CUBE[None], "shape [1, 4, 3, 3]"),
        (np.array(1.0), "shape []"),
        (VALUES[:0], "0 steps of 3 sensors"),
        (VALUES[:, :0], "4 steps of 0 sensors"),
        (CUBE[..., :0], "has 0 channels"),
        (VALUES > 0, "dtype bool"),
        (VALUES.astype(complex), "dtype complex128"),
        (VALUES.astype(str), "dtype <U"),
        (STAMPS[:, None], "dtype datetime64[ns]"),
        (VALUES.astype(object), "Object arrays cannot be loaded"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, array: np.ndarray, found: str) -> None:
    assert found in refusal(npy_file(tmp_path, array))
    assert found in refusal(npz_file(tmp_path, data=array))


def test_hdf5_with_ids_of_either_kind(tmp_path: Path) -> None:
    check(read_series(h5_file(tmp_path)))
    check(read_series(h5_file(tmp_path, [7, 400001, -3])), VALUES, ["7", "400001", "-3"])
    check(read_series(h5_file(tmp_path).rename(tmp_path / "series.hdf5")))


def test_hdf5_puts_several_blocks_in_column_order(tmp_path: Path) -> None:
    counts = np.array([[2**30 + 1], [2], [3], [4]])
    path = h5_file(tmp_path, ["a", "n", "b"], [(["b", "a"], VALUES[:, [2, 0]]), (["n"], counts)])
    check(read_series(path), np.column_stack([VALUES[:, 0], counts, VALUES[:, 2]]), ["a", "n", "b"])


def test_hdf5_of_single_precision_stays_so(tmp_path: Path) -> None:
    single = VALUES.astype(np.float32)
    check(read_series(h5_file(tmp_path, IDS, [(IDS[:2], single[:, :2]), (IDS[2:], single[:, 2:])])), single)


def test_hdf5_block_that_was_stored_untransposed(tmp_path: Path) -> None:
    path = h5_file(tmp_path, IDS, [(IDS, VALUES.T)], lambda group: group["block0_values"].attrs.create("transposed", 0))
    check(read_series(path))


@pytest.mark.parametrize(
    ("kind", "per_unit"), [(b"datetime64", 1), (b"datetime64[us]", 1000), (b"datetime64[s]", 10**9)]
)
def test_hdf5_times_of_older_and_newer_pandas(tmp_path: Path, kind: bytes, per_unit: int) -> None:
    def store(group: h5py.Group) -> None:
        group["axis1"][...] = STAMPS.astype(np.int64) // per_unit

    check(read_series(h5_file(tmp_path, change=store, kind=kind)))


def test_hdf5_times_in_a_zone_become_wall_times(tmp_path: Path) -> None:
    def store(group: h5py.Group) -> None:
        group["axis1"][...] = STAMPS.astype(np.int64) + 8 * 3600 * 10**9
        group["axis1"].attrs["tz"] = np.bytes_(b"US/Pacific")

    check(read_series(h5_file(tmp_path, change=store)))


def test_hdf5_with_an_index_of_numbers_has_no_times(tmp_path: Path) -> None:
    series = read_series(h5_file(tmp_path, kind=b"integer"))
    assert series.times is None
    assert series.sensor_ids == IDS


def test_hdf5_runs_no_pickle_of_the_file(tmp_path: Path) -> None:
    trace = tmp_path / "trace"

    class Call:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"echo > {trace}",)

    payload = np.bytes_(pickle.dumps(Call(), 0))
    path = h5_file(tmp_path, change=lambda group: group["axis1"].attrs.create("freq", payload))
    check(read_series(path))
    assert not trace.exists()


def replace(name: str, data: object) -> Callable[[h5py.Group], None]:
    def change(group: h5py.Group) -> None:
        del group[name]
        if data is not None:
            group[name] = data

    return change


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            lambda group: add_frame(group.parent.create_group("more/flow"), IDS, []),
            "holds 2 frames (/more/flow, /speed)",
        ),
        (replace("axis0", None), "no pandas frame"),
        (replace("axis0", [1.5, 2.5, 3.5]), "/speed/axis0 holds float64 [3]"),
        (replace("axis0", [[1, 2, 3]]), "/speed/axis0 holds int64 [1, 3]"),
        (replace("axis0", np.array([b"a", b"a", b"b"])), "column 'a' occurs twice"),
        (replace("axis0", np.array([b"400001", b"s2", b"b"])), "block 0 holds column '773'"),
        (
            replace("axis0", np.array([b"400001", b"s2", b"773", b"b"])),
            "the blocks hold 3 columns; expected each of 4 once",
        ),
        (replace("axis0", np.array([b"\xff", b"s2", b"773"])), "UnicodeDecodeError"),
        (replace("axis1", np.arange(5)), "block 0 has shape [4, 3]; expected [5, 3]"),
        (replace("block0_items", None), "cannot be read (KeyError"),
        (replace("block0_values", None), "the blocks hold 0 columns"),
        (replace("block0_values", VALUES.T), "block 0 has shape [3, 4]; expected [4, 3]"),
        (
            replace("block0_values", np.array([[b"x"] * 3] * 4)),
            "column '400001' has dtype |S1; expected integers or floats",
        ),
        (lambda group: group["axis1"].attrs.create("kind", np.bytes_(b"datetime64[Y]")), "as 'datetime64[Y]'"),
        (lambda group: group["axis1"].attrs.create("tz", np.bytes_(b"Mars")), "cannot be read"),
        (lambda group: group["axis1"].__setitem__(1, np.iinfo(np.int64).min), "a row of /speed/axis1 has no time"),
        (lambda group: group["axis1"].attrs.create("shape", np.bytes_(b"(I0\ntp0\n.")), "0 steps of 3 sensors"),
    ],
)
def test_other_hdf5_files_are_refused(tmp_path: Path, change: Callable[[h5py.Group], object], found: str) -> None:
    assert found in refusal(h5_file(tmp_path, change=change))


def test_hdf5_in_table_format_is_named(tmp_path: Path) -> None:
    path = tmp_path / "series.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("df")
        group.attrs["pandas_type"] = np.bytes_(b"frame_table")
        group.create_group("_i_table")
    assert "'table' format; expected the 'fixed' one" in refusal(path)


def test_csv(tmp_path: Path) -> None:
    check(read_series(csv_file(tmp_path)))


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\n\n"])
def test_csv_with_a_named_time_column(tmp_path: Path, line_end: str) -> None:
    rows = ["\ufeff400001, s2 ,when,773"]
    rows += [f"{a!r},{b!r},{time},{c!r}" for (a, b, c), time in zip(VALUES.tolist(), TIMES, strict=True)]
    rows[2] = rows[2].replace("nan", "")
    path = text_file(tmp_path, line_end.join(rows))
    check(read_series(path, time_column="when"))
    assert "the number '1.5'; expected date-times such as" in refusal(path)


def test_csv_keeps_every_digit_and_repeated_numbers_as_names(tmp_path: Path) -> None:
    value = 0.1 + 0.2
    series = read_series(text_file(tmp_path, f"time,1,1.1\n2018-01-01,{value!r},1e-300\n"))
    assert series.values.tolist() == [[value, 1e-300]]
    assert series.sensor_ids == ["1", "1.1"]


def test_csv_times_in_a_zone_become_wall_times(tmp_path: Path) -> None:
    series = read_series(text_file(tmp_path, "time,a\n2018-01-01T08:00:00-08:00,1\n2018-01-01T08:05:00-08:00,2\n"))
    assert series.times is not None
    assert series.times.tolist() == np.array(["2018-01-01T08:00", "2018-01-01T08:05"], "datetime64[ns]").tolist()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "is empty"),
        ("\n\n", "expected"),
        ("time,a,b\n", "0 steps of 2 sensors"),
        ("time\n2018-01-01\n", "1 steps of 0 sensors"),
        ("time,a,a\n2018-01-01,1,2\n", "column 'a' occurs twice"),
        ("2018-01-01 00:00,1,2\n2018-01-01 00:05,1,2\n", "starts with '2018-01-01 00:00' and is no header"),
        ("time,a,b\n2018-01-01,1,2\n2018-01-02,1\n", "line 3 has 2 fields; expected 3 as in the header"),
        ("time,a,b\n2018-01-01,1,2,3\n", "line 2 has 4 fields"),
        (
            "time,a,b\n2018-01-01,1,2\n2018-01-02,1,closed\n",
            "column 'b' holds 'closed' in data row 2; expected a number",
        ),
        ("time,a,b\n2018-01-01,1,True\n", "column 'b' has dtype bool"),
        ("time,a\n2018-01-01,1\n,2\n", "data row 2 has no time"),
        (
            "time,a\n0,1\n1,2\n",
            "found the number '0'; expected date-times such as '2018-01-01 00:05:00' in time column",
        ),
        ("time,a\nnever,1\n", "in time column 'time'"),
        ("time,a\n2018-01-01,1\n2018-13-01,2\n", "in time column 'time'"),
        ("time,a\n2018-01-01T00:00-08:00,1\n2018-07-01T00:00-07:00,2\n", "in time column 'time'"),
        ("time,a\n9999-01-01,1\n", "in time column 'time'"),
        ('time,a\n2018-01-01,"1\n', "cannot be read"),
    ],
)
def test_other_csv_files_are_refused(tmp_path: Path, text: str, found: str) -> None:
    assert found in refusal(text_file(tmp_path, text))


def test_csv_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "series.csv"
    path.write_bytes(b"time,a\n2018-01-01,\xff\n")
    assert "UnicodeDecodeError" in refusal(path)


def test_a_time_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = text_file(tmp_path, "timestamp,a\n2018-01-01,1\n")
    assert "expected a time column 'timestmp' (did you mean 'timestamp'?)" in refusal(path, time_column="timestmp")
    assert "'when'" in refusal(parquet_file(tmp_path), time_column="when")
    for other in (npy_file(tmp_path, VALUES), h5_file(tmp_path)):
        assert "has no named time column" in refusal(other, time_column="when")


def test_parquet_with_times_in_the_index_or_in_a_column(tmp_path: Path) -> None:
    check(read_series(parquet_file(tmp_path)))
    named = frame().rename_axis("when")
    check(read_series(parquet_file(tmp_path, named)))
    check(read_series(parquet_file(tmp_path, named), time_column="when"))
    check(read_series(parquet_file(tmp_path, named.reset_index())))
    last = named.reset_index()[[*IDS, "when"]]
    check(read_series(parquet_file(tmp_path, last), time_column="when"))
    as_text = last.assign(when=last["when"].astype(str))
    check(read_series(parquet_file(tmp_path, as_text, index=False), time_column="when"))


def test_parquet_dtypes(tmp_path: Path) -> None:
    single = frame().astype(np.float32)
    check(read_series(parquet_file(tmp_path, single)), VALUES.astype(np.float32))
    gaps = pd.DataFrame({"a": pd.array([1, None, 2**30 + 1, 4], dtype="Int64"), "b": np.float32(0.5)}, index=TIMES)
    check(
        read_series(parquet_file(tmp_path, gaps)),
        np.array([[1, 0.5], [np.nan, 0.5], [2**30 + 1, 0.5], [4, 0.5]]),
        ["a", "b"],
    )


def test_other_parquet_files_are_refused(tmp_path: Path) -> None:
    assert "column 's2' holds 'closed' in data row 1" in refusal(parquet_file(tmp_path, frame().assign(s2="closed")))
    assert "column 's2' has dtype bool" in refusal(parquet_file(tmp_path, frame().assign(s2=True)))
    assert "column 's2' has dtype datetime64" in refusal(parquet_file(tmp_path, frame().assign(s2=TIMES)))
    assert "0 steps of 3 sensors" in refusal(parquet_file(tmp_path, frame().iloc[:0]))
    assert "4 steps of 0 sensors" in refusal(parquet_file(tmp_path, frame()[[]]))
    assert "the number '1.5'" in refusal(parquet_file(tmp_path, frame().reset_index(drop=True)))


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet_file(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert 'pip install "ealinformer[parquet]"' in refusal(path)


@pytest.mark.parametrize("suffix", ["npz", "npy", "h5", "hdf5", "csv", "parquet"])
def test_missing_empty_and_foreign_files_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"series.{suffix}"
    assert "no such file" in refusal(path)
    path.touch()
    assert "is empty" in refusal(path)
    path.write_bytes(b"\x00\x01\x02 not a series at all \xff" * 50)
    refusal(path)
    path.write_bytes(pickle.dumps(VALUES))
    refusal(path)
    path.unlink()
    path.mkdir()
    assert "is not a file" in refusal(path)


def test_an_unknown_suffix_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    assert "unknown suffix '.xlsx'; expected one of .npz" in refusal(tmp_path / "series.xlsx")
    assert "unknown suffix ''" in refusal(tmp_path / "series")


@pytest.mark.parametrize("kind", ["npz", "npy", "h5", "parquet"])
def test_truncated_files_are_refused(tmp_path: Path, kind: str) -> None:
    write: dict[str, Callable[[], Path]] = {
        "npz": lambda: npz_file(tmp_path, data=CUBE),
        "npy": lambda: npy_file(tmp_path, CUBE),
        "h5": lambda: h5_file(tmp_path),
        "parquet": lambda: parquet_file(tmp_path),
    }
    path = write[kind]()
    read_series(path)
    content = path.read_bytes()
    for length in range(1, len(content), max(1, len(content) // 40)):
        path.write_bytes(content[:length])
        assert "expected" in refusal(path)


@pytest.mark.parametrize("kind", ["npz", "h5"])
def test_damaged_members_are_refused(tmp_path: Path, kind: str) -> None:
    path = npz_file(tmp_path, data=CUBE) if kind == "npz" else h5_file(tmp_path)
    content = bytearray(path.read_bytes())
    # zlib streams of both formats start so; the zip member's follows its name and a header of fixed size
    start = content.index(b"\x78\x5e") if kind == "h5" else content.index(b"data.npy") + 40
    content[start + 8 : start + 28] = bytes(20)
    path.write_bytes(content)
    assert "cannot be read" in refusal(path)


@pytest.mark.real_data
@pytest.mark.skipif("EALINFORMER_RAW_DIR" not in os.environ, reason="skipped: no raw data")
def test_published_pems08() -> None:
    path = Path(os.environ["EALINFORMER_RAW_DIR"]) / "PEMS08" / "PEMS08.npz"
    series = read_series(path)
    assert series.values.shape == (17856, 170)
    assert series.values[:6, 0].tolist() == [133, 114, 140, 106, 117, 110]
    assert (series.values.min(), series.values.max(), (series.values == 0).sum()) == (0, 1147, 10_560)
    assert "has 1 channel" in refusal(path, 1)


def npy_header(shape: tuple[int, ...], kind: str) -> bytes:
    words = repr({"descr": kind, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(words).to_bytes(2, "little") + words


@pytest.mark.parametrize("shape", [(2**31, 3), (2**62, 2**62), (2**32, 2**32), (-1, -1)])
@pytest.mark.parametrize("kind", ["<f8", "|S2000000000"])
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_a_header_that_promises_more_than_the_file_holds_takes_no_memory(
    tmp_path: Path, shape: tuple[int, ...], kind: str, suffix: str
) -> None:
    path = tmp_path / f"series.{suffix}"
    content = npy_header(shape, kind) + bytes(64)
    if suffix == "npy":
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("data", content)  # numpy knows an array by its first bytes, not by its name
    assert "64 bytes follow" in refusal(path)


@pytest.mark.parametrize(
    ("version", "found"), [(b"\2\0", "says 4,294,967,295 bytes of itself"), (b"\xff\xff", "version (255, 255)")]
)
def test_a_header_longer_than_the_file_takes_no_memory(tmp_path: Path, version: bytes, found: str) -> None:
    path = tmp_path / "series.npy"
    path.write_bytes(b"\x93NUMPY" + version + b"\xff" * 4 + npy_header((1, 1), "<f8"))
    assert found in refusal(path)


def test_archives_that_unpack_without_measure_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "series.npz"
    np.savez_compressed(path, data=np.zeros((1000, 1000), np.int8))
    read_series(path)  # a small one may hold what it likes
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("data.npy", "w") as file:
        file.write(npy_header((140 * 1024, 1024), "|i1"))
        for _ in range(140):
            file.write(bytes(2**20))
    assert "would unpack to 146,800," in refusal(path)
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("data.npy", npy_header((1, 1), "|i1") + b"a")
        assert "packed as numpy packs none" in refusal(path)


def test_hdf5_datasets_larger_than_memory_are_refused_unread(tmp_path: Path) -> None:
    def grow(rows: int, name: str) -> Callable[[h5py.Group], object]:
        def change(group: h5py.Group) -> None:
            width = () if name == "axis1" else (3,)
            kind = "i8" if name == "axis1" else "f4"
            kept = dict(group[name].attrs)
            del group[name]
            group.create_dataset(name, shape=(rows, *width), dtype=kind, chunks=(1, *width)).attrs.update(kept)

        return change

    assert "has shape [1099511627776, 3]" in refusal(h5_file(tmp_path, change=grow(2**40, "block0_values")))
    assert "would unpack to 8,796,093,022,208 bytes" in refusal(h5_file(tmp_path, change=grow(2**40, "axis1")))

    def both(group: h5py.Group) -> None:
        grow(2**40, "axis1")(group)
        grow(2**40, "block0_values")(group)
        del group["axis1"].attrs["kind"]

    assert "would unpack to 13,194,139,533,312 bytes" in refusal(h5_file(tmp_path, change=both))


def test_hdf5_blocks_that_are_one_dataset_are_read_once_at_most(tmp_path: Path) -> None:
    def repeat(group: h5py.Group) -> None:
        for number in range(1, 4):
            group[f"block{number}_items"], group[f"block{number}_values"] = (
                group["block0_items"],
                group["block0_values"],
            )

    assert "the blocks hold 6 columns; expected each of 3 once" in refusal(h5_file(tmp_path, change=repeat))


def test_hdf5_names_of_any_length_are_refused(tmp_path: Path) -> None:
    def change(group: h5py.Group) -> None:
        del group["axis0"]
        group.create_dataset("axis0", data=IDS, dtype=h5py.string_dtype())

    assert "/speed/axis0 holds object [3]; expected numbers or names" in refusal(h5_file(tmp_path, change=change))


def test_parquet_that_repeats_a_value_a_million_times_is_refused_unread(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "series.parquet"

    def write(rows: int, value: object, kind: object) -> int:
        times = pa.repeat(pa.scalar(0, pa.timestamp("ns")), rows)
        parquet.write_table(pa.table({"time": times, "a": pa.repeat(pa.scalar(value, kind), rows)}), path)
        return path.stat().st_size

    assert write(9_000_000, 0.5, pa.float64()) < 2**20
    assert "would unpack to 144,000,000 bytes" in refusal(path)
    assert write(1_000_000, True, pa.bool_()) < 2**20  # pandas may make Python objects of these
    assert "would unpack to 136,000,000 bytes" in refusal(path)
    write(2, [1.0], pa.list_(pa.float64()))
    assert "column 'a' has type 'list<" in refusal(path)


def test_parquet_reads_a_text_that_is_repeated_once(tmp_path: Path) -> None:
    stamps = [str(time) for time in TIMES]
    check(read_series(parquet_file(tmp_path, frame().set_axis(pd.Index(stamps, name="time"))), time_column="time"))
    path = parquet_file(tmp_path, frame().assign(s2="closed" * 100_000, time=stamps).set_index("time"))
    assert "column 's2' holds 'closedclosed" in refusal(path)


def test_a_table_of_more_columns_than_pandas_bears_is_refused(tmp_path: Path) -> None:
    start = time.process_time()
    assert "has 150001 columns" in refusal(text_file(tmp_path, "t," + ",".join(map(str, range(150_000))) + "\n"))
    assert time.process_time() - start < 5


def test_what_a_file_says_cannot_break_or_flood_the_line(tmp_path: Path) -> None:
    assert refusal(text_file(tmp_path, f"time,{'a' * 90_000}\n2018-01-01,x\n")).count("a") < 200
    assert "?" in refusal(text_file(tmp_path, 'time,a\n2018-01-01 00:00:00,1\n"2018\x1b[2J\u2028",1\n'))
    assert refusal(text_file(tmp_path, 'time,a\n2018-01-01 00:00:00,1\n"2018\x1b[2J\u2028",1\n')).isprintable()
