"""H-SAE: a model whose latents form a tree, of which a row uses a few paths."""

import pyro
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from priors._prior import check_positive
from priors.replicas import stack_like
from priors.restrict import restrict
from priors.subsets import UniformSubsets
from priors.tree_subsets import TreeSubsets
from vsae.errors import ConfigError
from vsae.likelihood import SphericalNormal, as_noise
from vsae.models.refusals import refuse_replicas
from vsae.plates import plates
from vsae.sparse_code import SparseCode


class HierarchicalAutoencoder(nn.Module):
    r"""``support ~ paths of a tree; z ~ prior on it; x ~ Normal(decoder(z, support), noise)``.

    .. math:: S_b \sim \mathrm{TreeSubsets}(k), \quad z_b \sim p(\cdot \mid S_b), \quad
        x_b \sim \mathcal N(\hat x(z_b), σ^2 I), \qquad x_b \sim \mathcal N(\hat x^{top}(z_b),
        σ^2 / β\; I)

    A tree is a dictionary whose supports are closed under "parent of", so that the sites are those
    of :class:`vsae.SupportAutoencoder`: ``support`` and ``z`` (B, k · depth), roots first, then
    level by level (:class:`priors.TreeSubsets`); ``x`` (B, d). The prior is over all latents of the
    tree: a graph that ties children to parents, a block per family, or one scale for all.
    In training mode more is observed, as published: ``x_top`` (B, d), the activation as the roots
    alone must explain it; ``lost`` and ``lost_z`` (B, L), codes that lost the selection and are
    never decoded but pay ``losers``; and the factor ``orthogonality`` (B,). With those it is a
    *composite* likelihood; in evaluation mode the ELBO is a bound on :math:`\log p(x)`.

    Args:
        decoder: :class:`vsae.HierarchicalDecoder`.
        prior: ``() -> Distribution`` of event shape ``(K,)``, over all latents of the tree, with a
            :func:`priors.restrict`.
        k: Roots per row.
        noise: Standard deviation σ in (normalised) activation units, or a module ``() -> σ``.
        top_noise: Of ``x_top``, :math:`σ / \sqrt β`; no such observation if ``None``.
        losers: Prior of the codes that lost, of event shape ``(K,)``, for a posterior that writes
            them; ``None`` where only selected codes pay.
        num_losers: Their slots per row, ``L``; 0 without ``losers``.
        orthogonality: ``() -> log density`` of the weights, e.g.
            :class:`vsae.Biorthogonality`; counted once per row.

    Raises:
        ConfigError: ``noise.scale``, ``prior.bad_top_noise``, ``hierarchy.losers``; when run,
            ``subsets.size``, ``restrict.unregistered``.

    Example:
        >>> import torch
        >>> from priors import FlatPrior
        >>> from vsae import HierarchicalDecoder, LinearDecoder
        >>> decoder = HierarchicalDecoder(LinearDecoder(8, 6), branching=(4,), subspaces=(2,))
        >>> model = HierarchicalAutoencoder(decoder, FlatPrior(40), k=3, noise=0.7)
        >>> model(torch.zeros(5, 6)).shape
        torch.Size([5, 6])

    Source:
        Muchane, Richardson, Park & Veitch (2025), *Incorporating Hierarchical Semantics in Sparse
        Autoencoder Architectures*, 2506.01197, §3.
    """

    def __init__(
        self,
        decoder: nn.Module,
        prior: nn.Module,
        *,
        k: int,
        noise: float | nn.Module,
        top_noise: float | None = None,
        losers: nn.Module | None = None,
        num_losers: int = 0,
        orthogonality: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.decoder, self.prior, self.k = decoder, prior, k
        self.noise = as_noise(noise)
        self.top_noise = None if top_noise is None else check_positive("top_noise", top_noise)
        self.losers, self.num_losers = losers, num_losers
        if (losers is None) != (num_losers == 0) or num_losers < 0:
            raise ConfigError(
                "losers are a prior and a number of slots, or neither: got "
                f"losers={type(losers).__name__}, {num_losers=}. The posterior knows the number.",
                code="hierarchy.losers",
            )
        self.orthogonality = orthogonality

    @property
    def width(self) -> int:
        """Slots per row."""
        return self.k * self.decoder.tree.depth

    def forward(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "*batch d"]:
        prior, noise = self.prior(), self.noise()
        with plates(x, prior.batch_shape):
            if self.training and self.orthogonality is not None:
                pyro.factor("orthogonality", self.orthogonality().expand(len(x)))
            paths = TreeSubsets(self.decoder.tree, self.k, device=x.device)
            support = pyro.sample("support", paths)
            z = pyro.sample("z", restrict(prior, support))
            if self.training and self.losers is not None:
                self._sample_losers(self.losers(), x)
            top, mean = self.decoder.levels(z, support)
            pyro.sample("x", SphericalNormal(mean, noise), obs=x)
            if self.training and self.top_noise is not None:
                pyro.sample("x_top", SphericalNormal(top, self.top_noise), obs=x)
        return mean

    def _sample_losers(self, losers: Distribution, x: Tensor) -> None:
        subsets = UniformSubsets(self.decoder.latents, self.num_losers, device=x.device)
        lost = pyro.sample("lost", subsets)
        pyro.sample("lost_z", restrict(losers, lost))

    def code(self, sites: dict[str, Tensor]) -> SparseCode:
        """The code that values of the latent sites are, over all latents of the tree."""
        return SparseCode(sites["support"], sites["z"], self.decoder.latents)


stack_like.register(HierarchicalAutoencoder, refuse_replicas)
