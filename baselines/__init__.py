"""Published models to compare with, one package each: architecture, config, recipes and what its paper says of it."""

from baselines import AGCRN, D2STGNN, DCRNN, GTS, MTGNN, STGCN, GWNet, HimNet, PDFormer, STAEformer, STWave
from ealinformer.models import Catalogue

# In the order of the paper's Table 3.
MODELS: Catalogue = {
    "AGCRN": AGCRN.ENTRY,
    "DCRNN": DCRNN.ENTRY,
    "GTS": GTS.ENTRY,
    "D2STGNN": D2STGNN.ENTRY,
    "HimNet": HimNet.ENTRY,
    "STGCN": STGCN.ENTRY,
    "MTGNN": MTGNN.ENTRY,
    "GWNet": GWNet.ENTRY,
    "PDFormer": PDFormer.ENTRY,
    "STWave": STWave.ENTRY,
    "STAEformer": STAEformer.ENTRY,
}
