"""The objective: an evidence lower bound with every KL in closed form."""

from collections.abc import Collection

import pyro.poutine as poutine
import torch
from pyro.distributions.util import scale_and_mask
from pyro.infer import ELBO
from pyro.infer.util import torch_item
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from priors.errors import ConfigError
from vsae.errors import MissingKLError
from vsae.recording import latent, record_sites


class ClosedFormELBO(ELBO):
    r"""The negative evidence lower bound, every KL in closed form or an error.

    .. math:: \mathcal L = \mathbb E_q[-\log p(x \mid z)] + \sum_\text{sites} \mathrm{KL}(q \| p)

    Same value and gradients as :class:`pyro.infer.TraceMeanField_ELBO`, with three differences: a
    latent without a registered KL raises instead of becoming a Monte-Carlo estimate, latents are
    not scored twice, and nothing is copied to the host, so a step can be exported or compiled.
    As there, every latent must be reparameterised (``has_rsample``).
    ``ClosedFormELBO()(model, guide)`` is Pyro's ``ELBOModule``, for ``torch.optim``;
    ``SVI(model, guide, optim, ClosedFormELBO())`` works as with Pyro's own. The expectation is over
    one draw per step, or the mean over ``num_particles`` draws.

    The guide must be mean-field: a site's distribution may not depend on another site's draw
    (use ``Trace_ELBO`` there), except top-down guides built on ``GuideMessenger``.

    Example:
        >>> from vsae.examples import tiny
        >>> model, guide, x = tiny()
        >>> sorted(ClosedFormELBO().terms(model, guide, x))
        ['x', 'z']

    Source:
        Kingma & Welling (2014), *Auto-Encoding Variational Bayes*, eq. 7.
    """

    def on(self, rows: Tensor, step: int) -> "ClosedFormELBO":
        """The objective of one step, given the data's rows in its batch ``(seeds, B)``: itself.

        Of an objective that joins rows or changes with the step, a copy that knows them.
        """
        return self

    def check_rows(self, rows: int) -> None:
        """Raise if this objective cannot be that of so many rows of data."""

    def report(self) -> dict[str, Tensor]:
        """What a training record should say of it, by name."""
        return {}

    def site_terms(self, model, guide, *args, **kwargs) -> dict[str, Tensor]:
        """Per site ``-log p(x | z)`` if observed, ``KL(q ‖ p)`` if latent, before any sum.

        Each has the batch shape of its site: ``(B,)`` in the plate ``rows``, ``(R, B)`` with
        replicas, ``()`` outside plates.
        """
        draws = [self._once(model, guide, args, kwargs) for _ in range(self._particles())]
        if len(draws) == 1:
            return draws[0]
        return {name: sum(draw[name] for draw in draws) / len(draws) for name in draws[0]}

    def terms(self, model, guide, *args, **kwargs) -> dict[str, Tensor]:
        """One scalar per site: ``site_terms`` summed over rows (and replicas)."""
        return {n: t.sum() for n, t in self.site_terms(model, guide, *args, **kwargs).items()}

    def differentiable_loss(self, model, guide, *args, **kwargs) -> Tensor:
        """The negative ELBO of the batch, in nats: the sum of ``terms``."""
        return sum(self.terms(model, guide, *args, **kwargs).values())

    def loss(self, model, guide, *args, **kwargs) -> float:
        """``differentiable_loss`` as a float, for ``SVI.evaluate_loss``."""
        return torch_item(self.differentiable_loss(model, guide, *args, **kwargs))

    def loss_and_grads(self, model, guide, *args, **kwargs) -> float:
        """``loss``, with its gradients accumulated, for ``SVI.step``."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward()
        return torch_item(loss)

    def _particles(self) -> int:
        if self.vectorize_particles:
            raise ConfigError(
                "vectorize_particles is not supported: got True, expected False. "
                "num_particles > 1 averages draws one after another.",
                code="elbo.vectorized",
            )
        return self.num_particles

    def _once(self, model, guide, args, kwargs) -> dict[str, Tensor]:
        of_model, of_guide = self._get_trace(model, guide, args, kwargs)
        latents, sources = latent(of_model), latent(of_guide)
        if missing := [name for name in latents if name not in sources]:
            raise ConfigError(
                f"the guide leaves out latent sites: got {list(sources)}, expected {missing} too.",
                code="elbo.missing_site",
            )
        if strays := sources.keys() - latents.keys():
            raise ConfigError(
                f"the guide samples sites the model does not: got {sorted(strays)}, expected a "
                f"subset of {sorted(latents)}. Rename them, or use Trace_ELBO if they are "
                "auxiliary.",
                code="elbo.stray_site",
            )
        terms = {}
        for name, site in of_model.items():
            if site["is_observed"]:
                term, source = -site["fn"].log_prob(site["value"]), site
                term = term + self._spread(site, sources)
            else:
                source = sources[name]
                self._check_draw(name, source["fn"])
                term = self._latent_term(_kl(name, source["fn"], site["fn"]), source["mask"])
            terms[name] = scale_and_mask(term, source["scale"], source["mask"])
        return terms | self._coupled_terms(model, latents)

    def _coupled_terms(self, model, latents: dict[str, dict]) -> dict[str, Tensor]:
        """Terms that are of no site alone, from the model's latent sites."""
        return {}

    def _latent_term(self, kl: Tensor, mask: Tensor | bool | None) -> Tensor:
        return kl

    def _spread(self, site: dict, sources: dict[str, dict]) -> Tensor | float:
        """What the term of an observed site lacks where codes are not draws."""
        return 0.0

    def _check_draw(self, name: str, q: Distribution) -> None:
        _check_reparameterised(name, q)

    def _recorder(self) -> record_sites:
        """What the guide is run in."""
        return record_sites()

    def _get_trace(self, model, guide, args, kwargs) -> tuple[dict, dict]:
        """The sample sites of the model, at the guide's draws, and of the guide."""
        if isinstance(guide, GuideMessenger):
            guide(*args, **kwargs)
            traces = map(prune_subsample_sites, guide.get_traces())
            of_model, of_guide = (trace.nodes for trace in traces)
            return _samples(of_model), _samples(of_guide)
        with self._recorder() as drawn:
            guide(*args, **kwargs)
        with record_sites(latent(drawn.sites)) as replayed:
            model(*args, **kwargs)
        return replayed.sampled, drawn.sampled


