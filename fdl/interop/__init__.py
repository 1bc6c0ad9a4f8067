"""Models of other libraries as models that `fdl.supervised` trains; their libraries are imported at the first use.

`params` and `state` are nested dicts of arrays for all of them, so that rules over paths, checkpoints and sweeps work
as for layers. A task of your own calls `model.init(key)` and `model.apply(params, state, x, key=key, train=train)`.
"""

from fdl.interop.equinox import from_equinox
from fdl.interop.libraries import library
from fdl.interop.linen import from_linen
from fdl.interop.nnx import from_nnx

__all__ = ["from_equinox", "from_linen", "from_nnx", "library"]
