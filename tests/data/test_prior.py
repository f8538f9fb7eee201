"""What a model gets to know of its sensors: graphs of every kind, the training part alone, and what is kept of it."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from ealinformer.data.graphs import Graph, save_graph
from ealinformer.data.prior import ArrayPrior, BlankPrior, FolderPrior, as_adjacency, open_prior
from ealinformer.errors import InputError
from ealinformer.graphs.similarity import correlation_graph, nearest_neighbour_graph

T, N = 60, 5
DISTANCES = sparse.csr_array(([3.0, 0.0, 2.0], ([0, 1, 2], [1, 2, 2])), shape=(N, N), dtype=np.float32)  # one is 0
LINKS = np.zeros((N, N), np.float32)
LINKS[[0, 1, 1, 2], [1, 0, 2, 1]] = 1


def readings(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 10, (T, N)).astype(np.float32)


def timestamps() -> np.ndarray:
    step = np.arange(T)
    return np.stack([step % 24 / 24, step // 24 % 7 / 7], axis=1).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in BasicTS's layout, as far as a prior reads it."""
    path = tmp_path / "SERIES"
    path.mkdir()
    np.save(path / "train_data.npy", readings())
    np.save(path / "train_timestamps.npy", timestamps())
    np.save(path / "val_data.npy", np.full((T, N), np.nan, np.float32))
    save_graph(Graph(DISTANCES, "distance"), path / "graph.npz")
    return path


def prior_of(folder: Path, graph: str = "road", num_sensors: int = N) -> FolderPrior:
    return FolderPrior(folder, num_sensors, graph)


def refusal(action) -> str:
    with pytest.raises(InputError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Graphs.


def test_of_distances_the_edges_count_both_ways_and_loops_do_not() -> None:
    found = as_adjacency(Graph(DISTANCES, "distance"))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, LINKS)


def test_of_a_binary_graph_the_edges_count_both_ways_and_loops_do_not() -> None:
    ones = sparse.csr_array((np.ones(3, np.float32), ([0, 1, 2], [1, 2, 2])), shape=(N, N))
    np.testing.assert_array_equal(as_adjacency(Graph(ones, "binary")), LINKS)


def test_affinities_are_taken_as_they_are_with_their_loops() -> None:
    weights = np.zeros((N, N), np.float32)
    weights[[0, 1, 2], [1, 2, 2]] = [0.3, 0.7, 1]
    found = as_adjacency(Graph(sparse.csr_array(weights), "affinity"))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, weights)


def test_a_folder_gives_its_own_graph_and_its_training_part(folder: Path) -> None:
    prior = open_prior(str(folder), "road", N)
    np.testing.assert_array_equal(prior.adjacency(), LINKS)
    np.testing.assert_array_equal(prior.readings(), readings())
    np.testing.assert_array_equal(prior.timestamps(), timestamps())


def test_graphs_are_built_from_the_training_part(folder: Path) -> None:
    (folder / "graph.npz").unlink()
    np.testing.assert_array_equal(prior_of(folder, "correlation").adjacency(), correlation_graph(readings()))
    np.testing.assert_array_equal(prior_of(folder, "knn").adjacency(), nearest_neighbour_graph(readings()))
    none = prior_of(folder, "none").adjacency()
    assert none.shape == (N, N)
    assert none.dtype == np.float32
    assert not none.any()


@pytest.mark.parametrize("data_dir", [True, False])
def test_a_graph_comes_from_a_file(folder: Path, tmp_path: Path, data_dir: bool) -> None:
    edges = tmp_path / "roads.csv"
    edges.write_text("from,to,cost\n4,3,7.5\n")
    prior = open_prior(str(folder) if data_dir else "", str(edges), N)
    expected = np.zeros((N, N), np.float32)
    expected[4, 3] = expected[3, 4] = 1
    np.testing.assert_array_equal(prior.adjacency(), expected)
    assert np.array_equal(prior.derived("twice", (N, N), lambda: 2 * prior.adjacency()), 2 * expected)


def test_a_graph_file_alone_is_no_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("train_data.npy", readings())  # of whatever series this is
    Path("roads.csv").write_text("from,to,cost\n4,3,7.5\n")
    prior = open_prior("", "roads.csv", N)
    with pytest.raises(ValueError, match="this model needs readings of its sensors, which are not given"):
        prior.readings()
    prior.derived("ones", (2,), lambda: np.ones(2))
    assert sorted(os.listdir()) == ["roads.csv", "train_data.npy"]


