"""Ways of selecting, each against a dense one-liner: codes, gradients, costs, edge cases."""

import pyro
import pytest
import torch
from slot_pairs import ROWS, SLOT_PAIRS, WIDTH, D, K, dictionary, slot_pair, topk

from priors import BernoulliPrior
from vsae import (
    AmortizedGuide,
    Autoencoder,
    BatchTopKPosterior,
    ClosedFormELBO,
    JumpReLUPosterior,
    ReLUPosterior,
    ScreenedEncoder,
    SparseAutoencoder,
    SparseCode,
    TopKPosterior,
    batch_topk_autoencoder,
    fit,
    jumprelu_autoencoder,
    with_auxk,
)
from vsae.errors import ConfigError, NonFiniteDataError


def scores(encoder, x):
    return (x - encoder.decoder.b_dec) @ encoder.W_enc.mT + encoder.b_enc


def leaves(encoder):
    return [encoder.W_enc, encoder.b_enc, encoder.decoder.b_dec]


def dense(posterior, x):
    sites = posterior(x)
    return SparseCode(sites["support"].v, sites["z"].v, K).dense()


def agree(ours, oracle, wanted):
    """Same codes, and same gradients of a generic function of them."""
    torch.testing.assert_close(ours, oracle)
    weights = torch.randn_like(oracle)
    mine, reference = (torch.autograd.grad((weights * z).sum(), wanted) for z in (ours, oracle))
    torch.testing.assert_close(mine, reference)


@pytest.mark.parametrize("k", [1, WIDTH, K - 1, K])
def test_topk(k):
    _, encoder = dictionary()
    x = torch.randn(ROWS, D)
    best = scores(encoder, x).topk(k, dim=-1)
    oracle = torch.zeros(ROWS, K).scatter(-1, best.indices, best.values.relu())
    agree(dense(TopKPosterior(encoder, k=k), x), oracle, leaves(encoder))


def test_batch_topk_in_training():
    posterior = SLOT_PAIRS["batch topk"]().guide.posterior
    encoder, x = posterior.encoder, torch.randn(ROWS, D)
    pre = scores(encoder, x).relu()
    threshold = pre.flatten().topk(ROWS * WIDTH).values[-1]
    assert posterior.overflow(x) == 0
    code = dense(posterior, x)
    assert code.count_nonzero() == ROWS * WIDTH
    agree(code, pre * (pre >= threshold), leaves(encoder))


def test_batch_topk_of_a_row_does_not_depend_on_its_company_in_evaluation():
    posterior = SLOT_PAIRS["batch topk"]().guide.posterior
    x = torch.randn(ROWS, D)
    posterior.observe({n: q.v for n, q in posterior(x).items()})
    in_training = dense(posterior, x)
    posterior.threshold.mul_(1 - 1e-9)  # the least active is on it: products round
    posterior.eval()
    torch.testing.assert_close(dense(posterior, x), in_training)  # one batch seen: its own cut
    alone = torch.cat([dense(posterior, row[None]) for row in x])
    torch.testing.assert_close(alone, in_training)


def test_batch_topk_threshold_is_a_mean_of_the_least_active():
    posterior, weights = SLOT_PAIRS["batch topk"]().guide.posterior, torch.zeros(0)
    least = []
    for n in range(1, 8):
        z = posterior(torch.randn(ROWS, D))["z"].v
        least.append(z[z > 0].min())
        posterior.observe({"z": z})
        weights = torch.cat([weights * (1 - 10 / (9 + n)), torch.tensor([10 / (9 + n)])])
    torch.testing.assert_close(weights.sum(), torch.ones(()))  # a mean, from the first batch on
    torch.testing.assert_close(posterior.threshold, weights @ torch.stack(least))
    before = posterior.threshold.clone()
    posterior.observe({"z": torch.zeros(3, WIDTH)})  # says nothing
    assert posterior.threshold == before
    assert posterior.batches == 7


