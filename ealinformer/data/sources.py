"""The six public series: shape, calendar, split, and where their files are published with which checksums.

PEMS03, 04, 07 and 08 were published with ASTGCN and STSGCN, PEMS-BAY and METR-LA with DCRNN. The raw files stay the
publishers'; nothing of them is kept here but their description.
"""

from datetime import datetime

from ealinformer.data.spec import SeriesSpec, Source

_PEMS_RECORD = "https://zenodo.org/records/7816008/files"


def _flow_series(
    name: str,
    num_sensors: int,
    num_steps: int,
    start: datetime,
    series: Source,
    graph: Source,
    ids: Source | None = None,
) -> SeriesSpec:
    """One of PEMS03, 04, 07, 08: flow in channel 0 of an .npz file, an edge list beside it."""
    return SeriesSpec(
        name=name,
        num_sensors=num_sensors,
        num_steps=num_steps,
        interval_minutes=5,
        start=start,
        target="flow",
        unit="vehicles per 5 minutes",
        split=(0.6, 0.2, 0.2),
        null_value=0.0,
        raw_file=f"{name}.npz",
        raw_source=series,
        graph_file=f"{name}.csv",
        graph_source=graph,
        ids_file=f"{name}.txt" if ids else None,
        ids_source=ids or Source(),
    )


def _pems_url(file: str) -> str:
    return f"{_PEMS_RECORD}/{file}?download=1"


PEMS03 = _flow_series(
    "PEMS03",
    num_sensors=358,
    num_steps=26208,
    start=datetime(2018, 9, 1),
    series=Source(
        url=_pems_url("PEMS03.npz"),
        sha256="34859517425eded66a0014db63de54b95d0428c38890741a1710ed4d3b043de8",
        md5="651add9bb9eaf7f5eda2f2ee8778a182",
    ),
    graph=Source(url=_pems_url("PEMS03.csv"), md5="e6cf2ef1e1a9957aeec678a30b7ce7a7"),
    ids=Source(url=_pems_url("PEMS03.txt"), md5="a52b864fbbe9d852ebdd08f6191a987f"),
)

PEMS04 = _flow_series(
    "PEMS04",
    num_sensors=307,
    num_steps=16992,
    start=datetime(2018, 1, 1),
    series=Source(
        url=_pems_url("PEMS04.npz"),
        sha256="95a3c9b720fffdb85f0330d09bfab41b0b3cad0ca86c0d7d5f3accacb4ac999a",
        md5="5238832691101da85fcac772a32051da",
        size=32956284,
    ),
    # The published edge lists end their lines with CRLF; copies with LF have other checksums and the same edges.
    graph=Source(
        url=_pems_url("PEMS04.csv"),
        sha256="68ffaa80447eb34428a9999dc28363c61406ec0fd714686d0582d2386ac6f5f7",
        md5="3990731ec980019a875a6d5723523855",
    ),
)

# 28,224 steps are 98 days and end on 2017-08-06; the end that is often quoted, 2017-08-31, is not the file's.
PEMS07 = _flow_series(
    "PEMS07",
    num_sensors=883,
    num_steps=28224,
    start=datetime(2017, 5, 1),
    series=Source(
        url=_pems_url("PEMS07.npz"),
        sha256="a07887e610aa986276209bc9384d14ed7858fdcad1ded67f53dca19eb828600b",
        md5="978d3d9b85fe640a446983a34271a48d",
    ),
    graph=Source(url=_pems_url("PEMS07.csv"), md5="cea609fed853ade176cb1c5eae0aeda0"),
)

PEMS08 = _flow_series(
    "PEMS08",
    num_sensors=170,
    num_steps=17856,
    start=datetime(2016, 7, 1),
    series=Source(
        url=_pems_url("PEMS08.npz"),
        sha256="e1d03ce74e9fb79149e6e7c37c680214822c4a285baa2f42278cacabcd25c075",
        md5="2a528d169c0d90294c9e24288a430132",
    ),
    graph=Source(
        url=_pems_url("PEMS08.csv"),
        sha256="859d68e7583ed4e6016588eaaca494d3ece286dae361614c5c1833017f87eaa7",
        md5="5e507b2b18d9235e95b63a20221cd4c5",
    ),
)

# January to June 2017 are 52,128 intervals and the file has 52,116 rows: twelve, as many as daylight saving skips in
# March, are left out, so the timestamps have to come from the file.
PEMS_BAY = SeriesSpec(
    name="PEMS-BAY",
    num_sensors=325,
    num_steps=52116,
    interval_minutes=5,
    start=datetime(2017, 1, 1),
    target="speed",
    unit="mph",
    split=(0.7, 0.1, 0.2),
    null_value=0.0,
    allow_gaps=True,
    raw_file="pems-bay.h5",
    raw_source=Source(
        url="https://zenodo.org/records/4263971/files/pems-bay.h5",
        sha256="65d69fb0a2323dba9867179eb7af47c8b814186bc459ff0a4937d21614153c8f",
        size=135930936,
    ),
    graph_file="adj_mx_bay.pkl",
    graph_source=Source(url="https://zenodo.org/record/5724362/files/adj_mx_PEMS-BAY.pkl"),
)

# No address is known to be stable for METR-LA: its files are placed by hand.
METR_LA = SeriesSpec(
    name="METR-LA",
    num_sensors=207,
    num_steps=34272,
    interval_minutes=5,
    start=datetime(2012, 3, 1),
    target="speed",
    unit="mph",
    split=(0.7, 0.1, 0.2),
    null_value=0.0,
    raw_file="metr-la.h5",
    raw_source=Source(sha256="64784b76d6fb8ec9bff4b6decafb354da2bb37840468fdccee5044e511277c05", size=57038056),
    graph_file="adj_mx.pkl",
)

PUBLIC: dict[str, SeriesSpec] = {spec.name: spec for spec in (PEMS_BAY, PEMS03, PEMS04, PEMS07, PEMS08, METR_LA)}