def test_what_is_missing_or_of_another_size_is_named(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("from,to,cost\n5,3,7.5\n")
    assert str(other) in refusal(lambda: prior_of(folder, str(other)).adjacency())
    assert str(other) in refusal(lambda: open_prior("", str(other), N))
    found = refusal(lambda: prior_of(folder, num_sensors=6).adjacency())
    assert found == f"{folder / 'graph.npz'} holds a graph of 5 sensors, the model has 6"
    assert "did you mean 'correlation'?" in refusal(lambda: prior_of(folder, "corelation").adjacency())
    assert "did you mean 'road'?" in refusal(lambda: open_prior("", "roads", N))
    assert f"{tmp_path / 'none.csv'}: no such file" in refusal(lambda: open_prior("", str(tmp_path / "none.csv"), N))
    (folder / "graph.npz").unlink()
    assert f"{folder} was prepared without a road graph" in refusal(lambda: prior_of(folder).adjacency())
    assert f"{tmp_path / 'X'}: no such folder" in refusal(lambda: prior_of(tmp_path / "X").adjacency())


@pytest.mark.parametrize("graph", ["road", "correlation", "knn", "none"])
def test_without_a_folder_the_model_has_to_be_told(graph: str) -> None:
    with pytest.raises(ValueError, match="data_dir, a folder such as datasets/PEMS08, is expected"):
        open_prior("", graph, N)


# The training part.


@pytest.mark.parametrize("name", ["train_data.npy", "train_timestamps.npy"])
@pytest.mark.parametrize("damage", ["missing", "empty", "header", "cut", "pickle", "text", "zip"])
def test_a_file_that_cannot_be_read_is_named(folder: Path, name: str, damage: str) -> None:
    path = folder / name
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "pickle":
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif damage == "zip":
        with path.open("wb") as file:
            np.savez(file, data=readings())
    else:
        path.write_bytes(
            {"empty": b"", "header": b"\x93NUMPY\x01\x00v\x00{'descr'", "cut": whole[:-4], "text": b"1,2"}[damage]
        )
    prior = prior_of(folder, "none")
    message = refusal(prior.readings if name == "train_data.npy" else prior.timestamps)
    assert str(path) in message
    assert "expected" in message


def test_a_header_with_another_type_is_named(folder: Path) -> None:
    np.save(folder / "train_data.npy", np.full((T, N), "a"))
    message = refusal(prior_of(folder).readings)
    assert message == f"{folder / 'train_data.npy'}: the array has dtype <U1; expected integers or floats"


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ((T,), [T]),
        ((T, N + 1), [T, N + 1]),
        ((T, N - 1), [T, N - 1]),
        ((T, 6, 2), [T, 6]),
        ((1, T, N, 1), [1, T, N, 1]),
    ],
)
def test_readings_of_another_size_are_refused(folder: Path, shape: tuple[int, ...], found: list[int]) -> None:
    np.save(folder / "train_data.npy", np.zeros(shape, np.float32))
    for action in (prior_of(folder).readings, prior_of(folder, "correlation").adjacency):
        assert refusal(action).endswith(f"train_data.npy: the array has shape {found}; expected [T, {N}]")


@pytest.mark.parametrize("shape", [(T,), (T, 3), (T - 1, 2), (T, 2, 2)])
def test_timestamps_of_another_size_are_refused(folder: Path, shape: tuple[int, ...]) -> None:
    np.save(folder / "train_timestamps.npy", np.zeros(shape, np.float32))
    message = refusal(prior_of(folder).timestamps)
    assert message.endswith(f"train_timestamps.npy: the array has shape {list(shape)}; expected [{T}, 2]")


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.float16])
def test_other_numbers_become_float32(folder: Path, dtype: type) -> None:
    np.save(folder / "train_data.npy", readings().astype(dtype))
    found = prior_of(folder).readings()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, readings().astype(dtype).astype(np.float32))


def test_of_a_third_axis_the_first_feature_is_the_reading(folder: Path) -> None:
    np.save(folder / "train_data.npy", np.stack([readings(), readings(1)], axis=-1))
    np.testing.assert_array_equal(prior_of(folder).readings(), readings())


