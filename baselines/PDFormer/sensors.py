"""What PDFormer has to know of its sensors before it is trained: who is near, who is similar, where, which patterns."""

from typing import NamedTuple

import numpy as np

from baselines.PDFormer.config import PDFormerConfig
from baselines.PDFormer.neighbours import near_sensors, similar_sensors
from baselines.PDFormer.patterns import traffic_patterns
from ealinformer.data.prior import SensorPrior
from ealinformer.graphs.dtw import daily_profiles, dtw_distances
from ealinformer.graphs.laplacians import laplacian_eigenvectors
from ealinformer.graphs.paths import hop_distances


class SensorKnowledge(NamedTuple):
    """Arrays of N sensors with K similar ones each, E eigenvectors and P patterns of S steps."""

    near: np.ndarray  # bool [N, N]
    similar: np.ndarray  # numbers of sensors, [N, K]
    eigenvectors: np.ndarray  # [N, E]
    patterns: np.ndarray  # [P, S]


def know_sensors(prior: SensorPrior, config: PDFormerConfig) -> SensorKnowledge:
    """Computed from the graph and the training part once, and kept by the prior."""
    sensors, steps_per_day = config.num_features, config.num_time_in_day

    def profiles_apart() -> np.ndarray:
        profiles = daily_profiles(prior.readings(), prior.timestamps(), steps_per_day)
        return dtw_distances(profiles).astype(np.float32)

    def first_days() -> np.ndarray:
        days = prior.readings()[: config.pattern_days * steps_per_day]
        return traffic_patterns(days, config.num_patterns, config.pattern_len)

    def eigenvectors() -> np.ndarray:
        return laplacian_eigenvectors(prior.adjacency(), config.num_eigenvectors)

    def hops_apart() -> np.ndarray:
        return hop_distances(prior.adjacency()).astype(np.float32)

    square = (sensors, sensors)
    hops = prior.derived("hop-distances", square, hops_apart)
    apart = prior.derived("dtw-distances", square, profiles_apart, steps_per_day=steps_per_day)
    return SensorKnowledge(
        near=near_sensors(hops, config.far_hops),
        similar=similar_sensors(apart, config.num_similar),
        eigenvectors=prior.derived("laplacian-eigenvectors", (sensors, config.num_eigenvectors), eigenvectors),
        patterns=prior.derived(
            "traffic-patterns",
            (config.num_patterns, config.pattern_len),
            first_days,
            days=config.pattern_days,
            steps_per_day=steps_per_day,
        ),
    )
