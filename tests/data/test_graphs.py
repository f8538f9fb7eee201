"""Reading, keeping and refusing road graphs."""

import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from ealinformer.data.graphs import Graph, load_graph, read_graph, read_ids, save_graph
from ealinformer.errors import InputError

AFFINITY = np.array([[1.0, 0.5, 0.0], [0.0, 0.0, 0.25], [0.0, 0.0, 0.0]], dtype=np.float32)
DISTANCES = np.array([[0.0, 3.5, 0.0], [0.0, 0.0, 1.25], [2.0, 0.0, 0.0]], dtype=np.float32)
EDGES = "from,to,cost\n0,1,3.5\n1,2,1.25\n2,0,2\n"

raw_data = pytest.mark.skipif("EALINFORMER_RAW_DIR" not in os.environ, reason="skipped: no raw data")


def text_file(tmp_path: Path, text: str, name: str = "graph.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode())
    return path


def npy_file(tmp_path: Path, matrix: np.ndarray) -> Path:
    path = tmp_path / "graph.npy"
    np.save(path, matrix, allow_pickle=True)
    return path


def npz_file(tmp_path: Path, **arrays: np.ndarray) -> Path:
    path = tmp_path / "graph.npz"
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path


def pkl_file(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "graph.pkl"
    path.write_bytes(pickle.dumps(content, 2))
    return path


def one_line(error: InputError, path: Path) -> str:
    message = str(error)
    assert message.startswith(f"{path}: ")
    assert "expected" in message
    assert "\n" not in message
    assert "\r" not in message
    return message


def refusal(path: Path, num_sensors: int = 3, ids: list[str] | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read_graph(path, num_sensors, ids=ids)
    return one_line(caught.value, path)


def ids_refusal(path: Path, num_sensors: int | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read_ids(path, num_sensors)
    return one_line(caught.value, path)


def load_refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_graph(path)
    return one_line(caught.value, path)


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r\r\n", "\n\n", "\r"])
@pytest.mark.parametrize("third", ["cost", "distance", " Cost "])
def test_an_edge_list_gives_distances_from_row_to_column(tmp_path: Path, line_end: str, third: str) -> None:
    path = text_file(tmp_path, EDGES.replace("cost", third).replace("\n", line_end))
    graph = read_graph(path, 3)
    assert graph.weights == "distance"
    assert isinstance(graph.adjacency, sparse.csr_array)
    assert graph.adjacency.dtype == np.float32
    np.testing.assert_array_equal(graph.adjacency.toarray(), DISTANCES)


def test_an_edge_list_without_costs_is_binary(tmp_path: Path) -> None:
    graph = read_graph(text_file(tmp_path, "from,to\n2,0\n0,1"), 3)
    assert graph.weights == "binary"
    np.testing.assert_array_equal(graph.adjacency.toarray(), [[0, 1, 0], [0, 0, 0], [1, 0, 0]])


def test_an_edge_list_by_id_follows_the_order_of_the_ids(tmp_path: Path) -> None:
    path = text_file(tmp_path, "\ufefffrom,to,cost\n773,9,3.5\n9,x1,1.25\nx1, 773 ,2\n")
    np.testing.assert_array_equal(read_graph(path, 3, ids=["773", "9", "x1"]).adjacency.toarray(), DISTANCES)
    order = [1, 2, 0]
    reordered = read_graph(path, 3, ids=["9", "x1", "773"]).adjacency.toarray()
    np.testing.assert_array_equal(reordered, DISTANCES[np.ix_(order, order)])


def test_numbers_are_ids_where_ids_are_given(tmp_path: Path) -> None:
    graph = read_graph(text_file(tmp_path, "from,to,cost\n0,1,7\n"), 3, ids=["2", "1", "0"])
    np.testing.assert_array_equal(graph.adjacency.toarray(), [[0, 0, 0], [0, 0, 0], [0, 7, 0]])


def test_a_repeated_edge_counts_once_with_its_smallest_cost(tmp_path: Path) -> None:
    graph = read_graph(text_file(tmp_path, "from,to,cost\n0,1,5\n1,0,9\n0,1,4\n0,1,6\n"), 3)
    assert graph.num_edges == 2
    assert graph.adjacency[0, 1] == 4
    assert graph.adjacency[1, 0] == 9


def test_an_edge_of_cost_zero_stays_and_a_loop_is_no_edge(tmp_path: Path) -> None:
    graph = read_graph(text_file(tmp_path, "from,to,cost\n0,1,0\n2,2,0.5\n"), 3)
    assert graph.num_edges == 1
    assert graph.adjacency.nnz == 2
    assert graph.adjacency[2, 2] == 0.5


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "is empty"),
        ("\n\n", "the header is ''"),
        ("0,1,3.5\n", "the header is '0,1,3.5'"),
        ("from,to,weight\n0,1,1\n", "the header is 'from,to,weight'"),
        ("to,from,cost\n0,1,1\n", "the header is 'to,from,cost'"),
        ("from,to,cost,lanes\n0,1,1,2\n", "the header is 'from,to,cost,lanes'"),
        ("from,to,cost\n", "no edges"),
        ("from,to,cost\n0,1,1\n\n0,2\n", "line 4 has 2 fields"),
        ("from,to\n0,1,1\n", "line 2 has 3 fields"),
        ("from,to,cost\n0,3,1\n", "line 2 names sensor '3'; expected a number from 0 to 2 (N = 3)"),
        ("from,to,cost\n-1,0,1\n", "names sensor '-1'"),
        ("from,to,cost\n0,1.0,1\n", "names sensor '1.0'"),
        ("from,to,cost\n0,²,1\n", "names sensor '²'"),
        (f"from,to,cost\n0,{'9' * 5000},1\n", "names sensor '999"),
        ("from,to,cost\n0,1,-2\n", "line 2 has cost '-2'"),
        ("from,to,cost\n0,1,nan\n", "has cost 'nan'"),
        ("from,to,cost\n0,1,inf\n", "has cost 'inf'"),
        ("from,to,cost\n0,1,1e39\n", "has cost '1e39'"),
        ("from,to,cost\n0,1,\n", "has cost ''"),
        ("from,to,cost\n0,1,far\n", "has cost 'far'"),
        ('from,to,cost\n0,"1,2\n', "cannot be read"),
        ("from,to,cost\n0,1,\0\n", "NUL"),
    ],
)
def test_a_wrong_edge_list_is_refused(tmp_path: Path, text: str, found: str) -> None:
    assert found in refusal(text_file(tmp_path, text))


def test_an_edge_list_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "graph.csv"
    path.write_bytes(b"from,to,cost\n\xff\xfe,1,2\n")
    assert "UnicodeDecodeError" in refusal(path)


def test_an_id_that_is_not_in_the_list_is_named(tmp_path: Path) -> None:
    path = text_file(tmp_path, "from,to,cost\na,b,1\r\r\n\nb,d,1\n")
    assert "line 4 names sensor 'd'; expected one of the N = 3 ids" in refusal(path, ids=["a", "b", "c"])


@pytest.mark.parametrize("text", ["a1\r\nb2\r\nc3", "\na1\n\nb2 \nc3\n", "a1,b2,c3", "a1\r\r\nb2\r\r\nc3\r\r\n"])
def test_ids_are_read_in_order(tmp_path: Path, text: str) -> None:
    assert read_ids(text_file(tmp_path, text, "ids.txt"), 3) == ["a1", "b2", "c3"]


def test_wrong_id_files_are_refused(tmp_path: Path) -> None:
    assert "sensor id 'b' occurs twice" in ids_refusal(text_file(tmp_path, "a\nb\nc\nb\n", "ids.txt"))
    assert "found 2 sensor ids; expected 3" in ids_refusal(text_file(tmp_path, "a\nb\n", "ids.txt"), 3)
    assert "no sensor id" in ids_refusal(text_file(tmp_path, "\n \n", "ids.txt"))
    assert "no such file" in ids_refusal(tmp_path / "none.txt")
    binary = tmp_path / "binary.txt"
    binary.write_bytes(b"\x80\x81")
    assert "UnicodeDecodeError" in ids_refusal(binary)


def test_given_ids_have_to_be_one_for_each_sensor(tmp_path: Path) -> None:
    path = text_file(tmp_path, EDGES)
    assert "found 2 sensor ids; expected 3" in refusal(path, ids=["0", "1"])
    assert "sensor id '1' occurs twice" in refusal(path, ids=["0", "1", "1"])
    assert "found 2 sensor ids" in refusal(npy_file(tmp_path, AFFINITY), ids=["0", "1"])


def matrix_files(tmp_path: Path, matrix: np.ndarray) -> list[Path]:
    sparse.save_npz(tmp_path / "csr.npz", sparse.csr_array(matrix))
    sparse.save_npz(tmp_path / "csc.npz", sparse.csc_matrix(matrix))
    sparse.save_npz(tmp_path / "coo.npz", sparse.coo_matrix(matrix))
    np.savez(tmp_path / "with_more.npz", data=matrix, ids=np.arange(3))
    return [
        npy_file(tmp_path, matrix),
        npz_file(tmp_path, adj=matrix),
        tmp_path / "with_more.npz",
        tmp_path / "csr.npz",
        tmp_path / "csc.npz",
        tmp_path / "coo.npz",
        pkl_file(tmp_path, matrix),
    ]


@pytest.mark.parametrize(
    ("matrix", "weights", "num_edges"),
    [
        (AFFINITY, "affinity", 2),
        (AFFINITY.astype(np.float64), "affinity", 2),
        (DISTANCES, "distance", 3),
        ((DISTANCES > 0).astype(np.int64), "binary", 3),
        (DISTANCES > 0, "binary", 3),
    ],
)
def test_every_form_of_a_matrix_is_the_same_graph(
    tmp_path: Path, matrix: np.ndarray, weights: str, num_edges: int
) -> None:
    for path in matrix_files(tmp_path, matrix):
        graph = read_graph(path, 3)
        assert (graph.weights, graph.num_edges) == (weights, num_edges), path
        assert graph.adjacency.dtype == np.float32
        np.testing.assert_array_equal(graph.adjacency.toarray(), matrix.astype(np.float32), err_msg=str(path))


def test_a_pickle_with_ids_is_put_in_their_order(tmp_path: Path) -> None:
    path = pkl_file(tmp_path, (["a", "b", "c"], {"a": 0, "b": 1, "c": 2}, AFFINITY))
    np.testing.assert_array_equal(read_graph(path, 3).adjacency.toarray(), AFFINITY)
    order = [2, 0, 1]
    reordered = read_graph(path, 3, ids=["c", "a", "b"])
    np.testing.assert_array_equal(reordered.adjacency.toarray(), AFFINITY[np.ix_(order, order)])
    assert "has no sensor 'd'" in refusal(path, ids=["c", "a", "d"])


@pytest.mark.parametrize(
    ("matrix", "found"),
    [
        (np.ones((3, 4)), "shape [3, 4]; expected [3, 3]"),
        (np.ones((4, 4)), "shape [4, 4]; expected [3, 3]"),
        (np.ones(9), "shape [9]; expected [3, 3]"),
        (np.ones((1, 3, 3)), "shape [1, 3, 3]; expected [3, 3]"),
        (np.array(1.0), "shape []; expected [3, 3]"),
        (np.zeros((3, 3)), "only zeros"),
        (np.where(np.eye(3), np.nan, 0.5), "3 weights are not finite"),
        (np.where(np.eye(3), np.inf, 0.5), "3 weights are not finite"),
        (np.where(np.eye(3), 1e39, 0.5), "3 weights are not finite"),
        (np.where(np.eye(3), -1, 0.5), "3 weights are negative"),
    ],
)
def test_a_wrong_matrix_is_refused_in_every_form(tmp_path: Path, matrix: np.ndarray, found: str) -> None:
    paths = [npy_file(tmp_path, matrix), npz_file(tmp_path, adj=matrix), pkl_file(tmp_path, matrix)]
    if matrix.ndim == 2:
        sparse.save_npz(tmp_path / "sparse.npz", sparse.csr_array(matrix))
        paths.append(tmp_path / "sparse.npz")
    for path in paths:
        assert found in refusal(path)


@pytest.mark.parametrize("kind", ["U3", "complex64", "datetime64[s]", object])
def test_a_matrix_of_other_than_numbers_is_refused(tmp_path: Path, kind: object) -> None:
    matrix = np.zeros((3, 3)).astype(kind)  # type: ignore[call-overload]
    for path in (npy_file(tmp_path, matrix), npz_file(tmp_path, adj=matrix), pkl_file(tmp_path, matrix)):
        refusal(path)


def test_several_arrays_without_a_main_one_are_refused(tmp_path: Path) -> None:
    assert "holds 2 arrays ('a', 'b')" in refusal(npz_file(tmp_path, a=AFFINITY, b=AFFINITY))


def test_sparse_files_that_point_outside_the_matrix_are_refused(tmp_path: Path) -> None:
    good = {"data": np.ones(2), "indices": np.array([1, 2]), "indptr": np.array([0, 1, 2, 2])}
    rest = {"shape": np.array([3, 3]), "format": np.array(b"csr")}
    assert read_graph(npz_file(tmp_path, **good, **rest), 3).num_edges == 2
    for wrong in (
        {"indices": np.array([1, 10**6])},
        {"indices": np.array([1, -7])},
        {"indptr": np.array([0, 9, 1, 2])},
    ):
        refusal(npz_file(tmp_path, **{**good, **rest, **wrong}))
    coo = {"row": np.array([0, 1]), "col": np.array([1, 3]), "data": np.ones(2), "format": np.array(b"coo")}
    refusal(npz_file(tmp_path, **coo, shape=np.array([3, 3])))
    refusal(npz_file(tmp_path, **{**good, **rest, "format": np.array(b"dok")}))
    sparse.save_npz(tmp_path / "dia.npz", sparse.dia_array(np.eye(3)))
    assert "dia format" in refusal(tmp_path / "dia.npz")


def test_missing_damaged_and_unknown_files_are_refused(tmp_path: Path) -> None:
    for suffix in ("csv", "npy", "npz", "pkl"):
        assert "no such file" in refusal(tmp_path / f"none.{suffix}")
    assert "unknown suffix '.xlsx'" in refusal(tmp_path / "graph.xlsx")
    for path in matrix_files(tmp_path, AFFINITY):
        content = path.read_bytes()
        for length in range(0, len(content), max(1, len(content) // 25)):
            path.write_bytes(content[:length])
            refusal(path)


@pytest.mark.parametrize("text", [EDGES, "from,to\n0,1\n", "from,to,cost\n0,1,0\n2,2,0.1\n"])
def test_a_kept_graph_comes_back_the_same(tmp_path: Path, text: str) -> None:
    graph = read_graph(text_file(tmp_path, text), 3)
    path = tmp_path / "kept.npz"
    save_graph(graph, path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["graph.csv", "kept.npz"]
    for again in (load_graph(path), read_graph(path, 3)):
        assert again.weights == graph.weights
        assert again.adjacency.shape == (3, 3)
        assert again.adjacency.dtype == np.float32
        for part in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(getattr(again.adjacency, part), getattr(graph.adjacency, part))
    assert "shape [3, 3]; expected [4, 4]" in refusal(path, 4)


def test_an_interrupted_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kept.npz"
    save_graph(read_graph(text_file(tmp_path, EDGES), 3), path)
    before = path.read_bytes()

    def full_disk(file: object, **_: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(InputError, match="no space"):
        save_graph(Graph(sparse.csr_array(AFFINITY), "affinity"), path)
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["graph.csv", "kept.npz"]


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"weights": np.array("lanes")}, "the weights are 'lanes'"),
        ({"indices": np.array([1, 2, 9])}, "cannot be read"),
        ({"indices": np.array([1, 2, -1])}, "cannot be read"),
        ({"indices": np.array([1.0, 2.0, 0.0])}, "not whole numbers"),
        ({"indptr": np.array([0, 1, 2])}, "cannot be read"),
        ({"shape": np.array([3, 4])}, "shape [3, 4]"),
        ({"shape": np.array([3])}, "not whole numbers"),
        ({"data": np.array([1.0, np.nan, 1.0])}, "1 weights are not finite"),
        ({"data": np.array([None, 1, 2])}, "cannot be read"),
        ({"weights": None}, "lacks weights"),
    ],
)
def test_a_changed_file_is_refused(tmp_path: Path, changed: dict[str, np.ndarray | None], found: str) -> None:
    kept = tmp_path / "kept.npz"
    save_graph(Graph(sparse.csr_array(DISTANCES), "distance"), kept)
    with np.load(kept) as archive:
        arrays = {**archive, **changed}
    path = npz_file(tmp_path, **{key: array for key, array in arrays.items() if array is not None})
    assert found in load_refusal(path)


def test_load_refuses_other_files(tmp_path: Path) -> None:
    assert "no such file" in load_refusal(tmp_path / "none.npz")
    assert "lacks data, indices, indptr, shape, weights" in load_refusal(npz_file(tmp_path, adj=AFFINITY))
    assert "no zip archive" in load_refusal(text_file(tmp_path, EDGES))


@pytest.mark.real_data
@raw_data
@pytest.mark.parametrize(
    ("name", "num_sensors", "num_edges", "stored"),
    [
        ("PEMS08/PEMS08.csv", 170, 277, 277),  # 295 rows, of which 18 repeat an edge
        ("graphs/PEMS04.csv", 307, 340, 340),
        ("graphs/PEMS07.csv", 883, 866, 866),
        ("graphs/PEMS03.csv", 358, 546, 547),  # 547 rows, of which one is a loop of cost 0
    ],
)
def test_published_edge_lists(name: str, num_sensors: int, num_edges: int, stored: int) -> None:
    path = Path(os.environ["EALINFORMER_RAW_DIR"]) / name
    ids_path = path.with_suffix(".txt")
    ids = read_ids(ids_path, num_sensors) if ids_path.exists() else None
    assert (ids is not None) == (path.name == "PEMS03.csv")
    graph = read_graph(path, num_sensors, ids=ids)
    assert (graph.weights, graph.num_edges, graph.adjacency.nnz) == ("distance", num_edges, stored)
    first, second, cost = path.read_text().split()[1].split(",")
    place = [int(end) if ids is None else ids.index(end) for end in (first, second)]
    assert graph.adjacency[place[0], place[1]] == np.float32(cost)
    if ids is None:
        assert f"N = {num_sensors - 20}" in refusal(path, num_sensors - 20)


@pytest.mark.real_data
@raw_data
def test_published_pems_bay_matrix() -> None:
    graph = read_graph(Path(os.environ["EALINFORMER_RAW_DIR"]) / "graphs" / "adj_mx_bay.pkl", 325)
    assert (graph.weights, graph.num_edges) == ("affinity", 2369)


@pytest.mark.parametrize(
    "shape",
    [[np.nan, np.nan], [np.inf, np.inf], ["a", "b"], [2.0, 2.0], np.array([2, 2], "datetime64[s]"), [2 + 1j, 2]],
)
def test_a_saved_shape_that_is_no_shape_is_refused(tmp_path: Path, shape: object) -> None:
    parts = {"data": np.ones(1, np.float32), "indices": np.zeros(1, np.int32), "indptr": np.array([0, 1, 1], np.int32)}
    np.savez(tmp_path / "graph.npz", **parts, shape=np.array(shape), weights=np.array("binary"))
    with pytest.raises(InputError, match="are not whole numbers"):
        load_graph(tmp_path / "graph.npz")


@pytest.mark.parametrize("form", ["csr", "csc", "saved"])
def test_rows_that_end_before_they_begin_do_not_reach_scipy(tmp_path: Path, form: str) -> None:
    # scipy looks at nothing here, since the last entry says that the matrix is empty, and then writes out of bounds.
    path, indptr = tmp_path / "graph.npz", np.array([0, 2, 0], np.int32)
    parts = {"data": np.ones(2, np.float32), "indices": np.array([0, 1], np.int32), "indptr": indptr, "shape": [2, 2]}
    np.savez(path, **parts, **({"weights": "binary"} if form == "saved" else {"format": form.encode()}))
    with pytest.raises(InputError, match="ends before it begins"):
        read_graph(path, 2)


def test_a_dense_matrix_of_many_sensors_may_pack_as_well_as_it_does(tmp_path: Path) -> None:
    path, matrix = tmp_path / "graph.npz", np.zeros((6000, 6000), np.float32)
    matrix[0, 1] = 1
    np.savez_compressed(path, matrix)
    assert read_graph(path, 6000).num_edges == 1
    with pytest.raises(InputError, match="would unpack to 144,000,"):
        read_graph(path, 100)


def test_ids_and_line_ends_without_number_are_read_in_time(tmp_path: Path) -> None:
    start = time.process_time()
    ids = tmp_path / "ids.txt"
    ids.write_text("\n".join(map(str, [*range(100_000), 99_999])))
    with pytest.raises(InputError, match="'99999' occurs twice"):
        read_ids(ids)
    edges = tmp_path / "graph.csv"
    edges.write_bytes(b"from,to\n" + b"\r" * 500_000 + b"0,1\n")
    assert read_graph(edges, 2).num_edges == 1
    assert time.process_time() - start < 5