def test_a_threshold_that_is_never_reached_gives_the_decoders_bias():
    pair = SLOT_PAIRS["batch topk"]().eval()
    pair.guide.posterior.threshold.fill_(1e9)
    x = torch.randn(ROWS, D)
    assert not pair.encode(x).any()
    assert (pair.code(x).l0() == 0).all()
    torch.testing.assert_close(pair(x), pair.b_dec.expand_as(x))
    assert pair.elbo(x).isfinite()


def test_overflow_counts_rows_that_keep_all_their_slots():
    _, encoder = dictionary()
    posterior = BatchTopKPosterior(encoder, k=WIDTH, width=WIDTH).train()
    x = torch.randn(ROWS, D)
    full = (dense(posterior, x) > 0).sum(-1) == WIDTH
    assert posterior.overflow(x) == full.sum() > 0


def test_jumprelu():
    _, encoder = dictionary()
    posterior = JumpReLUPosterior(encoder, width=K, threshold=1.0, bandwidth=0.5)
    with torch.no_grad():
        posterior.log_threshold += 0.2 * torch.randn(K)
    x = torch.randn(ROWS, D)
    theta, pre = posterior.threshold, scores(encoder, x)
    code = dense(posterior, x)
    torch.testing.assert_close(code, pre * (pre > theta))
    band = (pre - theta).abs() < 0.25
    gradient = torch.autograd.grad(code.sum(), posterior.log_threshold)[0]
    torch.testing.assert_close(gradient, -(theta.square() * band / 0.5).sum(0))  # dθ/d log θ = θ
    into_encoder = torch.autograd.grad(dense(posterior, x).sum(), encoder.b_enc)[0]
    torch.testing.assert_close(into_encoder, (pre > theta).double().sum(0))


def test_jumprelu_pays_for_every_active_latent():
    rate = 0.02
    activity = BernoulliPrior(K, rate=rate)
    pair = slot_pair(
        lambda e: JumpReLUPosterior(e, width=K, threshold=1.0, bandwidth=0.5),
        width=K,
        activity=activity,
    )
    posterior, x = pair.guide.posterior, torch.randn(ROWS, D)
    theta, pre = posterior.threshold, scores(posterior.encoder, x)
    cost = ClosedFormELBO().terms(pair.model, pair.guide, x)["active"]
    price = torch.tensor(1 / rate - 1).log()  # λ = logit(1 - rate)
    l0, idle = (pre > theta).sum(), -ROWS * K * torch.tensor(1 - rate).log()
    torch.testing.assert_close(cost, price * l0 + idle)
    band = (pre - theta).abs() < 0.25
    pushed = torch.autograd.grad(cost, posterior.log_threshold)[0]
    torch.testing.assert_close(pushed, -price * (theta * band / 0.5).sum(0))


@pytest.mark.parametrize("kind", SLOT_PAIRS)
def test_the_pair_writes_dense_codes_and_slots_alike(kind):
    pair, x = SLOT_PAIRS[kind]().eval(), torch.randn(2, 5, D)
    code = pair.code(x)
    assert code.support.shape == code.z.shape == (2, 5, pair.model.width)
    assert torch.equal(code.dense(), pair.encode(x))
    assert torch.equal(code.l0(), (pair.encode(x) != 0).sum(-1))
    torch.testing.assert_close(pair.decode(code), pair.decode(code.dense()))
    torch.testing.assert_close(pair(x), pair.decode(pair.encode(x)))
    torch.testing.assert_close(pair.encode(x[0, 0]), pair.encode(x)[0, 0])


def test_weights_have_the_fields_shapes():
    pair = topk()
    assert pair.W_enc.shape == (D, K)
    assert pair.b_enc.shape == (K,)
    x = torch.randn(ROWS, D)
    by_hand = ((x - pair.b_dec) @ pair.W_enc + pair.b_enc).topk(WIDTH).values.relu()
    torch.testing.assert_close(pair.encode(x).sum(-1), by_hand.sum(-1))


