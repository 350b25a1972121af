"""Resampling of crosscoders: the targets' residual, in each latent's layers, at size 1."""

import pytest
import torch
from torch import nn

from priors import IsotropicPrior, LaplacePrior
from vsae import (
    AdditiveDecoder,
    AmortizedGuide,
    Autoencoder,
    Crosscoder,
    LayeredAutoencoder,
    LayeredDecoder,
    LayeredEncoder,
    LayerNormalizer,
    LinearEncoder,
    ReLUPosterior,
    SkipConnection,
    SparseAutoencoder,
    WhiteningNormalizer,
    causal_blocks,
    decoupled_crosscoder,
    fit,
    ladder_autoencoder,
    topk_autoencoder,
    topk_crosscoder,
    variational_crosscoder,
    variational_ladder_autoencoder,
)
from vsae.errors import ConfigError, DataError
from vsae.resampling import never_active, resample

K, ROWS = 12, 60
DEAD = torch.tensor([2, 5, 11])
ALIVE = torch.tensor([i for i in range(K) if i not in DEAD])


def units(layers):
    x = torch.randn(100, sum(layers)) * (1 + torch.arange(sum(layers))) + 0.3
    return LayerNormalizer.fit(x, layers)


def even():
    return topk_crosscoder((4, 4, 4), K, k=3, normalizer=units((4, 4, 4)))


def uneven():
    return variational_crosscoder((3, 2, 4), IsotropicPrior(K), noise=0.5)


def whitened():
    flat = topk_autoencoder(8, K, k=3, normalizer=WhiteningNormalizer.fit(torch.randn(90, 8)))
    return LayeredAutoencoder.of(flat, (4, 4))


def causal(layers=(4, 4, 4), skip=True):
    """The first layer is given; reads and writes of a latent have no layer in common."""
    reads, writes = causal_blocks(K, len(layers))
    targets = tuple(range(1, len(layers)))
    decoder = LayeredDecoder(K, layers[1:], writes=writes[:, 1:])
    encoder = LayeredEncoder(decoder, layers, targets=targets, reads=reads)
    with torch.no_grad():  # nothing starts at its atom, where what it reads it does not write
        nn.init.normal_(encoder.W_enc)
        encoder.project()
    model = SparseAutoencoder(decoder, LaplacePrior(K), noise=0.5)
    linear = SkipConnection(layers, inputs=(0,), targets=targets) if skip else None
    if linear is not None:
        nn.init.normal_(linear.W_skip)
    crossed = Crosscoder(model, layers, targets=targets, skip=linear)
    return LayeredAutoencoder(crossed, AmortizedGuide(ReLUPosterior(encoder)), units(layers))


PAIRS = {"even": even, "uneven": uneven, "whitened": whitened, "causal": causal}


def stepped(build):
    pair = build()
    x = torch.randn(ROWS, pair.d_model) * 1.7 + 0.4
    optimizer = torch.optim.Adam(pair.parameters(), lr=0.01)
    fit(pair, x, steps=3, batch_size=20, optimizer=optimizer).run(progress=False)
    return pair, optimizer, x


def gap(pair, x):
    """Target less restored, in the units of each column, by subtraction of units alone."""
    if isinstance(pair.normalizer, LayerNormalizer):
        _, scale = pair.normalizer.units(pair.model.targets)
        return ((pair.target(x) - pair(x)).flatten(1) / scale).detach()
    difference = pair.normalizer(pair.rows(pair.target(x))) - pair.normalizer(pair.rows(pair(x)))
    return difference.detach()


@pytest.mark.parametrize("build", PAIRS.values(), ids=PAIRS)
def test_atoms_are_the_residual_of_the_layers_written_at_size_one(build):
    pair, optimizer, x = stepped(build)
    residual, decoder = gap(pair, x), pair.model.decoder
    before = {name: p.detach().clone() for name, p in pair.named_parameters()}
    rows = resample(pair, optimizer, x, DEAD, generator=torch.Generator().manual_seed(0))
    wanted = residual[rows]
    if getattr(decoder, "writes", None) is not None:
        widths = torch.tensor(decoder.layers)
        wanted = wanted * decoder.writes[DEAD].repeat_interleave(widths, -1)
    atoms = pair.W_dec[DEAD].detach()
    size = decoder.norm.size(decoder.layer_norms()) if hasattr(decoder, "norm") else None
    size = atoms.norm(dim=-1) if size is None else size[DEAD]
    torch.testing.assert_close(size, torch.ones(len(DEAD)))
    cosines = nn.functional.cosine_similarity(atoms, wanted)
    torch.testing.assert_close(cosines, torch.ones(len(DEAD)))
    assert torch.equal(pair.W_dec[ALIVE], before["model.model.decoder.W_dec"][ALIVE])
    assert not optimizer.state[pair.W_dec]["exp_avg"][DEAD].any()
    norms = pair.W_enc.mT.norm(dim=-1)
    torch.testing.assert_close(norms[DEAD], (0.2 * norms[ALIVE].mean()).expand(len(DEAD)))


