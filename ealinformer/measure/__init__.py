"""What a number needs to be believed: peak memory, and the machine, versions and commit it was measured on."""

from ealinformer.measure.memory import PeakMemory
from ealinformer.measure.provenance import provenance

__all__ = ["PeakMemory", "provenance"]
