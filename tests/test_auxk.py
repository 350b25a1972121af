"""AuxK: the published loss, where its gradient goes, what counts as dead, and what it revives."""

import math

import numpy as np
import pyro
import pytest
import torch
from program_checks import (
    HALF,
    assert_equals_published,
    assert_masked_rows_do_not_count,
    assert_only_latents_are_scaled,
    assert_predictive_draws,
    assert_pyros_elbos_agree,
    assert_svi_trains,
    gaussian_constant,
    leaves_of,
)
from torch import nn

from priors import IsotropicPrior
from priors.replicas import stack
from vsae import (
    AmortizedGuide,
    Autoencoder,
    ClosedFormELBO,
    DeadLatents,
    DictionaryEncoder,
    LearnedNoise,
    LinearDecoder,
    ReLUPosterior,
    SparseAutoencoder,
    batch_topk_autoencoder,
    fit,
    l1_autoencoder,
    load,
    save,
    topk_autoencoder,
    with_auxk,
)
from vsae.errors import ConfigError
from vsae.posteriors import PointPosterior

K, D, ROWS, WIDTH, ALPHA, AFTER = 24, 7, 40, 3, 0.37, 100
SOME = [1, 4, 5, 9, 13, 17, 22]


def auxk(dead=SOME, k=4, alpha=ALPHA):
    """TopK with AuxK away from where it starts, in training mode, with these latents dead."""
    sae = with_auxk(topk_autoencoder(D, K, k=WIDTH), after=AFTER, k=k, coefficient=alpha)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    sae.project()
    sae.model.dead.silent_for[dead] = AFTER
    return sae.train()


def scores_of(sae, x):
    encoder = sae.guide.posterior.encoder
    return (x - sae.b_dec) @ encoder.W_enc.mT + encoder.b_enc


def keep(scores, k):
    """The rectified ``k`` greatest of each row, densely."""
    values, index = scores.topk(k, dim=-1)
    return torch.zeros_like(scores).scatter(-1, index, values.relu())


def published(sae, x, dead, k):
    """§2.4 of the paper: ``L + α ‖e - ê‖²``, ê of the k best dead latents; the sum over rows."""
    scores = scores_of(sae, x)
    reconstruction = keep(scores, WIDTH) @ sae.W_dec + sae.b_dec
    loss = (x - reconstruction).square().sum()
    if not len(dead):
        return loss
    mask = torch.full((K,), -torch.inf).index_fill(0, torch.tensor(dead), 0.0)
    error = (x - reconstruction).detach()
    explained = keep(scores + mask, min(k, len(dead))) @ sae.W_dec
    return loss + ALPHA * (error - explained).square().sum()


def constant(dead, alpha=ALPHA):
    """Of the ELBO: the normalisers of ``x`` and of ``residual``, and the uniform support."""
    found = gaussian_constant(ROWS, D, HALF) + ROWS * math.log(math.comb(K, WIDTH))
    return found + (gaussian_constant(ROWS, D, HALF / alpha**0.5) if len(dead) else 0.0)


@pytest.mark.parametrize(
    ("dead", "k"),
    [
        (SOME, 4),
        (SOME, 1),
        (SOME, 6),
        (SOME, 7),
        (SOME, 50),
        ([3], 4),
        ([], 4),
        (list(range(K)), 4),
    ],
    ids=["some", "one", "all but one", "as many", "fewer than k", "one dead", "none", "all"],
)
def test_it_is_the_published_loss(dead, k):
    sae, x = auxk(dead, k), torch.randn(ROWS, D)
    assert_equals_published(sae, x, published(sae, x, dead, k), constant(dead))


