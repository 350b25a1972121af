"""MAP codes by accelerated proximal gradients: the guide of ℓ1 sparse coding."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from priors.errors import ConfigError
from priors.replicas import stack_like
from vsae.posteriors.accelerated import accelerated
from vsae.posteriors.point import point
from vsae.posteriors.proximal import proximal
from vsae.unstackable import refuse_replicas

SQUARINGS = 4  # of the Gram matrix, in the bound on its greatest eigenvalue


class FISTAPosterior(nn.Module):
    r"""The most probable code under an ℓ1 prior, found by iteration: there is no encoder.

    .. math:: \hat z = \arg\min_z \frac{\lVert x - b - zW \rVert^2}{2σ^2} - \log p(z), \qquad
        z_{t+1} = \mathrm{prox}_{σ^2/L}\Big(y_t + \tfrac1L (x - b - y_t W) W^\top\Big)

    with Nesterov's momentum in :math:`y_t` and :math:`L \ge \lVert W \rVert_2^2`. The objective
    after ``t`` iterations is within :math:`2L\lVert\hat z\rVert^2 / σ^2(t+1)^2` of its least. A
    code is computed at the model's own parameters and *without* a gradient, so that the ELBO's is
    the one at a fixed posterior (the M-step of variational EM); :class:`UnrolledFISTAPosterior`
    differentiates through the iterations. An iteration costs two products with the dictionary.

    Args:
        decoder: With atoms ``W_dec`` (K, d) and bias ``b_dec``, shared with the model.
        prior: Of independent latents, shared with the model: :class:`priors.ExponentialPrior`
            (codes are not negative) or :class:`priors.LaplacePrior`.
        noise: ``() -> σ``, shared with the model.
        iterations: How many.

    Raises:
        ConfigError: ``iterations.count`` unless there is at least one; ``fista.noise`` for a noise
            that is a latent; when run, ``fista.prior`` for another prior.

    Example:
        >>> from priors import ExponentialPrior
        >>> from vsae import FixedNoise, LinearDecoder
        >>> decoder = LinearDecoder(8, 3)
        >>> q = FISTAPosterior(decoder, ExponentialPrior(8), FixedNoise(0.1), iterations=20)
        >>> q(decoder.W_dec[:5].detach())["z"].mean.shape
        torch.Size([5, 8])

    Source:
        Beck & Teboulle (2009), *A fast iterative shrinkage-thresholding algorithm*, SIAM J. Imaging
        Sciences 2:183, theorem 4.4.
    """

    def __init__(
        self, decoder: nn.Module, prior: nn.Module, noise: nn.Module, *, iterations: int = 20
    ) -> None:
        super().__init__()
        check_iterations(iterations)
        if isinstance(noise(), Distribution):
            raise ConfigError(
                f"FISTA has one noise for all rows: got {type(noise).__name__}, expected "
                "FixedNoise, LearnedNoise or AnnealedNoise. MeanFieldPosterior infers one per row.",
                code="fista.noise",
            )
        self.decoder, self.prior, self.noise = decoder, prior, noise
        self.iterations, self.latents = int(iterations), decoder.latents

    @property
    def encoder(self) -> nn.Module:
        """The decoder: codes are read with the atoms that write them."""
        return self.decoder

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        with torch.no_grad():
            return {"z": point(self.solve(x))}

    def solve(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows K"]:
        """The codes, with the gradient of the iterations where one is recorded."""
        atoms, bias = self.decoder.W_dec, self.decoder.b_dec
        target = x if bias is None else x - bias
        prior, length = self.prior(), 1 / greatest_eigenvalue(atoms)
        step = length * self.noise() ** 2

        def update(ahead: Tensor) -> Tensor:
            residual = length * (target - ahead @ atoms)
            return proximal(prior, ahead + residual @ atoms.mT, step)

        empty = x.new_zeros(*x.shape[:-1], self.latents)
        return accelerated(update, empty, self.iterations)

    def extra_repr(self) -> str:
        return f"iterations={self.iterations}"


class UnrolledFISTAPosterior(FISTAPosterior):
    """The same codes, with the gradient of the iterations that found them.

    Training then also moves atoms so that few iterations suffice: a learned ISTA whose weights are
    the decoder's. Memory grows with the iterations.

    Args:
        decoder: As of :class:`FISTAPosterior`.
        prior: As there.
        noise: As there.
        iterations: As there.

    Example:
        >>> from priors import ExponentialPrior
        >>> from vsae import FixedNoise, LinearDecoder
        >>> decoder = LinearDecoder(8, 3)
        >>> q = UnrolledFISTAPosterior(decoder, ExponentialPrior(8), FixedNoise(0.1), iterations=5)
        >>> q(torch.ones(2, 3))["z"].mean.requires_grad
        True

    Source:
        Gregor & LeCun (2010), *Learning fast approximations of sparse coding*, ICML.
    """

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        return {"z": point(self.solve(x))}


def greatest_eigenvalue(atoms: Float[Tensor, "K d"]) -> Float[Tensor, ""]:
    r"""A bound on the greatest eigenvalue of ``WᵀW`` from above, to a factor of :math:`d^{1/32}`.

    .. math:: λ_{max} \le \lVert (W^\top W)^{16} \rVert_F^{1/16} \le d^{1/32} λ_{max}

    Products of (d, d) matrices only: no factorisation, and nothing is read by the host. Without a
    gradient: it is a step length.
    """
    with torch.no_grad():
        power = atoms.mT @ atoms if atoms.shape[-2] >= atoms.shape[-1] else atoms @ atoms.mT
        log_norm = torch.zeros_like(power[0, 0])
        for _ in range(SQUARINGS):
            norm = power.norm()
            power = power / norm
            power, log_norm = power @ power, 2 * (log_norm + norm.log())
        return ((power.norm().log() + log_norm) / 2**SQUARINGS).exp()


def check_iterations(iterations: int) -> None:
    """Raise unless a guide that iterates does so at least once."""
    if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
        raise ConfigError(
            f"a guide by iteration needs at least one: got {iterations!r}.",
            code="iterations.count",
        )


stack_like.register(FISTAPosterior, refuse_replicas)
