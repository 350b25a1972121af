"""The loop: replicas equal models trained alone; what is the user's stays; failures are named."""

import itertools
import warnings

import pyro
import pytest
import torch
from pairs import PAIRS, D, K, pair, ring
from torch import nn

from priors import Graph, GraphLaplacianPrior, IsotropicPrior
from priors.replicas import stack, unstack
from vsae import Autoencoder, ClosedFormELBO, LinearWarmup, fit, scale_latents
from vsae.batches import Batches, stream
from vsae.errors import CollapseWarning, DataError, NonFiniteLossError, NonFiniteWarning, VsaeError
from vsae.run import Run

each_pair = pytest.mark.parametrize(("prior", "posterior"), PAIRS)
R = 3


@each_pair
def test_a_replica_is_the_same_model_trained_alone(prior, posterior):
    data = torch.randn(R, 40, D)
    settings = {"steps": 12, "batch_size": 8, "lr": 0.05, "clip": 3.0, "beta": LinearWarmup(5)}
    together = stack([pair(prior, posterior, seed=s) for s in range(R)])
    records = fit(together, data, seed=range(R), **settings).run(progress=False)
    for r, replica in enumerate(unstack(together)):
        alone = pair(prior, posterior, seed=r)
        losses = fit(alone, data[r], seed=r, **settings).run(progress=False)
        torch.testing.assert_close(
            [record["elbo/loss"][r] for record in records],
            [record["elbo/loss"] for record in losses],
            rtol=1e-11,
            atol=1e-11,
        )
        for (name, mine), (_, theirs) in zip(
            replica.named_parameters(), alone.named_parameters(), strict=True
        ):
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10, msg=name)


def test_replicas_may_have_different_graphs():
    graphs = [ring(), Graph.blocks((2, 4)), Graph.tree([-1, 0, 0, 1, 1, 2])]

    def made(r):
        autoencoder = pair("graph", seed=r)
        autoencoder.model.prior = GraphLaplacianPrior(graphs[r], ridge=0.5 + r, learnable=True)
        return autoencoder

    data = torch.randn(40, D)
    together = stack([made(r) for r in range(R)])
    fit(together, data, steps=12, batch_size=8, lr=0.05, seed=range(R)).run(progress=False)
    for r, replica in enumerate(unstack(together)):
        alone = made(r)
        fit(alone, data, steps=12, batch_size=8, lr=0.05, seed=r).run(progress=False)
        torch.testing.assert_close(replica.W_dec, alone.W_dec, rtol=1e-9, atol=1e-10)
        assert replica.model.prior.graph == graphs[r]