@pytest.mark.parametrize("build", [even, whitened], ids=["even", "whitened"])
def test_where_all_is_read_and_written_rows_are_the_residual(build):
    pair, optimizer, x = stepped(build)
    residual = gap(pair, x)
    shaped = x.unflatten(1, (-1, 4))  # as crosscoders are given activations
    rows = resample(pair, optimizer, shaped, DEAD, generator=torch.Generator().manual_seed(0))
    weights = pair.W_enc.mT[DEAD]
    cosines = nn.functional.cosine_similarity(weights, residual[rows])
    torch.testing.assert_close(cosines, torch.ones(len(DEAD)))


def test_where_a_latent_reads_without_writing_rows_are_activations():
    pair, optimizer, x = stepped(causal)
    normal, encoder = pair.normalizer(x), pair.guide.posterior.encoder
    rows = resample(pair, optimizer, x, DEAD, generator=torch.Generator().manual_seed(0))
    for latent, row in zip(DEAD.tolist(), rows.tolist(), strict=True):
        reads = encoder.reads[latent].repeat_interleave(torch.tensor(pair.layers))
        weights = pair.W_enc[:, latent]
        assert not weights[~reads].any()
        cosine = nn.functional.cosine_similarity(weights[reads], normal[row, reads], dim=0)
        torch.testing.assert_close(cosine, torch.ones(()))
        assert pair.encode(x[row])[latent] > 0  # it fires on the row it was made for


def test_the_rows_drawn_are_those_whose_targets_are_badly_explained():
    """A given layer is no loss, however large; nor is what the skip connection explains."""
    pair, optimizer, x = stepped(causal)
    with torch.no_grad():
        pair.guide.posterior.encoder.W_enc.zero_()  # codes are the same on every row
        x[:, 4:] = pair(x).flatten(1)
        x[7, 4:] += 1.0  # one row has a residual
    rows = resample(pair, optimizer, x, DEAD[:1], generator=torch.Generator())
    assert rows.tolist() == [7]


def test_never_active_takes_what_the_pair_takes():
    pair, x = topk_crosscoder((3, 2, 4), K, k=2), torch.randn(9, 9)
    parts = list(x.split((3, 2, 4), -1))
    assert never_active(pair, parts).tolist() == never_active(pair, x).tolist()
    pair, x = even(), torch.randn(9, 12)
    assert never_active(pair, x.view(9, 3, 4)).tolist() == never_active(pair, x).tolist()


def test_a_latent_whose_layers_lack_nothing_is_refused():
    pair, optimizer, x = stepped(lambda: causal(skip=False))
    last = DEAD[-1:]
    assert not pair.model.decoder.writes[last, 0]  # layer 1
    with torch.no_grad():
        pair.guide.posterior.encoder.W_enc.zero_()
        x[:, 8:] = pair(x)[:, 1]
    with pytest.raises(DataError) as raised:
        resample(pair, optimizer, x, last, generator=torch.Generator())
    assert raised.value.code == "resample.rows"


@pytest.mark.parametrize(
    "build",
    [
        lambda: variational_ladder_autoencoder(4, (8, 4), noise=0.3),
        lambda: ladder_autoencoder(4, (8, 4), l1=0.1),
        lambda: decoupled_crosscoder((2, 2), K, k=2),
    ],
    ids=["variational ladder", "ladder", "decoupled"],
)
def test_what_has_no_rows_to_write_is_refused(build):
    pair = build()
    optimizer = torch.optim.Adam(pair.parameters())
    with pytest.raises(ConfigError) as raised:
        resample(pair, optimizer, torch.randn(9, 4), DEAD, generator=torch.Generator())
    assert raised.value.code == "resample.encoder"


def test_atoms_that_are_computed_are_refused():
    """Written to, they would be as they were before."""
    model = SparseAutoencoder(AdditiveDecoder.of_sizes(4, (8, 4)), LaplacePrior(K), noise=0.5)
    pair = Autoencoder(model, AmortizedGuide(ReLUPosterior(LinearEncoder(4, K))))
    optimizer = torch.optim.Adam(pair.parameters())
    with pytest.raises(ConfigError) as raised:
        resample(pair, optimizer, torch.randn(9, 4), DEAD, generator=torch.Generator())
    assert raised.value.code == "resample.decoder"
