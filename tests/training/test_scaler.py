"""The scaler with one mean for all sensors, which the stock one cannot fit."""

from typing import Any

import numpy as np
import pytest
import torch
from basicts.scaler import ZScoreScaler
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from ealinformer.measure.memory import resident_peak
from ealinformer.training.scaler import GlobalZScoreScaler


def fitted(data: np.ndarray) -> GlobalZScoreScaler:
    scaler = GlobalZScoreScaler(norm_each_channel=False, rescale=True)
    scaler.fit(data)
    return scaler


def flow(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2, 100, (300, 7)).astype(np.float32)


def test_fits_what_the_stock_scaler_raises_on() -> None:
    with pytest.raises(TypeError):
        ZScoreScaler(norm_each_channel=False, rescale=True).fit(flow())
    stats = fitted(flow()).stats
    assert stats["mean"].item() == pytest.approx(flow().astype(np.float64).mean(), rel=1e-6)
    assert stats["std"].item() == pytest.approx(flow().astype(np.float64).std(), rel=1e-6)
    assert stats["mean"].shape == stats["std"].shape == ()
    assert stats["mean"].dtype == stats["std"].dtype == torch.float32


def test_fits_a_memory_mapped_file(tmp_path) -> None:
    np.save(tmp_path / "data.npy", flow())
    assert fitted(np.load(tmp_path / "data.npy", mmap_mode="r")).stats == fitted(flow()).stats


def test_a_memory_mapped_file_does_not_stay_in_memory(tmp_path) -> None:
    size = 200 << 20
    with (tmp_path / "data.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (size // 4000, 1000)}
        )
        file.truncate(file.tell() + size)  # zeros that take no room on the disk
    data = np.load(tmp_path / "data.npy", mmap_mode="r")
    assert resident_peak(lambda: fitted(data)) < size // 4


@pytest.mark.parametrize("columns", [1, 7, 1_100_000])
def test_blocks_of_any_width_give_the_statistics_of_the_whole(columns: int) -> None:
    data = np.random.default_rng(4).gamma(2, 100, (5 if columns > 7 else 2_500_000 // columns, columns))
    data = data.astype(np.float32)
    data[:2] = np.nan  # the first block may hold no reading at all
    data[-1] += 5000
    stats = fitted(data).stats
    assert stats["mean"].item() == pytest.approx(np.nanmean(data, dtype=np.float64), rel=1e-7)
    assert stats["std"].item() == pytest.approx(np.nanstd(data, dtype=np.float64), rel=1e-7)


def test_zeros_count_and_nan_do_not() -> None:
    data = np.array([[1, 3], [0, np.nan]], dtype=np.float32)
    stats = fitted(data).stats
    assert stats["mean"].item() == pytest.approx(4 / 3)
    assert stats["std"].item() == pytest.approx(np.std([1, 3, 0]))


def test_a_constant_series_has_a_deviation_of_one() -> None:
    scaler = fitted(np.full((50, 3), 8, dtype=np.float32))
    assert scaler.stats["std"].item() == 1
    assert scaler.transform(torch.tensor([8.0, 9.0])).tolist() == [0, 1]


def test_the_mean_keeps_its_digits_over_many_readings() -> None:
    data = np.full((4000, 1000), 60.1, dtype=np.float32)
    data[::2] += 1
    assert fitted(data).stats["mean"].item() == pytest.approx(60.6, rel=1e-6)
    assert fitted(data).stats["std"].item() == pytest.approx(0.5, rel=1e-5)


def test_statistics_that_are_there_are_kept() -> None:
    given_stats = {"mean": torch.tensor(10.0), "std": torch.tensor(2.0)}
    scaler = GlobalZScoreScaler(norm_each_channel=False, rescale=True, stats=dict(given_stats))
    scaler.fit(flow())
    assert scaler.stats == given_stats


def test_two_scalers_share_no_statistics() -> None:
    one, two = fitted(flow()), fitted(2 * flow())
    assert two.stats["mean"].item() == pytest.approx(2 * one.stats["mean"].item())


@settings(deadline=None)
@given(
    values=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20),
    mean=st.floats(-500, 500, width=32),
    std=st.floats(0.125, 500, width=32),
)
def test_inverse_of_transform_is_the_reading(values: list[float], mean: float, std: float) -> None:
    stats = {"mean": torch.tensor(mean), "std": torch.tensor(std)}
    scaler = GlobalZScoreScaler(norm_each_channel=False, rescale=True, stats=stats)
    readings = torch.tensor(values)
    torch.testing.assert_close(
        scaler.inverse_transform(scaler.transform(readings)), readings, rtol=1e-5, atol=1e-5 * (abs(mean) + std)
    )


class Copies(TorchDispatchMode):
    """Counts copies between devices."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function is torch.ops.aten._to_copy.default
        return function(*args, **(kwargs or {}))


def test_nothing_is_copied_to_the_device_where_the_stock_scaler_copies_both_numbers() -> None:
    """Tensors without data stand in for those of a GPU."""
    ours = fitted(flow())
    stock = ZScoreScaler(norm_each_channel=False, rescale=True, stats=ours.stats)
    readings = torch.empty(4, 7, device="meta")
    for scaler, copies in ((ours, 0), (stock, 4)):
        with Copies() as seen:
            there = scaler.transform(readings)
            back = scaler.inverse_transform(there)
        assert there.device == back.device == readings.device
        assert seen.count == copies


@pytest.mark.parametrize("masked", [False, True])
def test_the_same_bits_as_the_stock_scaler(masked: bool) -> None:
    ours = fitted(flow())
    stock = ZScoreScaler(norm_each_channel=False, rescale=True, stats=ours.stats)
    readings = torch.from_numpy(flow(1))
    before = readings.clone()
    mask = readings > 200 if masked else None
    assert torch.equal(ours.transform(readings, mask), stock.transform(readings, mask))
    assert torch.equal(ours.inverse_transform(readings, mask), stock.inverse_transform(readings, mask))
    assert torch.equal(readings, before)