@pytest.mark.parametrize("graph", ["road", "correlation", "knn", "none"])
def test_what_a_prior_hands_out_cannot_be_changed(folder: Path, graph: str) -> None:
    prior = prior_of(folder, graph)
    series = ArrayPrior(N, np.zeros((N, N)), np.zeros((T, N)), np.zeros((T, 2)))
    for source in (prior, series, BlankPrior(N)):
        for array in (source.adjacency(), source.readings(), source.timestamps()):
            assert array.dtype == np.float32
            with pytest.raises(ValueError, match="read-only"):
                array[0, 0] = 1


# What is kept.


class Counted:
    """A computation that knows how often it ran."""

    def __init__(self, result: np.ndarray) -> None:
        self.result, self.runs = result, 0

    def __call__(self) -> np.ndarray:
        self.runs += 1
        return self.result.copy()


ARRAY = np.arange(6.0).reshape(2, 3)


def kept_files(folder: Path) -> list[Path]:
    return sorted((folder / "derived").iterdir())


def test_what_was_computed_once_is_read_back(folder: Path) -> None:
    compute = Counted(ARRAY)
    for _ in range(3):  # each time a process of its own
        found = prior_of(folder).derived("dtw", (2, 3), compute, neighbours=5)
        np.testing.assert_array_equal(found, ARRAY)
        assert found.dtype == ARRAY.dtype
        found[:] = 0  # the caller's own
    assert compute.runs == 1
    assert [path.name.split("-")[0] for path in kept_files(folder)] == ["dtw"]


def test_another_name_parameter_or_shape_is_another_array(folder: Path) -> None:
    prior, compute = prior_of(folder), Counted(ARRAY)
    prior.derived("dtw", (2, 3), compute, neighbours=5)
    prior.derived("dtw", (2, 3), compute, neighbours=6)
    prior.derived("dtw", (2, 3), compute, neighbours=5, radius=1)
    prior.derived("dtw", (2, 3), compute)
    prior.derived("other", (2, 3), compute, neighbours=5)
    assert compute.runs == 5
    prior.derived("dtw", (2, 3), compute, radius=1, neighbours=5)  # in another order
    assert compute.runs == 5
    prior.derived("dtw", (3,), Counted(np.ones(3)), neighbours=5)
    assert len(kept_files(folder)) == 6


@pytest.mark.parametrize("change", ["data", "timestamps", "graph", "graph kind"])
def test_of_another_series_or_graph_it_is_computed_anew(folder: Path, change: str) -> None:
    compute = Counted(ARRAY)
    prior_of(folder).derived("dtw", (2, 3), compute)
    kind = "road"
    if change == "data":
        changed = readings()
        changed[-1, -1] += 1
        np.save(folder / "train_data.npy", changed)
    elif change == "timestamps":
        np.save(folder / "train_timestamps.npy", np.roll(timestamps(), 1, axis=0))
    elif change == "graph":
        edges = sparse.csr_array(([3.0], ([0], [1])), shape=(N, N), dtype=np.float32)
        save_graph(Graph(edges, "distance"), folder / "graph.npz")
    else:
        kind = "none"
    prior_of(folder, kind).derived("dtw", (2, 3), compute)
    assert compute.runs == 2


def test_other_files_of_the_folder_do_not_count(folder: Path) -> None:
    compute = Counted(ARRAY)
    prior_of(folder).derived("dtw", (2, 3), compute)
    np.save(folder / "val_data.npy", np.zeros((T, N)))
    prior_of(folder).derived("dtw", (2, 3), compute)
    assert compute.runs == 1


def test_a_damaged_file_is_made_anew_wherever_the_damage_is(folder: Path) -> None:
    compute = Counted(ARRAY)
    prior = prior_of(folder)
    prior.derived("dtw", (2, 3), compute)
    (path,) = kept_files(folder)
    whole = path.read_bytes()
    holds = whole.index(ARRAY.tobytes())
    flipped = [whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :] for i in range(holds, holds + ARRAY.nbytes, 7)]
    cut = [whole[:length] for length in (0, 1, holds + 8, len(whole) - 1)]
    other = [b"no archive at all", whole[:holds] + bytes(len(whole) - holds)]
    for runs, damaged in enumerate([*flipped, *cut, *other], start=2):
        path.write_bytes(damaged)
        np.testing.assert_array_equal(prior.derived("dtw", (2, 3), compute), ARRAY)
        assert compute.runs == runs
        np.testing.assert_array_equal(prior.derived("dtw", (2, 3), compute), ARRAY)
        assert compute.runs == runs, "it was not mended"
    assert path.read_bytes() == whole


