"""The controller of β: its rule by hand, targets reached whatever the pair, limits that show."""

import math

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from priors import IsotropicPrior, LaplacePrior, SpikeSlab, TruncatedNormal
from priors.replicas import stack
from vsae import TargetL0, fit, l1_autoencoder, topk_autoencoder, variational_autoencoder
from vsae.errors import VsaeError
from vsae.metrics import l0

K, D = 24, 8


def activations(rows=512, seed=0):
    """Three of K directions at a time, in amounts from a half to three halves, and noise."""
    generator = torch.Generator().manual_seed(seed)
    atoms = nn.functional.normalize(torch.randn(K, D, generator=generator), dim=-1)
    fires = torch.rand(rows, K, generator=generator).argsort(-1) < 3
    amounts = (0.5 + torch.rand(rows, K, generator=generator)) * fires
    return amounts @ atoms + 0.05 * torch.randn(rows, D, generator=generator)


def l1(seed=0):
    torch.manual_seed(seed)
    return l1_autoencoder(D, K, l1=0.2)


def rectified(seed=0):
    torch.manual_seed(seed)
    prior = IsotropicPrior(K, loc=-0.5, scale=0.5)
    return variational_autoencoder(D, prior, noise=0.3, link=nn.ReLU())


def code_of(make, *args, **settings):
    with pytest.raises(VsaeError) as caught:
        make(*args, **settings)
    return caught.value.code


def point(value):
    return dist.Delta(value, event_dim=1)


# The rule.


def shown(active, rows=10):
    """Posteriors of which ``active`` latents of each row are above zero at the mean."""
    mean = torch.where(torch.arange(K) < active, 0.7, -0.2).expand(rows, K)
    slots = torch.where(torch.arange(6) < active, -0.7, 0.0).expand(rows, 6)
    chance = torch.where(torch.arange(K) < active, 0.9, 0.1).expand(rows, K)
    slab = TruncatedNormal(torch.ones(rows, K), torch.ones(rows, K))
    return {
        "points": {"z": point(mean.relu())},
        "pre-activations": {"z": point(mean)},
        "gaussian": {"z": dist.Normal(mean, 3.0).to_event(1)},
        "slots": {"z": point(slots), "support": point(torch.zeros(rows, 6, dtype=torch.int64))},
        "spike and slab": {"z": SpikeSlab(dist.Bernoulli(chance).to_event(1), slab.to_event(1))},
    }


@pytest.mark.parametrize("family", shown(1))
def test_log_beta_moves_by_the_clipped_log_ratio(family):
    control, log = TargetL0(2.0, start=0.3, rate=0.25), math.log(0.3)
    for step, active in enumerate((0, 1, 2, 4, 6, 3)):
        assert control(step).item() == pytest.approx(math.exp(log))
        control.observe_posterior(shown(active)[family])
        log += 0.25 * (min(max(math.log(active / 2), -1.0), 1.0) if active else -1.0)
        assert control.log_beta.item() == pytest.approx(log)
        assert control.report()["l0"].item() == active


def test_the_l0_is_a_mean_over_rows():
    control = TargetL0(1.5, rate=1.0)
    control.observe_posterior({"z": point(torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 2.0]]))})
    assert control(1).item() == pytest.approx(1.0)  # (2 + 1) / 2 is the target
    assert control.report()["l0"].item() == pytest.approx(1.5)


def test_a_run_shows_the_codes_of_a_step_before_it_asks_for_the_next_beta():
    data, control = activations(), TargetL0(3.0, start=2.0, rate=0.1)
    pair, beta = l1(), 2.0
    for record in fit(pair, data, steps=8, batch_size=32, beta=control):
        said = record.to_dict()
        assert said["beta"] == pytest.approx(beta)
        beta *= math.exp(0.1 * min(max(math.log(said["codes/l0"] / 3.0), -1.0), 1.0))
    assert control.log_beta.exp().item() == pytest.approx(beta)


def test_beta_stays_between_its_limits_and_the_record_says_so():
    control = TargetL0(2.0, start=0.5, rate=1.0, limits=(0.2, 2.0))
    seen = []
    for active in (1, 1, 2, 6, 6, 6, 1):
        control.observe_posterior(shown(active)["points"])
        seen.append((round(control(0).item(), 6), control.report()["beta_limit"].item()))
    half = math.exp(math.log(0.5))  # the log ratio, clipped at -1 or not
    assert seen[0] == (pytest.approx(0.5 * half), 0.0)
    assert seen[1:3] == [(0.2, -1.0)] * 2
    assert seen[3] == (pytest.approx(0.2 * math.e, abs=1e-6), 0.0)
    assert seen[5] == (2.0, 1.0)
    assert seen[6] == (1.0, 0.0)  # no wind-up: it leaves the limit at once


