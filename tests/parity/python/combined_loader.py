"""The rows of Lightning's CombinedLoader, for every pair of lengths and mode."""

import itertools
import json

from lightning.pytorch.utilities import CombinedLoader

MODES = ("min_size", "max_size_cycle", "max_size", "sequential")

cases = []
for mode, lengths in itertools.product(MODES, itertools.product(range(1, 5), repeat=2)):
    loaders = [list(range(length)) for length in lengths]
    combined = CombinedLoader(loaders, mode)
    rows = [batch for batch, _, _ in combined]
    cases.append({"mode": mode, "lengths": lengths, "len": len(combined), "rows": rows})
print(json.dumps(cases))