def per_row(terms: dict[str, Tensor], rows: int) -> dict[str, Tensor]:
    """Site terms summed over the plate ``rows`` and divided by its size: ``()``, or ``(R,)``."""
    return {name: (t.sum(-1) if t.dim() else t) / rows for name, t in terms.items()}


def _check_reparameterised(name: str, q: Distribution) -> None:
    if not getattr(q, "has_rsample", False):
        raise ConfigError(
            f"site {name!r}: a draw of {type(q).__name__} carries no gradient, so that of the ELBO "
            "would lack a term. Use pyro.infer.TraceGraph_ELBO, or enumerate.",
            code="elbo.not_reparameterized",
            context={"site": name},
        )


def _kl(name: str, q: Distribution, p: Distribution) -> Tensor:
    try:
        return kl_divergence(q, p)
    except NotImplementedError as error:
        raise MissingKLError(
            f"site {name!r} has no closed-form KL: got {q} and {p}. Register one with "
            "torch.distributions.register_kl, or use pyro.infer.Trace_ELBO.",
            code="elbo.no_kl",
            context={"site": name},
        ) from error


def _samples(nodes: dict[str, dict]) -> dict[str, dict]:
    return {name: node for name, node in nodes.items() if node["type"] == "sample"}


class FreeBitsELBO(ClosedFormELBO):
    r"""The ELBO with each latent site's KL held at ``floor`` nats per row or above.

    .. math:: \mathcal L = \mathbb E_q[-\log p(x \mid z)]
        + \sum_\text{sites} \max(\mathrm{floor}, \tfrac1B \sum_b \mathrm{KL}_b) \cdot B

    Below the floor the KL sends no gradient, so a latent may carry that much information for
    nothing. The floor is on the *total* KL of a site, averaged over rows (those not masked): a
    prior that couples latents has no KL per latent. β multiplies the floor too.

    Args:
        floor: Nats per row, at least 0.
        num_particles: Draws averaged per step.

    Raises:
        ConfigError: ``elbo.free_bits`` if the floor is negative or NaN.

    Source:
        Kingma et al. (2016), *Improved Variational Inference with Inverse Autoregressive Flow*,
        §C.8.
    """

    def __init__(self, floor: float, *, num_particles: int = 1) -> None:
        if not floor >= 0:
            raise ConfigError(
                f"free bits need floor >= 0 nats per row: got {floor}.", code="elbo.free_bits"
            )
        super().__init__(num_particles=num_particles)
        self.floor = floor

    def _latent_term(self, kl: Tensor, mask: Tensor | bool | None) -> Tensor:
        kept = torch.ones_like(kl) if mask is None else torch.as_tensor(mask).expand_as(kl).to(kl)
        rows = kept.sum(-1, keepdim=True).clamp(min=1)
        mean = torch.where(kept > 0, kl, 0.0).sum(-1, keepdim=True) / rows
        return mean.clamp(min=self.floor).expand_as(kl)


class scale_latents(poutine.messenger.Messenger):
    """Scale every latent site by ``factor``, in the model and in the guide at once: β-VAE's β.

    Scaling one side alone has no effect under analytic KLs, or a wrong one under ``Trace_ELBO``.

    Args:
        factor: β, a float or a tensor that broadcasts over the batch (one per replica: ``(R, 1)``).
        sites: Names of the latent sites to scale; all of them if ``None``.

    Example:
        >>> from vsae.examples import tiny
        >>> model, guide, x = tiny()
        >>> elbo = ClosedFormELBO()
        >>> with scale_latents(0.0):
        ...     elbo.terms(model, guide, x)["z"].item()
        0.0

    Source:
        Higgins et al. (2017), *β-VAE*, eq. 4.
    """

    def __init__(self, factor: float | Tensor, sites: Collection[str] | None = None) -> None:
        super().__init__()
        self.factor, self.sites = factor, sites

    def _pyro_sample(self, msg) -> None:
        if not msg["is_observed"] and (self.sites is None or msg["name"] in self.sites):
            msg["scale"] = msg["scale"] * self.factor