@pytest.mark.parametrize("kind", SLOT_PAIRS)
def test_fit_trains_and_the_pair_always_evaluates(kind):
    pair, x = SLOT_PAIRS[kind]().eval(), torch.randn(200, D)
    code = pair.encode(x)
    assert torch.equal(pair.train().encode(x), code)
    assert pair.training
    modes = [pair.training for _ in fit(pair.eval(), x, steps=3, batch_size=50)]
    assert modes == [True] * 3
    before = pair.elbo(x)
    fit(pair, x, steps=60, batch_size=50, lr=1e-2).run(progress=False)
    assert pair.elbo(x) > before


@pytest.mark.parametrize("kind", SLOT_PAIRS)
def test_svi_trains_the_model_that_fit_trains(kind):
    """Same sites, same observers: the threshold is learned, and the code has the L0 of training."""
    pair, x = SLOT_PAIRS[kind](), torch.randn(400, D)
    svi = pyro.infer.SVI(
        pair.pyro_model, pair.pyro_guide, pyro.optim.Adam({"lr": 1e-4}), ClosedFormELBO()
    )
    for _ in range(30):
        svi.step(x)
    pair.project()
    pyro.clear_param_store()
    if kind == "batch topk":
        assert pair.guide.posterior.batches == 30
        assert 0.7 * WIDTH < pair.code(x).l0().double().mean() < 1.4 * WIDTH


def test_fit_teaches_the_threshold():
    pair = SLOT_PAIRS["batch topk"]()
    fit(pair, torch.randn(400, D), steps=30, batch_size=50, lr=1e-4).run(progress=False)
    assert pair.guide.posterior.batches == 30
    assert pair.guide.posterior.threshold > 0
    l0 = pair.code(torch.randn(2000, D)).l0().double().mean()
    assert 0.7 * WIDTH < l0 < 1.4 * WIDTH


@pytest.mark.parametrize("k", [0, -1, K + 1])
def test_impossible_k(k):
    _, encoder = dictionary()
    with pytest.raises(ConfigError) as caught:
        TopKPosterior(encoder, k=k)(torch.randn(3, D))
    assert caught.value.code == "select.k"


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda e: BatchTopKPosterior(e, k=3, width=2), "posterior.width"),
        (lambda e: BatchTopKPosterior(e, k=0, width=2), "posterior.width"),
        (lambda e: JumpReLUPosterior(e, width=2, threshold=0.0), "posterior.threshold"),
        (lambda e: JumpReLUPosterior(e, width=2, bandwidth=-1.0), "posterior.threshold"),
    ],
)
def test_impossible_settings(make, code):
    with pytest.raises(ConfigError) as caught:
        make(dictionary()[1])
    assert caught.value.code == code


def test_widths_must_agree():
    _, encoder = dictionary()
    model = topk().model
    pair = Autoencoder(model, AmortizedGuide(TopKPosterior(encoder, k=WIDTH + 1)))
    with pytest.raises(ConfigError) as caught:
        fit(pair, torch.randn(50, D), steps=1, batch_size=10)
    assert caught.value.code == "pair.width"


def test_dense_and_slots_do_not_mix():
    _, encoder = dictionary()
    mixed = Autoencoder(topk().model, AmortizedGuide(ReLUPosterior(encoder)))
    dense_model = SparseAutoencoder(topk().model.decoder, topk().model.prior, noise=0.5)
    other = Autoencoder(dense_model, AmortizedGuide(TopKPosterior(encoder, k=WIDTH)))
    for pair in (mixed, other):
        with pytest.raises(ConfigError) as caught:
            fit(pair, torch.randn(50, D), steps=1, batch_size=10)
        assert caught.value.code == "pair.slots"


def test_activity_has_as_many_latents():
    pair = jumprelu_autoencoder(D, K, l0=0.1, width=K)
    pair.model.activity = BernoulliPrior(2 * K, rate=0.1)
    with pytest.raises(ConfigError) as caught:
        fit(pair, torch.randn(50, D), steps=1, batch_size=10)
    assert caught.value.code == "pair.latents"


