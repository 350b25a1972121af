"""Which pairs have latents that can be moved, and on which rows."""

from torch import Tensor
from torch.optim import Optimizer

from priors.bernoulli import BernoulliPrior
from vsae.autoencoder import Autoencoder
from vsae.cofiring_gates import CoFiringGatesPrior
from vsae.decoders import LinearDecoder
from vsae.errors import ConfigError, DataError
from vsae.fitted_spike_slab import FittedSpikeSlabPrior
from vsae.posteriors.mean_field import MeanFieldPosterior

FEWEST = 20  # firings that say what is left over where a latent fires


def check_movable(pair: Autoencoder) -> None:
    """Raise ``ConfigError`` (``moves.pair``, ``moves.gates``) for latents that cannot be moved."""
    prior, decoder = getattr(pair.model, "prior", None), pair.model.decoder
    posterior = getattr(pair.guide, "posterior", None)
    kinds = {
        FittedSpikeSlabPrior: prior,
        LinearDecoder: decoder,
        MeanFieldPosterior: posterior,
    }
    for kind, part in kinds.items():
        if not isinstance(part, kind):
            raise ConfigError(
                f"moves are for a dictionary under spike and slab: got {type(part).__name__}, "
                f"expected a {kind.__name__}, as RecoveryRecipe makes it.",
                code="moves.pair",
            )
    if not isinstance(prior.prior.gates, BernoulliPrior | CoFiringGatesPrior):
        raise ConfigError(
            f"moves change what a latent is: got {type(prior.prior.gates).__name__}, whose "
            "structure is given, expected a BernoulliPrior or a CoFiringGatesPrior. A recipe has "
            "no moves with moves=0.",
            code="moves.gates",
        )


def check_move(pair: Autoencoder, x: Tensor, most: int | None, optimizer: Optimizer | None) -> None:
    """Raise for rows that cannot be looked at, fewer splits than none, an optimizer of others."""
    trained = [] if optimizer is None else [p for g in optimizer.param_groups for p in g["params"]]
    if optimizer is not None and not any(p is pair.model.decoder.W_dec for p in trained):
        raise ConfigError(
            f"an optimizer forgets atoms that it trains: got one of {len(trained)} parameters "
            "without this pair's W_dec, expected that of its run, or none.",
            code="moves.optimizer",
        )
    if most is not None and most < 0:
        raise ConfigError(
            f"no fewer than none are split: got most={most}, expected 0 or more.",
            code="moves.most",
        )
    if x.dim() != 2 or len(x) < FEWEST:
        raise DataError(
            f"moves are found on rows (rows, d): got {tuple(x.shape)}, expected {FEWEST} rows or "
            "more; some ten thousand are good.",
            code="moves.rows",
        )
    pair.check_finite(x)