def test_a_step_is_adam_on_the_elbo_per_row():
    """The loop against the same step written by hand."""
    data = torch.randn(8, D)
    trained, by_hand = pair(posterior="point"), pair(posterior="point")
    fit(trained, data, steps=3, batch_size=8, lr=0.05, clip=2.0).run(progress=False)
    optimizer = torch.optim.Adam([p for p in by_hand.parameters() if p.requires_grad], lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        (ClosedFormELBO()(by_hand.model, by_hand.guide)(data) / 8).backward()
        atoms = by_hand.W_dec
        atoms.grad -= (atoms.grad * atoms).sum(-1, keepdim=True) * atoms
        nn.utils.clip_grad_norm_(by_hand.parameters(), 2.0)
        optimizer.step()
        atoms.data /= atoms.data.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(trained.state_dict(), by_hand.state_dict(), rtol=1e-5, atol=1e-5)


def test_beta_weighs_the_kl():
    data, beta = torch.randn(8, D), 0.3
    autoencoder = pair(posterior="point")
    with scale_latents(beta):
        terms = ClosedFormELBO().terms(autoencoder.model, autoencoder.guide, data)
    record = next(iter(fit(autoencoder, data, steps=1, batch_size=8, beta=lambda _: beta)))
    torch.testing.assert_close(record.loss * 8, sum(terms.values()).detach())


def test_the_users_store_and_settings_stay_as_they_were():
    pyro.param("mine", torch.ones(2))
    for _ in fit(pair(), torch.randn(40, D), steps=3, batch_size=8):
        assert pyro.settings.get("validate_poutine")  # off in a step, as it was between steps
    assert list(pyro.get_param_store()) == ["mine"]
    pyro.clear_param_store()


def test_training_draws_nothing_from_the_global_generator():
    autoencoder, data = pair(), torch.randn(40, D)
    before = torch.get_rng_state()
    fit(autoencoder, data, steps=3, batch_size=8).run(progress=False)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loss_varies_with_the_noise_seed_only_where_noise_is():
    data = torch.randn(8, D)
    for posterior, differs in (("gaussian", True), ("point", False)):
        losses = set()
        for seed in (1, 2):
            run = fit(pair(posterior=posterior), data, steps=1, batch_size=8, seed=seed)
            losses.add(round(next(iter(run)).loss.item(), 9))  # one batch: order changes rounding
        assert (len(losses) == 2) is differs


def test_two_models_in_one_process_are_independent():
    data, first = torch.randn(40, D), pair(seed=1)
    fit(first, data, steps=2, batch_size=8).run(progress=False)
    kept = {name: value.clone() for name, value in first.state_dict().items()}
    fit(pair(seed=2), data, steps=2, batch_size=8).run(progress=False)
    assert all(torch.equal(value, kept[name]) for name, value in first.state_dict().items())


def state(autoencoder):
    return {name: value.clone() for name, value in autoencoder.state_dict().items()}


def test_a_non_finite_batch_keeps_parameters_whose_loss_was_finite():
    data = torch.randn(40, D)
    autoencoder = pair()
    run = iter(fit(autoencoder, data, steps=9, batch_size=40))
    next(run)
    kept = state(autoencoder)
    next(run)  # its loss, at `kept`, was finite
    data[7, 2] = torch.inf  # behind the door check
    with pytest.raises(NonFiniteLossError, match=r"step 2: .* site 'x' in 1 rows, data row 7") as e:
        next(run)
    assert e.value.code == "loss.nonfinite"
    assert e.value.context == {"step": 2, "rows": {"z": [7], "x": [7]}}
    assert all(torch.equal(value, kept[name]) for name, value in state(autoencoder).items())


@pytest.mark.parametrize("settings", [{"lr": 1e200}, {"lr_schedule": lambda _: float("nan")}])
def test_divergence_leaves_a_model_that_works(settings):
    data, autoencoder = torch.randn(40, D), pair("isotropic")
    with pytest.raises(NonFiniteLossError):
        fit(autoencoder, data, steps=50, batch_size=8, **settings).run(progress=False)
    assert autoencoder.elbo(data).isfinite()


def test_a_non_finite_replica_freezes_alone():
    data = torch.randn(R, 40, D)
    together, undisturbed = (stack([pair(seed=s) for s in range(R)]) for _ in range(2))
    fit(undisturbed, data.clone(), steps=6, batch_size=40, seed=range(R)).run(progress=False)
    run = fit(together, data, steps=6, batch_size=40, seed=range(R))
    steps = iter(run)
    next(steps), next(steps)
    kept = unstack(together)[1].W_dec.detach().clone()
    next(steps)  # the last finite loss of replica 1, at `kept`
    data[1, 0, 0] = torch.nan
    with pytest.warns(NonFiniteWarning, match="replica 1 is not finite at step 3"):
        next(steps)
    data[1, 0, 0] = 0.0  # finite again, but its run is over
    list(steps)
    assert run.failed == {1: 3}
    torch.testing.assert_close(unstack(together)[1].W_dec, kept, rtol=1e-14, atol=1e-14)
    for r in (0, 2):
        torch.testing.assert_close(unstack(together)[r].W_dec, unstack(undisturbed)[r].W_dec)


def test_collapse_is_named():
    autoencoder = pair("isotropic", noise=100.0)
    with pytest.warns(CollapseWarning, match="posterior collapse: 0 % of latents"):
        fit(autoencoder, torch.randn(64, D), steps=200, batch_size=64, lr=0.05).run(progress=False)


def test_no_collapse_is_claimed_where_latents_speak():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(pair(noise=0.1), 3 * torch.randn(64, D), steps=50, batch_size=64).run(progress=False)


def test_atoms_stay_on_their_sphere():
    autoencoder = pair()
    fit(autoencoder, torch.randn(40, D), steps=5, batch_size=8, lr=0.1).run(progress=False)
    torch.testing.assert_close(autoencoder.W_dec.norm(dim=-1), torch.ones(K))


def test_an_epoch_visits_every_row_once_and_depends_on_its_seed():
    batches = Batches(torch.arange(12.0)[:, None], 4, seeds=[3])
    epochs = [torch.cat([batches(3 * e + t) for t in range(3)]).flatten() for e in range(2)]
    assert all(torch.equal(epoch.sort().values, torch.arange(12.0)) for epoch in epochs)
    assert not torch.equal(*epochs)
    later = Batches(torch.arange(12.0)[:, None], 4, seeds=[3])
    assert torch.equal(later(4), batches(4))  # any step, without those before it
    assert not torch.equal(Batches(torch.arange(12.0)[:, None], 4, seeds=[4])(0), batches(0))


def test_first_rows_are_uniform():
    """chi-square of which row comes first, over 2 000 seeds: 12 cells, 99.99 % bound 38.9."""
    first = [torch.randperm(12, generator=stream(seed, 1))[0].item() for seed in range(2000)]
    count = torch.bincount(torch.tensor(first), minlength=12).double()
    assert ((count - 2000 / 12).square() / (2000 / 12)).sum() < 38.9


def frozen():
    return pair("isotropic", "point").requires_grad_(False)


def lopsided():
    """A prior over one latent would broadcast over six without a word."""
    autoencoder = pair()
    autoencoder.model.prior = IsotropicPrior(1)
    return autoencoder


BAD = {
    "data.width": lambda: fit(pair(), torch.randn(40, D + 1), steps=1, batch_size=8),
    "data.rank": lambda: Batches(torch.randn(4), 2, [0]),
    "data.replicas": lambda: Batches(torch.randn(2, 40, D), 2, [0]),
    "data.dtype": lambda: fit(pair(), torch.randn(40, D).float(), steps=1, batch_size=8),
    "data.empty": lambda: fit(pair(), torch.randn(40, D), steps=1, batch_size=41),
    "data.nonfinite": lambda: fit(pair(), torch.full((40, D), torch.nan), steps=1, batch_size=8),
    "fit.seeds": lambda: fit(pair(), torch.randn(40, D), steps=1, batch_size=8, seed=[1, 2]),
    "fit.setting": lambda: fit(pair(), torch.randn(40, D), steps=-1, batch_size=8),
    "fit.optimizer": lambda: fit(frozen(), torch.randn(40, D), steps=1, batch_size=8),
    "pair.latents": lambda: fit(lopsided(), torch.randn(40, D), steps=1, batch_size=8),
    "model.dtype": lambda: fit(pair().bfloat16(), torch.randn(40, D), steps=1, batch_size=8),
}


@pytest.mark.parametrize("code", BAD)
def test_bad_input(code):
    with pytest.raises(VsaeError) as caught:
        BAD[code]()
    assert caught.value.code == code


@pytest.mark.parametrize(
    "wrong",
    [
        {"clip": 0.0},
        {"clip": -1.0},
        {"clip": float("nan")},
        {"beta": -0.1},
        {"lr": 0.0},
        {"lr": -1.0},
        {"lr_schedule": float("nan")},
        {"beta": float("inf")},
    ],
)
def test_impossible_settings(wrong):
    with pytest.raises(VsaeError) as caught:
        fit(pair(), torch.randn(40, D), steps=1, batch_size=8, **wrong)
    assert caught.value.code == "fit.setting"
    assert caught.value.context.keys() == wrong.keys()


def test_one_model_takes_one_data_set():
    with pytest.raises(VsaeError) as caught:
        fit(pair(), torch.randn(1, 40, D), steps=1, batch_size=8)
    assert caught.value.code == "data.replicas"


def test_a_stack_of_one_is_that_one():
    data = torch.randn(1, 40, D)
    together, alone = stack([pair()]), pair()
    fit(together, data, steps=4, batch_size=8, seed=[5]).run(progress=False)
    fit(alone, data[0], steps=4, batch_size=8, seed=5).run(progress=False)
    torch.testing.assert_close(unstack(together)[0].W_dec, alone.W_dec)


def test_replicas_may_share_data_and_differ_in_beta():
    data, betas = torch.randn(40, D), torch.tensor([[0.1], [1.0], [3.0]])
    together = stack([pair(seed=s) for s in range(R)])
    run = fit(together, data, steps=4, batch_size=8, seed=range(R), beta=lambda _: betas)
    assert run.run(progress=False)[-1]["beta"] == betas.flatten().tolist()
    for r, replica in enumerate(unstack(together)):
        alone = pair(seed=r)
        fit(alone, data, steps=4, batch_size=8, seed=r, beta=betas[r].item()).run(progress=False)
        torch.testing.assert_close(replica.W_dec, alone.W_dec)


def test_the_elbo_of_a_stack_is_one_number_per_replica():
    from vsae import AffineNormalizer

    data = 3 * torch.randn(40, D) + 1
    pairs = [pair("cholesky", "point", seed=s) for s in range(R)]
    for r, autoencoder in enumerate(pairs):
        autoencoder.normalizer = AffineNormalizer.fit(data * (r + 1))
    torch.testing.assert_close(stack(pairs).elbo(data), torch.stack([p.elbo(data) for p in pairs]))


def test_a_users_optimiser_is_used_and_given_back():
    autoencoder, data = pair(posterior="point"), torch.randn(8, D)
    optimizer = torch.optim.SGD(autoencoder.parameters(), lr=0.05)
    before = state(autoencoder)
    settings = {"steps": 1, "batch_size": 8, "optimizer": optimizer}
    fit(autoencoder, data, lr_schedule=0.5, **settings).run(progress=False)
    gradient = autoencoder.guide.posterior.encoder.W_enc.grad
    moved = before["guide.posterior.encoder.W_enc"] - 0.5 * 0.05 * gradient
    torch.testing.assert_close(autoencoder.guide.posterior.encoder.W_enc.detach(), moved)
    assert optimizer.param_groups[0]["lr"] == 0.05
    for refused in (
        {"lr": 0.1, "optimizer": optimizer},
        {"optimizer": torch.optim.LBFGS(autoencoder.parameters())},
    ):
        with pytest.raises(VsaeError) as caught:
            fit(autoencoder, data, steps=1, batch_size=8, **refused)
        assert caught.value.code == "fit.optimizer"


def test_iterating_again_goes_on():
    data = torch.randn(40, D)
    broken, whole = pair(), pair()
    run = fit(broken, data, steps=7, batch_size=8)
    first = [record.step for record in itertools.islice(run, 3)]
    assert first + [record.step for record in run] == list(range(7))
    fit(whole, data, steps=7, batch_size=8).run(progress=False)
    torch.testing.assert_close(broken.W_dec, whole.W_dec)
    assert list(run) == []


def test_an_interrupted_run_goes_on_where_it_stopped(monkeypatch):
    data = torch.randn(40, D)
    run, update = fit(pair(), data, steps=7, batch_size=8), Run._update

    def interrupted(self, step, *rest):
        if step == 3 and not self.interrupted:
            self.interrupted = True
            raise KeyboardInterrupt
        update(self, step, *rest)

    monkeypatch.setattr(Run, "_update", interrupted)
    assert [record["step"] for record in run.run(progress=False)] == [0, 1, 2]
    assert run.interrupted
    monkeypatch.undo()
    assert [record["step"] for record in run.run(progress=False)] == list(range(7))
    assert not run.interrupted


def test_validation_is_put_back_even_after_an_error():
    for on in (True, False):
        pyro.enable_validation(on)
        data = torch.randn(40, D)
        run = iter(fit(pair(), data, steps=3, batch_size=40))
        next(run)
        assert pyro.settings.get("validate_poutine") is on
        data[0, 0] = torch.nan
        with pytest.raises(NonFiniteLossError):
            next(run)
        assert pyro.settings.get("validate_poutine") is on


def test_batches_of_one_row_claim_no_collapse():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(pair(noise=0.1), 3 * torch.randn(64, D), steps=3, batch_size=1).run(progress=False)


def test_the_first_bad_value_is_named():
    data = torch.zeros(20, D)
    data[13, 2] = -torch.inf
    with pytest.raises(DataError, match="row 13, column 2"):
        fit(pair(), data, steps=1, batch_size=8)


@pytest.mark.float32
def test_float32():
    autoencoder = pair()
    assert autoencoder.W_dec.dtype == torch.float32
    records = fit(autoencoder, torch.randn(200, D), steps=200, batch_size=50).run(progress=False)
    assert all(p.dtype == torch.float32 for p in autoencoder.parameters())
    assert records[-1]["elbo/loss"] < records[0]["elbo/loss"]


def test_a_normaliser_travels_with_the_pair():
    from vsae import AffineNormalizer

    data = 7 * torch.randn(200, D) + 3
    autoencoder = pair()
    autoencoder = Autoencoder(autoencoder.model, autoencoder.guide, AffineNormalizer.fit(data))
    fit(autoencoder, data, steps=300, batch_size=100, lr=0.02).run(progress=False)
    residual = (autoencoder(data) - data).square().mean()
    assert residual < 0.5 * data.var()