def test_the_auxiliary_gradient_goes_to_dead_latents_alone():
    """And to ``b_dec`` as these latents' encoder has it, once; not through the residual."""
    sae, x = auxk(), torch.randn(ROWS, D)
    terms = ClosedFormELBO().terms(sae.model, sae.guide, x)
    leaves = leaves_of(sae)
    found = torch.autograd.grad(terms["residual"], leaves.values(), allow_unused=True)
    grads = dict(zip(leaves, found, strict=True))
    encoder = "guide.posterior.posterior.encoder."
    assert set(leaves) == {
        "model.model.decoder.W_dec",
        "model.model.decoder.b_dec",
        f"{encoder}W_enc",
        f"{encoder}b_enc",
    }
    alive = [i for i in range(K) if i not in SOME]
    for name in ("model.model.decoder.W_dec", f"{encoder}W_enc", f"{encoder}b_enc"):
        assert not grads[name][alive].any(), name
        assert (grads[name][SOME].reshape(len(SOME), -1).abs().sum(-1) > 0).all(), name
    centre = -grads[f"{encoder}b_enc"] @ sae.guide.posterior.encoder.W_enc
    torch.testing.assert_close(grads["model.model.decoder.b_dec"], centre)


def test_the_bias_is_not_added_to_what_dead_latents_explain():
    sae, x = auxk(), torch.randn(ROWS, D)
    trace = pyro.poutine.trace(pyro.poutine.condition(sae.model, latents_of(sae, x))).get_trace(x)
    residual, mean = trace.nodes["residual"], trace.nodes["x"]["fn"].mean
    torch.testing.assert_close(residual["value"], x - mean)
    explained = trace.nodes["dead_z"]["value"] @ sae.W_dec[SOME]
    torch.testing.assert_close(residual["fn"].mean, explained)
    assert residual["fn"].scale == pytest.approx(HALF / ALPHA**0.5)


def latents_of(sae, x):
    return {name: q.mean for name, q in sae.guide.posterior(x).items()}


@pytest.mark.parametrize("prepare", [lambda sae: sae.eval(), lambda sae: sae])
def test_in_evaluation_or_without_dead_latents_it_is_the_model_alone(prepare):
    sae, x = prepare(auxk()), torch.randn(ROWS, D)
    if sae.training:
        sae.model.dead.silent_for.zero_()
    plain = Autoencoder(sae.model.model, AmortizedGuide(sae.guide.posterior.posterior))
    ours = ClosedFormELBO().terms(sae.model, sae.guide, x)
    theirs = ClosedFormELBO().terms(plain.model, plain.guide, x)
    assert set(ours) == {"support", "z", "x"}
    for name, term in theirs.items():
        torch.testing.assert_close(ours[name], term, rtol=0, atol=0)
    torch.testing.assert_close(sae.encode(x), plain.encode(x), rtol=0, atol=0)


def test_it_is_an_ordinary_pyro_program():
    sae, x = auxk(), torch.randn(ROWS, D)
    assert_pyros_elbos_agree(sae, x)
    assert_only_latents_are_scaled(sae, x, {"support", "z", "dead_z"})
    assert_masked_rows_do_not_count(sae, x)
    shapes = {"support": (ROWS, WIDTH), "z": (ROWS, WIDTH), "dead_z": (ROWS, len(SOME))}
    assert_predictive_draws(sae, x, shapes | {"x": (ROWS, D), "residual": (ROWS, D)})
    assert_svi_trains(sae, x)


def test_dead_latents_cost_nothing_themselves():
    sae, x = auxk(), torch.randn(ROWS, D)
    terms = ClosedFormELBO().site_terms(sae.model, sae.guide, x)
    assert not terms["dead_z"].any()
    torch.testing.assert_close(terms["residual"].shape, terms["x"].shape)


