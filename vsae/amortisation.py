"""What a cheaper guide of the same model loses: the amortisation gap."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vsae.autoencoder import Activations, Autoencoder
from vsae.errors import ConfigError, EmptyDataError
from vsae.expected_elbo import ExpectedELBO

CHUNK = 4096  # rows at once


@dataclass(frozen=True, eq=False)
class AmortisationGap:
    """Nats of ELBO that one guide of a model is ahead of another.

    Attributes:
        per_row: ``ELBO(pair) - ELBO(other)`` of each row (N,), float64.
    """

    per_row: Float[Tensor, " rows"]

    @property
    def mean(self) -> float:
        """Nats per row."""
        return self.per_row.mean().item()

    @property
    def standard_error(self) -> float:
        """Of the mean, over rows: the guides' own randomness, if any, is part of it."""
        return (self.per_row.std() / len(self.per_row) ** 0.5).item()


@torch.no_grad()
def amortisation_gap(pair: Autoencoder, other: Autoencoder, x: Activations) -> AmortisationGap:
    r"""How much less of the evidence another guide of the same model explains, row by row.

    .. math:: \mathrm{gap}_b = \mathcal L_\text{pair}(x_b) - \mathcal L_\text{other}(x_b)
        = \mathrm{KL}(q_\text{other} \| p(z \mid x_b)) - \mathrm{KL}(q_\text{pair} \| p(z \mid x_b))

    Expectations are in closed form (:class:`vsae.ExpectedELBO`): there is no sampling noise, only
    the choice of rows. Where latents are independent given ``x`` (orthonormal atoms, one noise) a
    converged iterative posterior is exact, and no gap is negative. Elsewhere it is a fixed point,
    of which the other guide may find a better one, on some rows.

    Args:
        pair: With the reference guide, usually iterative.
        other: The same model and units, another guide.
        x: Raw activations, as the pairs take them, at least two rows; not those that a guide was
            trained on.

    Raises:
        ConfigError: ``amortisation.model`` if model or units of the two differ; ``elbo.expected``.
        EmptyDataError: ``data.empty`` for fewer than two rows, whose standard error is undefined.
        DataError: ``data.…``, see :meth:`Autoencoder.check`.

    Example:
        >>> from vsae.examples import tiny
        >>> model, guide, x = tiny()
        >>> pair = Autoencoder(model, guide)
        >>> amortisation_gap(pair, pair, x).mean
        0.0

    Source:
        Cremer, Li & Duvenaud (2018), *Inference suboptimality in variational autoencoders*, ICML.
    """
    x = pair.check(x)
    pair.check_finite(x)
    if len(x) < 2:
        raise EmptyDataError(
            f"a mean and its standard error need rows: got {len(x)}, expected at least 2.",
            code="data.empty",
        )
    for part in ("model", "normalizer"):
        _check_same(getattr(pair, part), getattr(other, part))
    rows = [_elbo(pair, part) - _elbo(other, part) for part in x.split(CHUNK)]
    return AmortisationGap(torch.cat(rows))


def _elbo(pair: Autoencoder, x: Tensor) -> Float[Tensor, " rows"]:
    """In normalised units: the Jacobian is the same for both."""
    with pair.evaluating():
        terms = ExpectedELBO().site_terms(pair.model, pair.guide, pair.normalizer(x))
    return -sum(term.double() for term in terms.values())


def _check_same(one: nn.Module, two: nn.Module) -> None:
    """The same tensors in the same places; a pair and its copy on disk are the same."""
    states = one.state_dict(), two.state_dict()
    same = type(one) is type(two) and states[0].keys() == states[1].keys()
    if not (same and all(torch.equal(states[0][name], states[1][name]) for name in states[0])):
        raise ConfigError(
            f"two guides are compared under one model: got {type(one).__name__} and "
            f"{type(two).__name__} with other parameters. Give both pairs the same model and "
            "normaliser.",
            code="amortisation.model",
        )
