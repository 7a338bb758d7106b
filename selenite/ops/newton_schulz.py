"""Newton-Schulz iteration: a matrix is replaced by (nearly) the nearest semi-orthogonal one.

With G = U S V^T the result is U f(S) V^T, where f is a composition of odd quintics
f_i(s) = a s + b s^3 + c s^5 that drives every singular value towards 1. Muon orthogonalises its
momentum with it (optim/muon.py); Moonlight, arXiv 2502.16982, section 2.

Legend: K matrices in the batch, A rows, B columns, M = min(A, B).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from selenite.errors import ConfigError

Coefficients = tuple[float, float, float]  # a, b, c of one step

EPS = 1e-7  # smallest norm that is divided by; below it the result shrinks towards zero

# Jordan's quintic (kellerjordan.github.io/posts/muon), the same at every step: the steepest slope
# at zero that stays bounded. It does not converge: five steps take [0.006, 1] into 0.68 .. 1.14
# and nothing in [0, 1] above 1.21, so that updates are smaller than those of an orthogonal matrix.
_JORDAN: Coefficients = (3.4445, -4.7750, 2.0315)

# Five different quintics tuned together, known from modded-nanogpt's records and as "quintic" in
# NVIDIA Emerging-Optimizers. No recipe that derives them is published, and the digits have not been
# compared with a source. What is established is what they do, by computing it on scalars: the five
# steps take [0.007, 1] into 0.977 .. 1.032 and nothing in [0, 1] above 1.146.
_QUINTIC: tuple[Coefficients, ...] = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)

# Polar Express (Amsel et al., arXiv 2505.16932, algorithm 1): step i is the odd quintic that is the
# best uniform approximation of 1 on the interval where the previous steps left the singular values,
# starting from [1e-3, 1] (the relative lower end is raised to 0.024). The tests recompute the table
# with a Remez exchange. All steps but the last are shrunk by 1.01, so that rounding in bfloat16
# cannot push a singular value out of the interval that the next step was made for.
_POLAR_EXPRESS: tuple[Coefficients, ...] = (
    (8.287212018145626, -23.59588651909882, 17.30038731253092),
    (4.107059111542198, -2.947849916737908, 0.5448431082926598),
    (3.948690853482296, -2.908902115962949, 0.5518191394370134),
    (3.3184196573706, -2.48848802431487, 0.51004894012372),
    (2.300652019954817, -1.668903984574749, 0.4188073119525674),
    (1.891301407787402, -1.267995827194594, 0.3768040894852514),
    (1.875001480832670, -1.250001645358391, 0.3750001645266451),
    (1.875, -1.25, 0.375),
)
_POLAR_EXPRESS_SAFETY = 1.01


def coefficients(name: str, steps: int = 5) -> tuple[Coefficients, ...]:
    """The coefficients of each step of the set ``"jordan"``, ``"quintic"`` or ``"polar_express"``.

    ``jordan`` takes any number of steps and ``polar_express`` 1 to 8; ``quintic`` was tuned as a
    whole and has exactly 5. Raises ``ConfigError`` otherwise.
    """
    most = {"jordan": 100, "quintic": 5, "polar_express": len(_POLAR_EXPRESS)}
    if name not in most:
        raise ConfigError(f"ns_coefficients={name!r}: must be one of {', '.join(most)}")
    least = 5 if name == "quintic" else 1
    if not least <= steps <= most[name]:
        raise ConfigError(
            f"ns_steps={steps}: the coefficient set {name!r} has {least} to {most[name]} steps; "
            "choose a number in that range or ns_coefficients='jordan'"
        )
    if name == "jordan":
        return (_JORDAN,) * steps
    if name == "quintic":
        return _QUINTIC
    safety = _POLAR_EXPRESS_SAFETY
    shrunk = [(a / safety, b / safety**3, c / safety**5) for a, b, c in _POLAR_EXPRESS[: steps - 1]]
    return (*shrunk, _POLAR_EXPRESS[steps - 1])


def newton_schulz(
    G_KAB: Tensor, coefficients: Sequence[Coefficients], dtype: torch.dtype
) -> Tensor:
    """Orthogonalises each matrix of ``G_KAB`` (any number of leading dimensions, or none).

    Products run in ``dtype`` (bfloat16 or float32) and the result has it; the norm is taken in
    float32. The input is never written to. A zero matrix gives zeros.

    The diagonal term is added inside ``baddbmm`` instead of being folded into the polynomial of the
    Gram matrix, where bfloat16 would round the sum of the two before it is multiplied.
    """
    A, B = G_KAB.shape[-2:]
    X_KMB = G_KAB.reshape(-1, A, B)
    if A > B:  # the Gram matrix is that of the shorter side
        X_KMB = X_KMB.mT
    norm_K11 = torch.linalg.vector_norm(X_KMB, dim=(-2, -1), keepdim=True, dtype=torch.float32)
    # Division makes a new tensor whatever the dtypes, which is what keeps the input intact.
    X_KMB = (X_KMB / norm_K11.clamp(min=EPS)).to(dtype, memory_format=torch.contiguous_format)
    for a, b, c in coefficients:
        gram_KMM = torch.bmm(X_KMB, X_KMB.mT)
        poly_KMM = torch.baddbmm(gram_KMM, gram_KMM, gram_KMM, beta=b, alpha=c)
        X_KMB = torch.baddbmm(X_KMB, poly_KMM, X_KMB, beta=a)
    return (X_KMB.mT if A > B else X_KMB).reshape(G_KAB.shape)