def test_rows_are_counted_not_steps_and_an_empty_slot_is_no_firing():
    rng, dead = np.random.default_rng(0), DeadLatents(K, after=50)
    silent = np.zeros(K, dtype=np.int64)
    for rows in (30, 1, 17, 40, 30):
        support = np.stack([rng.permutation(K // 2)[:5] for _ in range(rows)])
        z = rng.normal(size=(rows, 5)) * (rng.random((rows, 5)) < 0.05)
        dead.observe({"support": torch.from_numpy(support), "z": torch.from_numpy(z)})
        fired = {int(s) for row, value in zip(support, z, strict=True) for s in row[value != 0]}
        silent += rows
        silent[list(fired)] = 0
        np.testing.assert_array_equal(dead.silent_for, silent)
        np.testing.assert_array_equal(dead(), np.flatnonzero(silent >= 50))
    assert 0 < len(dead()) < K
    assert (silent == 0).any()


def test_dense_and_sparse_codes_count_alike():
    sae, x = topk_autoencoder(D, K, k=WIDTH), torch.randn(3, D)
    code, dense, sparse = sae.code(x), DeadLatents(K, after=1), DeadLatents(K, after=1)
    sparse.observe({"support": code.support, "z": code.z})
    dense.observe({"z": code.dense()})
    assert torch.equal(dense.silent_for, sparse.silent_for)
    assert len(dense()) > 0


@pytest.mark.parametrize("kill", ["weak", "negative"])
def test_fit_revives_what_still_scores_and_only_with_auxk(kill):
    """Weak latents come back; those below zero on every row have no gradient in any version."""
    x, alive, fired = torch.randn(2000, D), [i for i in range(K) if i not in SOME], {}
    for name in ("plain", "auxk"):
        torch.manual_seed(1)
        sae = topk_autoencoder(D, K, k=1)
        if name == "auxk":
            sae = with_auxk(sae, after=500, coefficient=1.0)
        encoder = sae.guide.posterior.encoder
        with torch.no_grad():  # every row has a positive score of an alive latent
            encoder.W_enc[alive[: 2 * D]] = torch.cat([torch.eye(D), -torch.eye(D)])
            if kill == "weak":
                encoder.W_enc[SOME] *= 0.05
            else:
                encoder.b_enc[SOME] = -100.0
        assert not sae.encode(x)[:, SOME].any()
        fit(sae, x, steps=100, batch_size=250, lr=1e-2).run(progress=False)
        fired[name] = (sae.encode(x)[:, SOME] != 0).any(0)
    assert not fired["plain"].any()
    assert bool(fired["auxk"].all()) == (kill == "weak"), fired["auxk"]


def test_other_codes_in_slots_take_it_too():
    x = torch.randn(200, D)
    sae = with_auxk(batch_topk_autoencoder(D, K, k=WIDTH), after=20)
    with torch.no_grad():
        sae.b_enc[SOME] = -100.0
    record = list(fit(sae, x, steps=5, batch_size=20))[-1]
    assert {"residual", "dead_z"} <= set(record.terms)


def test_it_is_saved_with_its_counter(tmp_path):
    sae, x = auxk(), torch.randn(ROWS, D)
    loaded = load(save(sae, tmp_path / "sae")).train()
    assert torch.equal(loaded.model.dead.silent_for, sae.model.dead.silent_for)
    assert loaded.model.dead is loaded.guide.posterior.dead
    mine, theirs = (ClosedFormELBO()(s.model, s.guide)(x) for s in (sae, loaded))
    assert torch.equal(mine, theirs)
    assert "residual" in ClosedFormELBO().terms(loaded.model, loaded.guide, x)


def test_impossible_numbers_are_refused():
    with pytest.raises(ConfigError) as raised:
        auxk(k=0)
    assert raised.value.code == "select.k"
    with pytest.raises(ConfigError) as raised:
        with_auxk(topk_autoencoder(D, K, k=WIDTH), after=0)
    assert raised.value.code == "dead.after"


def test_replicas_are_refused():
    """Of dense codes too, which could be stacked: replicas die of different latents."""
    decoder = LinearDecoder(K, D)
    model = SparseAutoencoder(decoder, IsotropicPrior(K), noise=0.3)
    pair = Autoencoder(model, AmortizedGuide(ReLUPosterior(DictionaryEncoder(decoder))))
    with pytest.raises(ConfigError) as raised:
        stack([with_auxk(pair, after=100)] * 2)
    assert raised.value.code == "replicas.dead"


def linked():
    decoder = LinearDecoder(K, D)
    model = SparseAutoencoder(decoder, IsotropicPrior(K), noise=0.3, link=nn.ReLU())
    return Autoencoder(model, AmortizedGuide(PointPosterior(DictionaryEncoder(decoder))))


@pytest.mark.parametrize(
    "refused",
    [
        lambda: topk_autoencoder(D, K, k=WIDTH, noise=LearnedNoise(0.5)),
        lambda: l1_autoencoder(D, K, l1=0.1),
        linked,
    ],
    ids=["learned noise", "linear encoder", "link"],
)
def test_a_pair_it_cannot_serve_is_refused(refused):
    with pytest.raises(ConfigError) as raised:
        with_auxk(refused(), after=100)
    assert raised.value.code == "auxk.pair"
