"""Variational TopK: three readings of one paper, each equal to its loss written by hand."""

import math

import numpy as np
import pyro
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from program_checks import (
    assert_export_keeps_gradients,
    assert_masked_rows_do_not_count,
    assert_predictive_draws,
    assert_pyros_elbos_agree,
    assert_saved_is_loaded,
    assert_svi_trains,
    gaussian_constant,
    leaves_of,
)
from pyro import poutine
from pyro.infer import TraceMeanField_ELBO
from scipy.optimize import minimize
from torch import nn

from priors import IsotropicPrior
from priors.replicas import stack
from vsae import (
    AmortizedGuide,
    Autoencoder,
    ClosedFormELBO,
    GaussianPosterior,
    LinearDecoder,
    LinearEncoder,
    SparseAutoencoder,
    fit,
    noise_from,
    scale_latents,
)
from vsae.errors import EmptyDataError, VsaeError
from vsae.links import TopKLink
from vsae.metrics.collapse import surviving_components
from vsae.presets.variational_topk import (
    masked_variational_topk_autoencoder,
    shrunk_topk_autoencoder,
    variational_topk_autoencoder,
)

D, K, SLOTS, ROWS, ALPHA, S = 7, 24, 5, 12, 0.6, 0.4
DRAWS = 20_000
SIGMA = (ALPHA / 2) ** 0.5


def moved(pair):
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    pair.project()
    return pair


def variational(k=SLOTS):
    return moved(variational_topk_autoencoder(D, K, k=k, alpha=ALPHA, scale=S))


def masked(k=SLOTS):
    return moved(masked_variational_topk_autoencoder(D, K, k=k, alpha=ALPHA, scale=S))


def shrunk(k=SLOTS):
    return moved(shrunk_topk_autoencoder(D, K, k=k, alpha=ALPHA))


def learned_scale():
    model = SparseAutoencoder(LinearDecoder(K, D), IsotropicPrior(K), noise=SIGMA, link=TopKLink(5))
    guide = AmortizedGuide(GaussianPosterior(LinearEncoder(D, 2 * K)))
    return moved(Autoencoder(model, guide))


PAIRS = {
    "variational": variational,
    "masked": masked,
    "shrunk": shrunk,
    "learned scale": learned_scale,
}
each_pair = pytest.mark.parametrize("kind", PAIRS)


def by_hand(pair, x):
    """Pre-activations, decoder and top-k of plain torch."""
    encoder, decoder = pair.guide.posterior.encoder, pair.model.decoder
    mean = (x - decoder.b_dec) @ encoder.W_enc.T + encoder.b_enc
    return mean, lambda code: code @ decoder.W_dec + decoder.b_dec


def keep(z, by, k):
    """``z`` where ``|by|`` is among the k greatest of its row, by sorting."""
    bar = by.detach().abs().sort(-1, descending=True).values[:, k - 1 : k]
    return z * (by.detach().abs() >= bar)


def agree(pair, x, loss, published, constant):
    """``α · loss`` is the published one, value and every gradient."""
    torch.testing.assert_close(ALPHA * (loss - constant), published, rtol=1e-10, atol=1e-10)
    leaves = leaves_of(pair)
    mine = torch.autograd.grad(ALPHA * loss, leaves.values())
    theirs = torch.autograd.grad(published, leaves.values())
    for name, ours, oracle in zip(leaves, mine, theirs, strict=True):
        torch.testing.assert_close(ours, oracle, rtol=1e-10, atol=1e-10, msg=name)
        assert oracle.abs().sum() > 0, name


def with_draw(pair, x):
    """The loss of one draw, and the draw's standard normal noise, (B, K) or (B, slots)."""
    torch.manual_seed(3)
    loss = ClosedFormELBO()(pair.model, pair.guide)(x)
    torch.manual_seed(3)
    sites = poutine.trace(pair.guide).get_trace(x).nodes
    q = sites["z"]["fn"].base_dist
    return loss, ((sites["z"]["value"] - q.loc) / q.scale).detach()