def test_no_flipped_bit_gives_another_array(folder: Path) -> None:
    prior = prior_of(folder)
    prior.derived("dtw", (2, 3), Counted(ARRAY))
    (path,) = kept_files(folder)
    whole = path.read_bytes()
    for i in range(0, len(whole), 5):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 4]) + whole[i + 1 :])
        np.testing.assert_array_equal(prior.derived("dtw", (2, 3), Counted(ARRAY)), ARRAY)


def test_a_file_of_another_shape_is_made_anew(folder: Path) -> None:
    prior, compute = prior_of(folder), Counted(ARRAY)
    prior.derived("dtw", (2, 3), compute)
    (path,) = kept_files(folder)
    with path.open("wb") as file:
        np.savez(file, data=ARRAY.T)
    np.testing.assert_array_equal(prior.derived("dtw", (2, 3), compute), ARRAY)
    assert compute.runs == 2


@pytest.mark.parametrize("name", ["train_data.npy", "train_timestamps.npy"])
def test_without_what_it_is_made_of_nothing_is_kept(folder: Path, name: str) -> None:
    (folder / name).unlink()
    message = refusal(lambda: prior_of(folder).derived("dtw", (2, 3), Counted(ARRAY)))
    assert str(folder / name) in message
    assert not (folder / "derived").exists()


def test_an_array_of_another_shape_is_refused_and_not_kept(folder: Path) -> None:
    for prior in (prior_of(folder), ArrayPrior(N)):
        with pytest.raises(ValueError, match=r"dtw has shape \(2, 3\), expected \(3, 2\)"):
            prior.derived("dtw", (3, 2), Counted(ARRAY))
    assert not kept_files(folder)


def test_where_nothing_can_be_written_it_says_so_before_the_work(folder: Path) -> None:
    (folder / "derived").write_text("a file in the way")
    compute = Counted(ARRAY)
    message = refusal(lambda: prior_of(folder).derived("dtw", (2, 3), compute))
    assert message.startswith(f"cannot write {folder / 'derived'}")
    assert compute.runs == 0


# Priors without a folder.


def test_arrays_at_hand_are_a_prior() -> None:
    prior = ArrayPrior(N, LINKS, readings(), timestamps())
    np.testing.assert_array_equal(prior.adjacency(), LINKS)
    np.testing.assert_array_equal(prior.readings(), readings())
    np.testing.assert_array_equal(prior.timestamps(), timestamps())
    compute = Counted(ARRAY)
    for _ in range(2):
        np.testing.assert_array_equal(prior.derived("dtw", (2, 3), compute, k=1), ARRAY)
    assert compute.runs == 2  # nothing is kept


def test_arrays_that_are_not_given_or_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="needs adjacency of its sensors, which are not given"):
        ArrayPrior(N).adjacency()
    with pytest.raises(ValueError, match=r"adjacency has shape \(5, 4\), expected \[5, 5\]"):
        ArrayPrior(N, weights=np.zeros((5, 4))).adjacency()
    with pytest.raises(ValueError, match=r"readings has shape \(60, 4\), expected \[T, 5\]"):
        ArrayPrior(N, series=np.zeros((60, 4))).readings()
    with pytest.raises(ValueError, match=r"timestamps has shape \(60,\), expected \[T, 2\]"):
        ArrayPrior(N, calendar=np.zeros(60)).timestamps()


def test_a_blank_prior_computes_nothing() -> None:
    prior = BlankPrior(N, 30)
    assert prior.adjacency().shape == (N, N)
    assert prior.readings().shape == (30, N)
    assert prior.timestamps().shape == (30, 2)
    compute = Counted(ARRAY)
    found = prior.derived("dtw", (7, 2), compute, k=1)
    assert found.shape == (7, 2)
    assert compute.runs == 0
    assert not any(array.any() for array in (prior.adjacency(), prior.readings(), prior.timestamps(), found))