# Targets.


@pytest.mark.parametrize(
    ("make", "target", "steps"), [(l1, 3.0, 1200), (rectified, 2.0, 1800), (rectified, 5.0, 1800)]
)
def test_a_target_is_reached(make, target, steps):
    """Within 3 % on average over the last 500 steps, and 8 % for codes of all data at the end.

    Batches of 128 rows of L0 about L with a spread of about √L give means known to √(L/128)/L, at
    most 6 % each; over 500 steps the controller's own memory, 1/η = 50 steps, leaves 10 of them.
    """
    data, control = activations(), TargetL0(target, rate=0.02, limits=(0.1, 30.0))
    pair = make()
    run = fit(pair, data, steps=steps, batch_size=128, lr=3e-3, beta=control)
    records = run.run(progress=False)
    late = [record["codes/l0"] for record in records[-500:]]
    assert sum(late) / 500 == pytest.approx(target, rel=0.03)
    assert float(l0(pair.encode(data))) == pytest.approx(target, rel=0.08)
    assert all(record["codes/beta_limit"] == 0 for record in records[-500:])


def test_replicas_reach_targets_of_their_own_as_each_would_alone():
    data, targets = activations(), (2.0, 4.0, 8.0)
    together = stack([l1(seed) for seed in range(3)])
    control = TargetL0(targets, start=2.0, rate=0.05)
    settings = {"steps": 60, "batch_size": 32, "lr": 0.01}
    records = fit(together, data, seed=range(3), beta=control, **settings).run(progress=False)
    for r, target in enumerate(targets):
        own = TargetL0(target, start=2.0, rate=0.05)
        alone = fit(l1(r), data, seed=r, beta=own, **settings).run(progress=False)
        for name in ("beta", "codes/l0", "codes/beta_limit", "elbo/loss"):
            mine = [record[name][r] for record in records]
            torch.testing.assert_close(mine, [record[name] for record in alone])


def test_a_target_out_of_reach_ends_at_a_limit():
    """TopK's L0 is its k; more than that cannot be had by less of a penalty."""
    pair = topk_autoencoder(D, K, k=3, prior=LaplacePrior(K))
    control = TargetL0(9.0, rate=1.0, limits=(0.01, 1.0))
    records = fit(pair, activations(), steps=12, batch_size=32, beta=control).run(progress=False)
    assert records[-1]["codes/beta_limit"] == -1
    assert records[-1]["codes/l0"] <= 3
    assert records[-1]["beta"] == pytest.approx(0.01)


# Settings.


def test_settings_that_cannot_be():
    assert code_of(TargetL0, 0.0) == "prior.bad_target"
    assert code_of(TargetL0, (1.0, -1.0)) == "prior.bad_target"
    assert code_of(TargetL0, 1.0, start=0.0) == "prior.bad_start"
    assert code_of(TargetL0, 1.0, rate=math.inf) == "prior.bad_rate"
    for limits in ((2.0, 3.0), (0.1, 0.5), (0.0, 2.0), (1.0, math.inf)):
        assert code_of(TargetL0, 1.0, limits=limits) == "target_l0.limits"


def test_there_is_one_target_per_replica():
    for target, pair, seeds in ((2.0, stack([l1(), l1()]), [0, 1]), ((2.0, 3.0), l1(), 0)):
        settings = {"steps": 1, "batch_size": 8, "seed": seeds, "beta": TargetL0(target)}
        assert code_of(fit, pair, activations(), **settings) == "target_l0.replicas"


def test_its_state_is_a_state_dict():
    control = TargetL0((2.0, 4.0), rate=0.5)
    control.observe_posterior({"z": point(torch.ones(2, 5, K))})
    again = TargetL0((2.0, 4.0), rate=0.5)
    again.load_state_dict(control.state_dict())
    torch.testing.assert_close(again(1), control(1))
    assert "target=(2.0, 4.0)" in repr(again)


@pytest.mark.float32
def test_in_float32():
    control = TargetL0(3.0, start=1.0, rate=0.05)
    records = fit(l1(), activations(), steps=40, batch_size=64, beta=control).run(progress=False)
    assert control.log_beta.dtype == torch.float32
    assert records[-1]["beta"] > 1.0