def test_shrunk_is_the_published_loss_without_noise():
    """‖x - x̂‖² + α ½‖z‖², all latents, the unselected too, α = 2σ²."""
    pair, x = shrunk(), torch.randn(ROWS, D)
    mean, decode = by_hand(pair, x)
    published = (x - decode(keep(mean, mean, SLOTS))).square().sum()
    published = published + ALPHA * 0.5 * mean.square().sum()
    constant = gaussian_constant(ROWS, D, SIGMA) + 0.5 * ROWS * K * math.log(2 * math.pi)
    agree(pair, x, ClosedFormELBO()(pair.model, pair.guide)(x), published, constant)


def test_variational_is_the_loss_of_a_noisy_code_and_the_kl_of_all_latents():
    pair, x = variational(), torch.randn(ROWS, D)
    mean, decode = by_hand(pair, x)
    loss, noise = with_draw(pair, x)
    z = mean + S * noise
    kl = 0.5 * (mean.square() + S**2 - 1).sum() - ROWS * K * math.log(S)
    published = (x - decode(keep(z, z, SLOTS))).square().sum() + ALPHA * kl
    agree(pair, x, loss, published, gaussian_constant(ROWS, D, SIGMA))


def test_masked_pays_for_the_selected_alone():
    pair, x = masked(), torch.randn(ROWS, D)
    mean, decode = by_hand(pair, x)
    loss, noise = with_draw(pair, x)
    support = pair.guide.posterior(x)["support"].v
    dense = torch.zeros(ROWS, K).scatter(-1, support, noise)
    chosen = keep(torch.ones(ROWS, K), mean, SLOTS)
    kl = chosen * (0.5 * (mean.square() + S**2 - 1) - math.log(S))
    z = chosen * (mean + S * dense)
    published = (x - decode(z)).square().sum() + ALPHA * kl.sum()
    constant = gaussian_constant(ROWS, D, SIGMA) + ROWS * math.log(math.comb(K, SLOTS))
    agree(pair, x, loss, published, constant)


def test_masked_kl_is_a_sum_of_scalar_kls():
    pair, x = masked(), torch.randn(ROWS, D)
    q = pair.guide.posterior(x)["z"].base_dist
    standard = torch.distributions.Normal(0.0, 1.0)
    expected = torch.distributions.kl_divergence(q, standard).sum()
    torch.testing.assert_close(ClosedFormELBO().terms(pair.model, pair.guide, x)["z"], expected)


def reconstruction(pair, x, code):
    """``-log p(x | z)`` of the batch at given latents."""
    model = poutine.condition(pair.model, data=code)
    site = poutine.trace(model).get_trace(x).nodes["x"]
    return -site["fn"].log_prob(x).sum()


def test_noise_on_selected_unit_atoms_changes_the_expected_loss_by_a_constant():
    """The loss is quadratic in the noise: its mean over ±√k e_i is its expectation, exactly."""
    pair, x = masked(), torch.randn(ROWS, D)
    q = pair.guide.posterior(x)
    support, mean = q["support"].v, q["z"].mean
    directions = math.sqrt(SLOTS) * torch.cat([torch.eye(SLOTS), -torch.eye(SLOTS)])
    noisy = [
        reconstruction(pair, x, {"support": support, "z": mean + S * direction})
        for direction in directions
    ]
    expected, silent = (
        torch.stack(noisy).mean(),
        reconstruction(pair, x, {"support": support, "z": mean}),
    )
    constant = ROWS * SLOTS * S**2 / (2 * SIGMA**2)
    torch.testing.assert_close(expected - silent, torch.tensor(constant), rtol=1e-10, atol=0)
    leaves = leaves_of(pair)
    pairs = zip(
        leaves,
        torch.autograd.grad(expected, leaves.values(), retain_graph=True),
        torch.autograd.grad(silent, leaves.values()),
        strict=True,
    )
    for name, noisy, quiet in pairs:
        if name == "model.decoder.W_dec":  # s²‖w‖² pulls along the atom alone: off the sphere
            atoms = pair.W_dec.detach()
            noisy, quiet = (g - (g * atoms).sum(-1, keepdim=True) * atoms for g in (noisy, quiet))
        torch.testing.assert_close(noisy, quiet)
        assert quiet.abs().sum() > 0


