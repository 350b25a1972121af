"""What every pair must satisfy as a Pyro program, for the tests of one architecture each."""

import math

import pyro
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO
from test_persistence import assert_same

from vsae import ClosedFormELBO, fit, load, save, scale_latents

HALF = 0.5**0.5


def leaves_of(module):
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def assert_equals_published(pair, x, published, constant, *, unused=()):
    """``published(x)``, summed over rows, plus ``constant``: value and every gradient to 1e-10."""
    loss = ClosedFormELBO()(pair.model, pair.guide)(x)
    torch.testing.assert_close(loss - constant, published, rtol=1e-10, atol=1e-10)
    leaves = leaves_of(pair)
    mine = torch.autograd.grad(loss, leaves.values(), retain_graph=True)
    theirs = torch.autograd.grad(published, leaves.values(), retain_graph=True)
    for name, ours, oracle in zip(leaves, mine, theirs, strict=True):
        torch.testing.assert_close(ours, oracle, rtol=1e-10, atol=1e-10, msg=name)
        assert oracle.abs().sum() > 0 or name in unused, name


def gaussian_constant(rows, d_model, sigma):
    """Of ``-log N(x; ·, σ²)`` in a batch."""
    return rows * d_model * math.log(sigma * math.sqrt(2 * math.pi))


def assert_pyros_elbos_agree(pair, x):
    ours = ClosedFormELBO()(pair.model, pair.guide)
    leaves = leaves_of(ours)
    mine = torch.autograd.grad(ours(x), leaves.values())
    for elbo in (TraceMeanField_ELBO(), Trace_ELBO()):
        theirs = elbo(pair.model, pair.guide)
        torch.testing.assert_close(ours(x), theirs(x))
        for name, a, b in zip(
            leaves, mine, torch.autograd.grad(theirs(x), leaves.values()), strict=True
        ):
            torch.testing.assert_close(a, b)
            assert a.abs().sum() > 0, name


def assert_svi_trains(pair, x, *, steps=30):
    before = {name: p.detach().clone() for name, p in pair.named_parameters()}
    svi = SVI(pair.pyro_model, pair.pyro_guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    losses = [svi.step(x) for _ in range(steps)]
    pyro.clear_param_store()
    assert losses[-1] < losses[0]
    for name, parameter in pair.named_parameters():
        assert not torch.equal(parameter, before[name]), name


def assert_only_latents_are_scaled(pair, x, latent):
    terms = ClosedFormELBO().terms(pair.model, pair.guide, x)
    assert latent < set(terms)
    expected = sum(0.25 * v if n in latent else v for n, v in terms.items())
    with scale_latents(0.25):
        for elbo in (ClosedFormELBO(), TraceMeanField_ELBO(), Trace_ELBO()):
            torch.testing.assert_close(elbo(pair.model, pair.guide)(x), expected)


def assert_masked_rows_do_not_count(pair, x):
    objective, valid = ClosedFormELBO()(pair.model, pair.guide), torch.arange(len(x)) < len(x) - 3
    with poutine.mask(mask=valid):
        masked = objective(x)
    torch.testing.assert_close(masked, objective(x[:-3]))


def assert_predictive_draws(pair, x, shapes):
    drawn = Predictive(pair.model, guide=pair.guide, num_samples=2)(x)
    found = {name: tuple(value.shape) for name, value in drawn.items()}
    assert found == {name: (2, *shape) for name, shape in shapes.items()}, found
    prior = Predictive(pair.model, num_samples=2)(x)
    assert all(value.isfinite().all() for value in prior.values())


def assert_export_keeps_gradients(pair, x):
    objective = ClosedFormELBO()(pair.model, pair.guide)
    with pyro.validation_enabled(False):
        step = torch.export.export(objective, (x,), strict=False).module()
    torch.testing.assert_close(step(x), objective(x))
    ours, theirs = leaves_of(objective), dict(step.named_parameters())
    mine = torch.autograd.grad(objective(x), ours.values())
    kept = torch.autograd.grad(step(x), [theirs[name] for name in ours])
    torch.testing.assert_close(kept, mine)


def assert_saved_is_loaded(pair, x, folder):
    fit(pair, x, steps=3, batch_size=len(x), lr=0.01).run(progress=False)
    assert_same(pair, load(save(pair, folder)), x)
