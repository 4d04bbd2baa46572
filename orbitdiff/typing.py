"""Shape aliases and the one legend of axis letters.

| letter | axis |
|---|---|
| B | samples of a batch (crystals, molecules, proteins) |
| N | atoms or residues of one sample, padded; `mask` (B, N) is true for real ones |
| D | space: 3 for atoms, 1 for the toy |
| K | sampled group elements |
| P | permutations |

Leading axes written `*#B` broadcast against each other, so that the same kernel evaluates one
x_0 per sample or K of them.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Bool", "Float", "Int", "Mask", "PerSample", "Points", "State", "Tensor"]

Points = Float[Tensor, "*#B N D"]
PerSample = Float[Tensor, "*#B"]
Mask = Bool[Tensor, "*#B N"]
State = dict[str, Tensor]