def test_noise_is_injected_as_much_as_theory_says():
    """k = K, copies of a row: ‖e - s Wᵀε‖² / 2σ² has a mean and a variance in closed form."""
    pair, x = variational(k=K), torch.randn(1, D)
    encoder, atoms = pair.guide.posterior.encoder, pair.W_dec.detach().numpy()
    with torch.no_grad(), noise_from([torch.Generator().manual_seed(0)]):
        draws = ClosedFormELBO().site_terms(pair.model, pair.guide, x.expand(DRAWS, -1))["x"]
        error = (x - pair.b_dec - encoder(x) @ pair.W_dec).numpy()[0]
    draws = draws.numpy() - gaussian_constant(1, D, SIGMA)
    gram = atoms @ atoms.T
    mean = (error @ error + S**2 * np.trace(gram)) / (2 * SIGMA**2)
    variance = S**2 * np.square(atoms @ error).sum() + S**4 * np.square(gram).sum() / 2
    variance /= SIGMA**4
    spread = (draws - draws.mean()) ** 2
    assert abs(draws.mean() - mean) < 5 * np.sqrt(variance / DRAWS)  # five standard errors
    assert abs(spread.mean() - variance) < 5 * spread.std() / np.sqrt(DRAWS)
    assert variance > 1


@each_pair
def test_noise_is_injected_in_training(kind):
    """The first step's loss depends on the seed of the noise, but for the pair that has none."""
    x, losses = torch.randn(ROWS, D), []
    pair = PAIRS[kind]()
    for seed in (0, 1):
        record = next(iter(fit(pair, x, steps=1, batch_size=ROWS, seed=seed, lr=1e-30)))
        losses.append(record.loss)
    assert torch.isclose(*losses, rtol=1e-12) == (kind == "shrunk")


def test_selection_by_a_link_sees_the_noise_and_selection_in_the_guide_does_not():
    x, pair, other = torch.randn(ROWS, D), variational(), masked()
    seen = {kind: [] for kind in ("link", "guide")}
    for seed in range(2):
        torch.manual_seed(seed)
        seen["link"].append(pair.model.link(pair.guide(x)["z"]) != 0)
        seen["guide"].append(other.guide(x)["support"].sort(-1).values)
    assert not torch.equal(*seen["link"])
    assert torch.equal(*seen["guide"])


@each_pair
def test_agrees_with_pyro(kind):
    pair, x = PAIRS[kind](), torch.randn(ROWS, D)
    if kind == "shrunk":
        assert_pyros_elbos_agree(pair, x)  # Trace_ELBO too: there is no noise
    results = []
    for elbo in (ClosedFormELBO(), TraceMeanField_ELBO()):
        torch.manual_seed(1)
        loss = elbo(pair.model, pair.guide)(x)
        gradients = torch.autograd.grad(loss, leaves_of(pair).values())
        results.append([loss, *gradients])
        assert all(g.abs().sum() > 0 for g in gradients)
    torch.testing.assert_close(*results)


@each_pair
def test_programs(kind):
    pair, x = PAIRS[kind](), torch.randn(ROWS, D)
    latent = (
        {"z": (ROWS, SLOTS), "support": (ROWS, SLOTS)} if kind == "masked" else {"z": (ROWS, K)}
    )
    assert_predictive_draws(pair, x, latent | {"x": (ROWS, D)})
    terms = []
    for factor in (1.0, 0.25):
        torch.manual_seed(0)
        with scale_latents(factor):
            terms.append(ClosedFormELBO().terms(pair.model, pair.guide, x))
    expected = {n: t if n == "x" else 0.25 * t for n, t in terms[0].items()}
    torch.testing.assert_close(terms[1], expected)
    if kind == "shrunk":
        assert_masked_rows_do_not_count(pair, x)
    assert_svi_trains(pair, x, steps=60)


