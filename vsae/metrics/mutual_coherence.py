"""How nearly parallel two atoms of a dictionary are."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from vsae.errors import EmptyDataError
from vsae.metrics.nulls import AgainstNull, against_null


def mutual_coherence(
    atoms: Float[Tensor, "K d"], *, generator: Generator, draws: int = 100
) -> AgainstNull:
    r"""The greatest :math:`|\cos(d_i, d_j)|` of two atoms, against as many random directions.

    Copies of an atom, or children that have absorbed their parent, raise it. It grows with the
    number of atoms: compare dictionaries of different sizes each with its own null.

    Args:
        atoms: ``(K, d)`` of any norm; zero atoms are left out.
        generator: The source of randomness, on the CPU.
        draws: Of the null model.

    Raises:
        EmptyDataError: ``data.empty`` with fewer than two atoms that are not zero.
        ConfigError: ``nulls.draws``.

    Example:
        >>> mutual_coherence(torch.eye(5), generator=Generator()).value
        0.0

    Source:
        Donoho & Huo (2001), *Uncertainty principles and ideal atomic decomposition*; Tropp (2004),
        *Greed is good*.
    """
    atoms = atoms.detach().cpu().double()
    atoms = atoms[torch.linalg.vector_norm(atoms, dim=-1) > 0]
    if len(atoms) < 2:
        raise EmptyDataError(
            f"coherence of {len(atoms)} atoms: expected two at least that are not zero.",
            code="data.empty",
        )
    shape = tuple(atoms.shape)
    return against_null(
        _greatest(atoms),
        lambda source: _greatest(torch.randn(shape, generator=source, dtype=torch.float64)),
        draws=draws,
        generator=generator,
    )


def _greatest(atoms: Tensor) -> float:
    unit = torch.nn.functional.normalize(atoms, dim=-1)
    return float((unit @ unit.mT).abs().fill_diagonal_(0.0).max())
