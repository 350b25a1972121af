"""Latents switched off through the model's program, against codes zeroed by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import vsae
from priors import Graph, GraphLaplacianPrior, IsotropicPrior
from priors.errors import ConfigError
from toys.causal_probe import output_effect, propagation
from toys.network import StoriesTransformer
from toys.stories import StoriesData

LAYERS, LATENTS = (3, 2, 4), 6


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def units():
    return vsae.LayerNormalizer.fit(
        normal(9, 50, sum(LAYERS)) * torch.tensor([1.0] * 3 + [5.0] * 2 + [0.2] * 4) + 1, LAYERS
    )


PAIRS = {
    "l1": lambda: vsae.l1_crosscoder(LAYERS, LATENTS, l1=0.1, normalizer=units()),
    "topk": lambda: vsae.topk_crosscoder(LAYERS, LATENTS, k=2, normalizer=units()),
    "batch-topk": lambda: vsae.batch_topk_crosscoder(LAYERS, LATENTS, k=2),
    "graph": lambda: vsae.point_crosscoder(LAYERS, GraphLaplacianPrior(Graph.ring(LATENTS))),
    "variational": lambda: vsae.variational_crosscoder(LAYERS, IsotropicPrior(LATENTS), noise=0.5),
    "flat": lambda: vsae.topk_autoencoder(sum(LAYERS), LATENTS, k=2),
}


@pytest.fixture(params=PAIRS)
def pair(request):
    made = PAIRS[request.param]()
    with torch.no_grad():  # biases and atoms that are not those of a start
        for i, parameter in enumerate(made.parameters()):
            parameter += 0.1 * normal(i, *parameter.shape)
        made.project()
    return made


@pytest.mark.parametrize("latents", [[0], [3, 5], list(range(LATENTS)), []])
def test_it_is_the_code_with_zeros(pair, latents):
    x = 2 * normal(1, 40, sum(LAYERS))
    code = pair.encode(x).clone()
    assert (code != 0).any(0).sum() > 1
    code[:, latents] = 0
    kept = torch.get_rng_state()
    found = vsae.ablated(pair, x, latents)
    assert torch.equal(torch.get_rng_state(), kept)  # nothing is drawn
    assert not found.requires_grad
    torch.testing.assert_close(found, pair.restored(x, code).detach())
    torch.testing.assert_close(vsae.ablation(pair, latents)(x), x + found - pair(x).detach())
    if not latents:
        torch.testing.assert_close(found, pair(x).detach())


def test_no_other_latent_takes_over():
    """Zeroed before the choice of the k greatest, another latent would fire in its place."""
    pair = PAIRS["topk"]()
    x = 2 * normal(1, 40, sum(LAYERS))
    first = pair.encode(x).argmax(1)
    assert (pair.encode(x) != 0).sum(1).max() == 2
    for latent in first.unique().tolist():
        change = vsae.ablated(pair, x, [latent]) - pair(x)
        parts = torch.linalg.lstsq(
            (pair.W_dec[[latent]] * scale_of(pair)).detach().mT, change.detach().mT
        )
        rest = (
            change.detach().mT
            - (pair.W_dec[[latent]] * scale_of(pair)).detach().mT @ parts.solution
        )
        assert rest.abs().max() < 1e-12


def scale_of(pair):
    return pair.normalizer.scales.repeat_interleave(torch.tensor(LAYERS))


def test_effects_against_loops_and_the_norms_of_the_decoder(pair):
    x, latents = 2 * normal(1, 60, sum(LAYERS)), [4, 0]
    found = vsae.ablation_effects(pair, x, latents, LAYERS)
    code, clean = pair.encode(x).detach(), pair(x).detach().numpy()
    cuts = np.cumsum(LAYERS)[:-1]
    scale = scale_of(pair) if isinstance(pair.normalizer, vsae.LayerNormalizer) else torch.ones(9)
    for at, k in enumerate(latents):
        fires = (code[:, k] != 0).numpy()
        assert found.rows[at] == fires.sum()
        zeroed = code.clone()
        zeroed[:, k] = 0
        without = pair.restored(x, zeroed).detach().numpy()
        for layer, part in enumerate(np.split(np.arange(9), cuts)):
            if not fires.any():
                assert found.moved[at, layer].isnan()
                continue
            before, after, truth = (v[fires][:, part] for v in (clean, without, x.numpy()))
            moved = ((before - after) ** 2).sum(1).mean()
            more = (((truth - after) ** 2) - (truth - before) ** 2).sum(1).mean()
            assert found.moved[at, layer] == pytest.approx(moved, rel=1e-10)
            assert found.error[at, layer] == pytest.approx(more, rel=1e-8, abs=1e-12)
            atom = (pair.W_dec.detach()[k] * scale)[part]
            size = code[fires, k].square().mean() * atom.square().sum()
            assert found.moved[at, layer] == pytest.approx(size.item(), rel=1e-10)


def test_effects_in_blocks(monkeypatch):
    pair, x = PAIRS["topk"](), normal(1, 60, sum(LAYERS))
    whole = vsae.ablation_effects(pair, x, [0, 1, 2], LAYERS)
    monkeypatch.setattr("vsae.interventions.ROWS", 7)
    parts = vsae.ablation_effects(pair, x, [0, 1, 2], LAYERS)
    assert torch.equal(whole.rows, parts.rows)
    torch.testing.assert_close(whole.moved, parts.moved, equal_nan=True)
    torch.testing.assert_close(whole.error, parts.error, equal_nan=True)


@given(st.integers(0, 2**31))
@settings(max_examples=30)
def test_switching_off_all_is_the_mean_without_a_code(seed):
    pair = PAIRS["l1"]()
    x = normal(seed, 5, sum(LAYERS))
    expected = pair.decode(torch.zeros(5, LATENTS)).detach()
    torch.testing.assert_close(vsae.ablated(pair, x, range(LATENTS)), expected)


@pytest.mark.parametrize("latents", [[6], [-1]])
def test_latents_that_do_not_exist_are_refused(latents):
    with pytest.raises(ConfigError) as caught:
        vsae.ablated(PAIRS["l1"](), normal(0, 3, sum(LAYERS)), latents)
    assert caught.value.code == "intervention.latents"


# In the network


@pytest.fixture(scope="module")
def few():
    shipped = StoriesData.load()
    model = StoriesTransformer.load(torch.float64)
    return StoriesData.from_texts(shipped.texts[:10], model, shipped.tokenizer)


@pytest.fixture(scope="module")
def reader():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(1)
    return vsae.topk_crosscoder((64,) * 3, 24, k=4)


def test_in_the_network_against_one_story_at_a_time(few, reader):
    """Code zeroed by hand, the difference added to the stream, blocks run one by one."""
    layers, model, latent = (1, 2, 4), few.model, 7
    found = output_effect(few, reader, [latent], layers=layers)
    carried = propagation(few, reader, [latent], layers=layers)
    entropies, products = [[] for _ in range(4)], torch.zeros(3, 3, 3)
    divergences: list[list] = [[] for _ in layers]
    rows = 0
    for story in few.stories("heldout"):
        tokens = few.tokens[story][None]
        streams = model.residuals(tokens)[:, 0]
        x = torch.stack([streams[at, 1:] for at in layers], 1)
        code = reader.encode(x).detach()
        zeroed = code.clone()
        zeroed[:, latent] = 0
        told = (reader.decode(zeroed) - reader.decode(code)).detach()
        fires = code[:, latent] != 0
        rows += int(fires.sum())

        clean = model(tokens)[0, :-1].log_softmax(-1)
        target = tokens[0, 1:, None]
        entropies[3].append(-clean.gather(1, target))
        for i, source in enumerate(layers):
            stream = streams[source].clone()
            stream[1:] += told[:, i]
            reached = {source: stream}
            cos, sin = model.cos[: tokens.shape[1]], model.sin[: tokens.shape[1]]
            for at in range(source, model.num_layers):
                stream = model.blocks[at](stream[None], cos, sin)[0]
                reached[at + 1] = stream
            logits = (model.norm(stream) @ model.unembedding.mT)[:-1].log_softmax(-1)
            entropies[i].append(-logits.gather(1, target))
            divergences[i].append((clean.exp() * (clean - logits)).sum(-1))
            for j in range(i, 3):
                real = (reached[layers[j]] - streams[layers[j]])[1:][fires]
                said = told[fires][:, j]
                products[0, i, j] += (real * said).sum()
                products[1, i, j] += real.square().sum()
                products[2, i, j] += said.square().sum()
    assert rows == carried.rows > 0
    means = torch.stack([torch.cat(part).mean() for part in entropies])
    torch.testing.assert_close(found.loss, means[:3] - means[3], rtol=1e-6, atol=1e-12)
    expected = torch.stack([torch.cat(part).mean() for part in divergences])
    torch.testing.assert_close(found.divergence, expected, rtol=1e-8, atol=1e-13)
    cosine = products[0] / (products[1] * products[2]).sqrt()
    torch.testing.assert_close(carried.cosine, cosine, equal_nan=True)
    torch.testing.assert_close(carried.carried, products[0] / products[2], equal_nan=True)
    torch.testing.assert_close(carried.cosine.diagonal(), torch.ones(3))
    torch.testing.assert_close(carried.carried.diagonal(), torch.ones(3))


def test_a_latent_that_never_fires_does_nothing(few):
    pair = vsae.topk_crosscoder((64,) * 3, 24, k=4)
    with torch.no_grad():
        pair.guide.posterior.encoder.b_enc[5] = -1e3
    found = output_effect(few, pair, [5], layers=(1, 2, 4))
    assert found.divergence.abs().max() < 1e-14
    assert found.loss.abs().max() < 1e-14
    carried = propagation(few, pair, [5], layers=(1, 2, 4))
    assert carried.rows == 0
    assert carried.carried.isnan().all()


@pytest.mark.float32
def test_single_precision():
    pair = PAIRS["topk"]()
    x = normal(1, 40, sum(LAYERS)).float()
    code = pair.encode(x).clone()
    code[:, 1] = 0
    found = vsae.ablated(pair, x, [1])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, pair.restored(x, code).detach())
    effects = vsae.ablation_effects(pair, x, [1], LAYERS)
    assert effects.moved.dtype == torch.float64
    assert not math.isnan(effects.moved.sum())