@each_pair
def test_saves_and_loads(kind, tmp_path):
    assert_saved_is_loaded(PAIRS[kind](), torch.randn(ROWS, D), tmp_path / "sae")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["shrunk", "masked"])
def test_export_keeps_gradients(kind):
    pair, x = PAIRS[kind](), torch.randn(ROWS, D)
    if kind == "shrunk":
        return assert_export_keeps_gradients(pair, x)
    objective = ClosedFormELBO()(pair.model, pair.guide)
    with pyro.validation_enabled(False):
        step = torch.export.export(objective, (x,), strict=False).module()
    results = []
    for module in (objective, step):
        torch.manual_seed(1)  # the same noise
        loss = module(x)
        results.append([loss, *torch.autograd.grad(loss, leaves_of(module).values())])
    names = [list(leaves_of(module)) for module in (objective, step)]
    ordered = [dict(zip(["loss", *n], r, strict=True)) for n, r in zip(names, results, strict=True)]
    torch.testing.assert_close(*ordered)
    return None


def test_a_stack_is_its_members():
    pairs, x = [variational(), variational()], torch.randn(ROWS, D)
    both = stack(pairs)
    losses = [r.loss for r in fit(both, x, steps=3, batch_size=6, seed=[0, 1])]
    for replica, pair in enumerate(pairs):
        alone = [r.loss for r in fit(pair, x, steps=3, batch_size=6, seed=replica)]
        torch.testing.assert_close(torch.stack(losses)[:, replica], torch.stack(alone))


# The link


@given(
    st.integers(1, 6),
    st.lists(st.integers(-4, 4), min_size=6, max_size=6),
    st.sampled_from([1.0, 0.5, 1e-8]),
)
def test_link_keeps_the_greatest(k, row, unit):
    """Ties included: as many as k entries are kept, none smaller than one that is not."""
    z = unit * torch.tensor([row], dtype=torch.float64)
    code = TopKLink(k)(z)[0].numpy()
    magnitudes = np.sort(np.abs(np.array(row) * unit))[::-1]
    assert np.array_equal(np.sort(np.abs(code))[::-1], np.r_[magnitudes[:k], np.zeros(6 - k)])
    assert all(c in (0.0, v) for c, v in zip(code, z[0].numpy(), strict=True))


def test_link_of_everything_is_the_identity_and_of_more_an_error():
    z = torch.randn(3, K)
    assert torch.equal(TopKLink(K)(z), z)
    for wrong in (lambda: TopKLink(K + 1)(z), lambda: TopKLink(0)):
        with pytest.raises(VsaeError) as caught:
            wrong()
        assert caught.value.code == "select.k"


def test_link_passes_gradients_to_what_it_keeps_and_shows_nan():
    z = torch.tensor([[1.0, -3.0, 2.0]], requires_grad=True)
    TopKLink(2)(z).sum().backward()
    assert z.grad.tolist() == [[0.0, 1.0, 1.0]]
    assert TopKLink(1)(torch.tensor([[1.0, math.nan, 9.0]])).isnan().any()