def test_any_price_of_an_active_latent():
    prior = jumprelu_autoencoder(D, K, l0=5000.0).model.activity
    torch.testing.assert_close(prior.logits, torch.full((K,), -5000.0))


def test_stacks_are_refused():
    from priors.replicas import stack

    with pytest.raises(ConfigError) as caught:
        stack([topk(), topk()])
    assert caught.value.code == "replicas.slots"


def test_non_finite_activations_are_refused_before_training():
    x = torch.randn(50, D)
    x[3, 2] = torch.nan
    with pytest.raises(NonFiniteDataError):
        fit(topk(), x, steps=1, batch_size=10)


def test_ties_fill_distinct_slots():
    _, encoder = dictionary()
    with torch.no_grad():
        encoder.W_enc.zero_()
        encoder.b_enc.fill_(1.0)
    support = TopKPosterior(encoder, k=WIDTH)(torch.randn(ROWS, D))["support"].v
    assert all(len(set(row)) == WIDTH for row in support.tolist())


@pytest.mark.float32
def test_the_screened_encoder_selects_the_same():
    _, encoder = dictionary()
    screened = ScreenedEncoder(encoder.decoder)
    screened.load_state_dict(encoder.state_dict())
    x = torch.randn(ROWS, D)
    ours, oracle = (TopKPosterior(e, k=WIDTH) for e in (screened, encoder))
    torch.testing.assert_close(dense(ours, x), dense(oracle, x))
    weights = torch.randn(ROWS, K)
    mine = torch.autograd.grad((dense(ours, x) * weights).sum(), leaves(screened))
    theirs = torch.autograd.grad((dense(oracle, x) * weights).sum(), leaves(encoder))
    torch.testing.assert_close(mine, theirs)


def test_records_say_what_the_codes_are_like():
    pair = with_auxk(batch_topk_autoencoder(D, K, k=WIDTH, width=2 * WIDTH), after=100)
    with torch.no_grad():
        pair.b_enc[: K // 2] = -100.0
    records = fit(pair, torch.randn(400, D), steps=4, batch_size=50).run(progress=False)
    assert records[0]["codes/l0"] == WIDTH  # 50 rows, 50 k in all
    assert [r["codes/dead"] for r in records[:1]] == [0]
    assert records[-1]["codes/dead"] >= K // 2 - 1
    assert records[-1]["codes/threshold"] == pair.guide.posterior.posterior.threshold
    assert "codes/l0" in fit(topk(), torch.randn(50, D), steps=1, batch_size=50).run()[0]


@pytest.mark.filterwarnings("ignore:.*not registered in the param store")  # as it should be
@pytest.mark.parametrize("frozen", [False, True])
def test_only_codes_that_an_update_followed_are_observed(frozen):
    pair, x = SLOT_PAIRS["batch topk"](), torch.randn(100, D)
    pair.W_dec.requires_grad_(not frozen)
    elbo = ClosedFormELBO(num_particles=2)
    svi = pyro.infer.SVI(pair.pyro_model, pair.pyro_guide, pyro.optim.Adam({"lr": 1e-3}), elbo)
    for _ in range(3):
        svi.step(x)
        svi.evaluate_loss(10 * x)
    pair.project()
    pyro.clear_param_store()
    assert pair.guide.posterior.batches == 3


def test_evaluation_leaves_every_mode_as_it_was():
    pair, x = SLOT_PAIRS["batch topk"](), torch.randn(100, D)
    pair.model.eval()
    before = {name: module.training for name, module in pair.named_modules()}
    alone = pair.encode(x[:1])
    assert {name: module.training for name, module in pair.named_modules()} == before
    pair.eval()
    pair.guide.train()
    assert torch.equal(pair.encode(x[:1]), alone)
    run = fit(pair, x, steps=2, batch_size=50)
    modes = [(pair.guide.posterior.training, pair.guide.eval())[0] for _ in run]
    assert modes == [True, True]
