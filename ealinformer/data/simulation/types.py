"""What passes between the parts of the simulation."""

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Quantity: TypeAlias = Literal["flow", "speed"]
Floats: TypeAlias = NDArray[np.float32]