@pytest.mark.parametrize("kind", ["variational", "masked", "shrunk"])
def test_degenerate_inputs(kind):
    make = {
        "variational": variational_topk_autoencoder,
        "masked": masked_variational_topk_autoencoder,
        "shrunk": shrunk_topk_autoencoder,
    }[kind]
    for k in (0, K + 1):
        with pytest.raises(VsaeError) as caught:
            make(D, K, k=k, alpha=1.0)
        assert caught.value.code == "select.k"
    for alpha in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(VsaeError) as caught:
            make(D, K, k=2, alpha=alpha)
        assert caught.value.code == "prior.bad_alpha"
    if kind != "shrunk":
        with pytest.raises(VsaeError) as caught:
            make(D, K, k=2, alpha=1.0, scale=0.0)
        assert caught.value.code == "prior.bad_scale"
    everything = make(D, K, k=K, alpha=1.0)
    assert everything.elbo(torch.randn(1, D)).isfinite()  # one row
    zero = make(D, K, k=2, alpha=1.0)
    nn.init.zeros_(zero.guide.posterior.encoder.W_enc)
    assert not zero.encode(torch.randn(4, D)).any()  # all tied, all zero
    loss = ClosedFormELBO()(zero.model, zero.guide)(torch.randn(4, D))
    gradients = torch.autograd.grad(loss, leaves_of(zero).values())
    assert all(g.isfinite().all() for g in gradients)


# How many components survive


def best_share(variance, noise, beta):
    """|decoder·encoder| at the optimum of the β-ELBO of one component, by numerical search."""

    def loss(parameters):
        w, a, log_s = parameters
        s2 = math.exp(2 * log_s)
        error = variance * (1 - w * a) ** 2 + w**2 * s2
        return error / (2 * noise**2) + beta * 0.5 * (a**2 * variance + s2 - 1 - 2 * log_s)

    starts = [(0.1, 0.1, -0.1), (2.0, 0.4, -1.0)]
    found = [minimize(loss, s, method="BFGS", options={"gtol": 1e-9}) for s in starts]
    best = min(found, key=lambda result: result.fun)
    return abs(best.x[0] * best.x[1])


@pytest.mark.parametrize("beta", [1.0, 3.0])
def test_surviving_components_are_those_that_the_elbo_codes(beta):
    variances, noise = np.array([6.0, 2.0, 0.9, 0.5, 0.1]), 0.8
    generator = torch.Generator().manual_seed(0)
    shape = {"generator": generator, "dtype": torch.float64}
    frame = torch.linalg.qr(torch.randn(400, 5, **shape) - 0).Q
    frame = torch.linalg.qr(frame - frame.mean(0)).Q  # centred, covariance exactly diagonal
    turn = torch.linalg.qr(torch.randn(5, 5, **shape)).Q
    x = math.sqrt(400) * frame * torch.tensor(variances).sqrt() @ turn + 7.0
    shares = np.array([best_share(v, noise, beta) for v in variances])
    expected = np.maximum(0, 1 - beta * noise**2 / variances)  # Lucas et al. (2019)
    np.testing.assert_allclose(shares, expected, atol=1e-3)  # flat at a collapsed optimum
    assert surviving_components(x, noise=noise, beta=beta) == (expected > 0).sum()


def test_surviving_components_in_batches_and_at_the_ends():
    x = torch.randn(2, 50, 3)
    assert surviving_components(x, noise=1e-6).tolist() == [3, 3]
    assert surviving_components(x, noise=1e6).tolist() == [0, 0]
    assert surviving_components(x[0, :1], noise=1e-6) == 0  # one row does not vary
    with pytest.raises(EmptyDataError):
        surviving_components(x[:, :0], noise=1.0)
    for settings in ({"noise": 0.0}, {"noise": 1.0, "beta": -1.0}):
        with pytest.raises(VsaeError):
            surviving_components(x, **settings)


def test_unit_atoms_under_a_fixed_prior_shrink_alike_and_have_no_threshold():
    """Least squares with ridge α/2 on orthonormal atoms: every component by 1 / (1 + α/2)."""
    atoms, x = torch.eye(3), torch.tensor([[100.0, 1.0, 0.01]])
    z = torch.linalg.solve(atoms @ atoms.T + ALPHA / 2 * torch.eye(3), (x @ atoms.T).T).T
    torch.testing.assert_close(z, x / (1 + SIGMA**2))
