"""H-SAE: the routed step against a naive gather, at any depth, and what it must be as a program."""

import math

import pytest
import torch
from program_checks import (
    HALF,
    assert_equals_published,
    assert_export_keeps_gradients,
    assert_masked_rows_do_not_count,
    assert_only_latents_are_scaled,
    assert_predictive_draws,
    assert_pyros_elbos_agree,
    assert_saved_is_loaded,
    assert_svi_trains,
    gaussian_constant,
    leaves_of,
)
from pyro.infer import Predictive, Trace_ELBO, TraceMeanField_ELBO
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from priors import (
    BlockDiagonalPrior,
    FlatPrior,
    GraphLaplacianPrior,
    IsotropicPrior,
    LaplacePrior,
    SlabPrior,
)
from vsae import (
    AffineNormalizer,
    AmortizedGuide,
    Autoencoder,
    ClosedFormELBO,
    GaussianRoutedPosterior,
    HierarchicalAutoencoder,
    LeakyThreshold,
    LearnedNoise,
    RoutedGuide,
    RoutedLosersPosterior,
    RoutedPosterior,
    ScreenedEncoder,
    SparseCode,
    fit,
    hierarchical_autoencoder,
    metrics,
    paper_hierarchical_autoencoder,
    shipped_hierarchical_autoencoder,
    topk_autoencoder,
    with_auxk,
)
from vsae.errors import VsaeError

D, M, SLOTS, ROWS, BETA = 7, 6, 3, 30, 0.3
SHAPES = {2: ((4,), (3,)), 3: ((4, 3), (3, 2)), 4: ((3, 2, 2), (4, 3, 1))}
depths = pytest.mark.parametrize("depth", SHAPES)


def hsae(depth=2, prior=None, orthogonality=0.0, top_weight=BETA):
    """In training mode, away from where it starts."""
    torch.manual_seed(0)
    branching, subspaces = SHAPES[depth]
    pair = hierarchical_autoencoder(
        D,
        M,
        k=SLOTS,
        branching=branching,
        subspaces=subspaces,
        top_weight=top_weight,
        orthogonality=orthogonality,
    ).train()
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    pair.project()
    if prior is not None:
        pair.model.prior = prior(pair.model.decoder.latents)
    return pair


def gathered(pair, x):
    """Everything per row and parent: tables are gathered, ``(B, k, s, d)`` and all.

    Returns the top mean, the mean, and the amplitudes and latents of every slot.
    """
    decoder, encoder = pair.model.decoder, pair.guide.posterior.encoder
    tree, centred = decoder.tree, x - (0 if decoder.b_dec is None else decoder.b_dec)
    values, roots = (centred @ encoder.top.W_enc.T + encoder.top.b_enc).topk(SLOTS)
    z, nodes = [values.relu()], [roots]
    top = torch.einsum("bk,bkd->bd", z[0], decoder.top.W_dec[roots])
    seen = centred[:, None].expand(-1, SLOTS, -1)  # what a parent's children see
    to_x = torch.eye(D).expand(len(x), SLOTS, D, D)  # from the subspace around to x
    mean, place = top, roots
    for level, (read, write) in enumerate(zip(encoder.below, decoder.below, strict=True)):
        P, a, s = read.parents, read.branching, read.subspace
        seen = torch.einsum("bkso,bko->bks", read.W_down.view(P, s, -1)[place], seen)
        scores = torch.einsum("bkas,bks->bka", read.W_child.view(P, a, s)[place], seen)
        best = scores.argmax(-1, keepdim=True)
        z.append(scores.gather(-1, best)[..., 0].relu() * (z[-1] > 0))
        to_x = torch.einsum("bkso,bkod->bksd", write.W_up.view(P, s, -1)[place], to_x)
        atoms = write.atoms.W_dec.view(P, a, s)[place]
        atom = atoms.gather(2, best[..., None].expand(-1, -1, 1, s))[:, :, 0]
        mean = mean + torch.einsum("bk,bks,bksd->bd", z[-1], atom, to_x)
        place = place * a + best[..., 0]
        nodes.append(tree.offsets[level + 1] + place)
    bias = 0 if decoder.b_dec is None else decoder.b_dec
    return top + bias, mean + bias, torch.cat(z, -1), torch.cat(nodes, -1)


@depths
def test_elbo_is_that_of_a_naive_gather(depth):
    """Value and every gradient, a learned ℓ1 scale and β's observation included."""
    pair = hsae(depth, lambda K: LaplacePrior(K, scale=0.6, learnable=True))
    x = torch.randn(ROWS, D)
    top, mean, z, _ = gathered(pair, x)
    scale, K = pair.model.prior.log_scale.exp(), pair.model.decoder.latents
    fit_error = (x - mean).square().sum() + BETA * (x - top).square().sum()
    loss = fit_error + z.sum() / scale + ROWS * K * (2 * scale).log()
    tree, constant = pair.model.decoder.tree, gaussian_constant(ROWS, D, HALF)
    constant += gaussian_constant(ROWS, D, HALF / BETA**0.5)
    counted = math.comb(M, SLOTS) * math.prod(tree.branching) ** SLOTS
    assert_equals_published(pair, x, loss, constant + ROWS * math.log(counted))


@depths
def test_codes_are_those_of_the_greedy_route(depth):
    pair, x = hsae(depth), torch.randn(ROWS, D)
    _, mean, z, nodes = gathered(pair, x)
    code, encoder = pair.code(x), pair.guide.posterior.encoder
    torch.testing.assert_close(code.dense(), SparseCode(nodes, z, encoder.outputs).dense())
    torch.testing.assert_close(pair(x), mean)
    every, (scores, support) = encoder(x), encoder.route(x, SLOTS)
    torch.testing.assert_close(every.gather(-1, support), scores)
    parents, here = encoder.tree.parents(), support[:, -SLOTS:]
    family = (parents == parents[here][..., None]).double()  # siblings of the chosen
    best = torch.where(family > 0, every[:, None], -torch.inf).argmax(-1)
    assert torch.equal(best, here)


@depths
def test_the_dictionary_is_linear_however_a_code_is_written(depth):
    pair, x = hsae(depth), torch.randn(ROWS, D)
    decoder, code = pair.model.decoder, pair.code(x)
    by_hand = code.dense() @ pair.W_dec + pair.b_dec
    shuffle = torch.randperm(code.z.shape[1])
    anyhow = SparseCode(code.support[:, shuffle], code.z[:, shuffle], code.latents)
    single = SparseCode(code.support[0], code.z[0], code.latents)
    torch.testing.assert_close(decoder.levels(code.z, code.support)[1], by_hand)
    for written in (code, anyhow, code.dense()):
        torch.testing.assert_close(pair.decode(written), by_hand)
    torch.testing.assert_close(pair.decode(single), by_hand[0])
    some = torch.randn(5, decoder.latents)  # also latents whose parents are not active
    every = torch.arange(decoder.latents).expand(5, -1)
    torch.testing.assert_close(decoder(some, every), some @ pair.W_dec + pair.b_dec)
    torch.testing.assert_close(
        x @ pair.W_enc - pair.b_dec @ pair.W_enc + pair.b_enc, scores(pair, x)
    )


def scores(pair, x):
    return pair.guide.posterior.encoder(x)


def test_one_level_is_the_topk_autoencoder():
    """Same parameters, same code, same ELBO, same gradients, bit by bit."""
    flat = topk_autoencoder(D, M, k=SLOTS)
    tree = hierarchical_autoencoder(
        D, M, k=SLOTS, branching=(), subspaces=(), top_weight=0.0, orthogonality=0.0
    )
    for module in (flat, tree):
        torch.manual_seed(1)
        for parameter in module.parameters():
            parameter.data.normal_()
    x, found = torch.randn(ROWS, D), []
    for pair in (flat, tree):
        leaves = leaves_of(pair)
        loss = ClosedFormELBO()(pair.model, pair.guide)(x)
        found.append([loss, *torch.autograd.grad(loss, leaves.values()), pair(x), pair.encode(x)])
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)


@depths
def test_as_a_pyro_program(depth):
    pair, x = hsae(depth, lambda K: LaplacePrior(K, learnable=True), 0.5), torch.randn(ROWS, D)
    assert_pyros_elbos_agree(pair, x)
    assert_only_latents_are_scaled(pair, x, {"support", "z"})
    assert_svi_trains(pair, x)


def test_masks_predictive_export_and_files(tmp_path):
    pair, x = hsae(3), torch.randn(ROWS, D)
    assert_masked_rows_do_not_count(pair, x)
    slots = (ROWS, 3 * SLOTS)
    shapes = {"support": slots, "z": slots, "x": (ROWS, D)}
    assert_predictive_draws(pair.eval(), x, shapes)
    assert_export_keeps_gradients(pair.train(), x)
    assert_saved_is_loaded(hsae(3, orthogonality=0.2), x, tmp_path / "hsae")
    shipped = shipped_hierarchical_autoencoder(D, M, k=SLOTS, children=4, subspace=3)
    assert_saved_is_loaded(shipped, x, tmp_path / "shipped")


def test_shared_parameters_are_one_after_loading(tmp_path):
    from vsae import load, save

    pair = load(save(hsae(2, orthogonality=0.2), tmp_path / "hsae"))
    encoder, belief = pair.guide.posterior.encoder, pair.model.orthogonality
    assert belief.encoder is encoder.top
    assert belief.decoder is encoder.decoder.top is pair.model.decoder.top


class Largest(TorchDispatchMode):
    """The most numbers any operator returned."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return out


def test_a_step_gathers_no_subspaces_and_makes_no_dense_code():
    d, m, k, a, s, rows = 64, 32, 8, 16, 2, 128
    pair = hierarchical_autoencoder(d, m, k=k, branching=(a,), subspaces=(s,)).train()
    objective, x = ClosedFormELBO()(pair.model, pair.guide), torch.randn(rows, d)
    with Largest() as largest:
        objective(x).backward()
    assert largest.numbers <= rows * k * a * s  # every child's score in its parent's subspace
    assert largest.numbers < min(rows * k * s * d, rows * m * (1 + a))


@pytest.mark.parametrize("selected", [True, False])
def test_losers_pay_and_are_not_decoded(selected):
    """ℓ1 on all codes, or on those that lost, by hand, in value and every gradient."""
    torch.manual_seed(0)
    pair = hsae(2)
    encoder, l1 = pair.guide.posterior.encoder, 0.8
    act, child = LeakyThreshold(0.2, slope=0.1), LeakyThreshold(0.1, slope=0.3)
    q = RoutedLosersPosterior(encoder, k=SLOTS, width=M, activation=act, child_activation=child)
    K = pair.model.decoder.latents
    model = HierarchicalAutoencoder(
        pair.model.decoder,
        LaplacePrior(K, scale=1 / l1) if selected else FlatPrior(K),
        k=SLOTS,
        noise=HALF,
        losers=LaplacePrior(K, scale=1 / l1),
        num_losers=q.num_losers,
    )
    pair, x = Autoencoder(model, RoutedGuide(q)).train(), torch.randn(ROWS, D)
    tree, centred = model.decoder.tree, x - model.decoder.b_dec
    roots = centred @ encoder.top.W_enc.T + encoder.top.b_enc
    roots = torch.where(roots >= 0.2, roots, 0.1 * roots)
    z, place = roots.topk(SLOTS)
    read, write = encoder.below[0], model.decoder.below[0]
    seen = torch.einsum("bksd,bd->bks", read.W_down.view(M, 3, D)[place], centred)
    codes = torch.einsum("bkas,bks->bka", read.W_child.view(M, 4, 3)[place], seen)
    codes = torch.where(codes >= 0.1, codes, 0.3 * codes)
    best = codes.argmax(-1, keepdim=True)
    kept = codes.gather(-1, best)[..., 0] * (z > 0)
    atom = write.atoms.W_dec.view(M, 4, 3)[place].gather(2, best[..., None].expand(-1, -1, 1, 3))
    mean = torch.einsum("bk,bkd->bd", z, model.decoder.top.W_dec[place]) + torch.einsum(
        "bk,bks,bksd->bd", kept, atom[:, :, 0], write.W_up.view(M, 3, D)[place]
    )
    every = roots.abs().sum() + codes.abs().sum()
    pays = every if selected else every - z.abs().sum() - kept.abs().sum()
    loss = (x - model.decoder.b_dec - mean).square().sum() + l1 * pays
    constant = gaussian_constant(ROWS, D, HALF) + ROWS * (1 + selected) * K * math.log(2 / l1)
    constant += ROWS * math.log(math.comb(M, SLOTS) * 4**SLOTS)
    constant += ROWS * math.log(math.comb(tree.latents, q.num_losers))
    assert q.num_losers == M - SLOTS + SLOTS * 4
    assert_equals_published(pair, x, loss, constant)
    assert set(pair.posterior(x)) == {"support", "z"}  # in evaluation nothing loses


PRIORS = {
    "slab": lambda tree: SlabPrior(IsotropicPrior(tree.latents, scale=0.7)),
    "families": lambda tree: BlockDiagonalPrior.from_labels(tree.families()),
    "tree": lambda tree: GraphLaplacianPrior(tree.graph(), ridge=0.3),
}


@pytest.mark.parametrize("prior", PRIORS)
def test_a_variational_hsae_changes_guide_and_prior_only(prior):
    """Gaussian amplitudes: the model, its decoder and sites are as they were; KL by Monte Carlo."""
    pair, x = hsae(2), torch.randn(ROWS, D)
    point = pair.guide.posterior
    q = GaussianRoutedPosterior(point.encoder, k=SLOTS, scale=0.4)
    pair.model.prior = PRIORS[prior](pair.model.decoder.tree)
    other = Autoencoder(pair.model, RoutedGuide(q)).train()
    assert set(other.posterior(x)) == set(pair.posterior(x)) == {"support", "z"}
    torch.testing.assert_close(other.encode(x), pair.encode(x))
    kl = ClosedFormELBO().terms(other.model, other.guide, x)["z"]
    sites = q(x)
    from priors import restrict

    p = restrict(pair.model.prior(), sites["support"].mean)
    z = sites["z"].sample((40_000,))
    draws = (sites["z"].log_prob(z) - p.log_prob(z)).sum(-1)
    assert abs(draws.mean() - kl) < 5 * draws.std() / 200
    losses = [ClosedFormELBO()(other.model, other.guide)(x).item() for _ in range(2)]
    assert losses[0] != losses[1]  # noise is injected


@depths
def test_atoms_and_rows_of_some_latents(depth):
    """Without those of the others, values and gradients, on every level."""
    pair = hsae(depth)
    decoder, encoder = pair.model.decoder, pair.guide.posterior.encoder
    some = torch.randperm(decoder.latents)[:20]
    for ours, every in (
        (decoder.atoms_of(some), pair.W_dec),
        (encoder.rows_of(some), encoder.W_enc),
    ):
        torch.testing.assert_close(ours, every[some])
        leaves, to = list(leaves_of(pair).values()), torch.randn(20, D)
        mine = torch.autograd.grad((ours * to).sum(), leaves, allow_unused=True)
        theirs = torch.autograd.grad((every[some] * to).sum(), leaves, allow_unused=True)
        for a, b in zip(mine, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    assert decoder.atoms_of(some[:0]).shape == (0, D)


def test_dead_latents_of_a_tree_learn_from_the_residual():
    """AuxK's term by hand, over roots and children alike; a revived child moves towards it."""
    pair = with_auxk(hsae(2), after=10, coefficient=0.5).train()
    dead, decoder = pair.model.dead, pair.model.decoder
    gone = torch.tensor([1, M + 2, M + 9])
    dead.silent_for[gone] = 10
    x = torch.randn(ROWS, D)
    inside = Autoencoder(pair.model.model, AmortizedGuide(pair.guide.posterior.posterior))
    encoder = pair.guide.posterior.encoder
    left = x - inside(x).detach()
    codes = ((x - decoder.b_dec) @ encoder.W_enc[gone].T + encoder.b_enc[gone]).relu()
    loss = 0.5 * (left - codes @ pair.W_dec[gone]).square().sum()
    terms = ClosedFormELBO().terms(pair.model, pair.guide, x)
    constant = gaussian_constant(ROWS, D, HALF / 0.5**0.5)
    torch.testing.assert_close(terms["residual"] - constant, loss)
    leaves = leaves_of(pair)
    mine = torch.autograd.grad(terms["residual"], leaves.values(), allow_unused=True)
    theirs = torch.autograd.grad(loss, leaves.values(), allow_unused=True)
    for name, a, b in zip(leaves, mine, theirs, strict=True):
        if b is not None:
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10, msg=name)


def test_published_losers_as_a_pyro_program(tmp_path):
    pair = shipped_hierarchical_autoencoder(D, M, k=SLOTS, children=4, subspace=3, l1=0.3).train()
    x = torch.randn(ROWS, D)
    ours = ClosedFormELBO()(pair.model, pair.guide)(x)
    for elbo in (TraceMeanField_ELBO(), Trace_ELBO()):
        torch.testing.assert_close(ours, elbo(pair.model, pair.guide)(x))
    assert_only_latents_are_scaled(pair, x, {"support", "z", "lost", "lost_z"})
    paths, slots = (ROWS, 2 * SLOTS), (ROWS, M - SLOTS + SLOTS * 4)
    shapes = {"support": paths, "z": paths, "lost": slots, "lost_z": slots}
    drawn = Predictive(pair.model, guide=pair.guide, num_samples=2)(x)
    assert {n: v.shape[1:] for n, v in drawn.items() if n in shapes} == shapes
    assert_masked_rows_do_not_count(
        paper_hierarchical_autoencoder(D, M, k=2, children=4).train(), x
    )


def test_masked_rows_do_not_count_for_the_weights_either():
    assert_masked_rows_do_not_count(hsae(2, orthogonality=0.7), torch.randn(ROWS, D))


@depths
def test_losers_are_the_siblings_of_the_chosen(depth):
    """On every level: those of the chosen parent, once each, with their own scores."""
    pair, x = hsae(depth), torch.randn(ROWS, D)
    encoder, relu = pair.guide.posterior.encoder, nn.ReLU()
    q = RoutedLosersPosterior(encoder, k=SLOTS, width=M, activation=relu, child_activation=relu)
    sites, code = q.train()(x), pair.code(x).dense()
    lost = SparseCode(sites["lost"].mean, sites["lost_z"].mean, encoder.outputs)
    torch.testing.assert_close(q.eval()(x)["z"].mean.sum(-1), code.sum(-1))
    assert (lost.support.sort(-1).values.diff(dim=-1) > 0).all()
    parents, every = encoder.tree.parents(), encoder(x).relu()
    on_path = torch.zeros(ROWS, encoder.outputs).scatter(1, sites["support"].mean, 1.0) > 0
    family = (parents < 0) | on_path[:, parents]  # roots, and children of what was chosen
    expected = torch.where(family & ~((code > 0) & on_path), every, 0.0)
    torch.testing.assert_close(lost.dense(), expected)


def test_rows_in_any_shape():
    pair, x = hsae(3), torch.randn(4, 5, D)
    torch.testing.assert_close(pair(x).view(-1, D), pair(x.view(-1, D)))
    assert pair(x[:0, 0]).shape == (0, D)
    drawn = Predictive(pair.eval().model, num_samples=4, parallel=True)(x[0])
    assert drawn["x"].shape[-2:] == (5, D)


@pytest.mark.float32
def test_in_float32():
    """Values to six digits of the same pair in double precision."""
    pair = hsae(3, lambda K: LaplacePrior(K, scale=0.5), 0.5)
    x = torch.randn(ROWS, D)
    single = ClosedFormELBO().terms(pair.model, pair.guide, x)
    double = ClosedFormELBO().terms(pair.double().model, pair.guide, x.double())
    for name, term in double.items():
        near = {"rtol": 3e-6, "atol": 1e-4, "msg": name}
        torch.testing.assert_close(single[name].double(), term.double(), **near)


def test_a_screened_encoder_routes_alike():
    torch.manual_seed(0)
    screened = hierarchical_autoencoder(
        D, M, k=SLOTS, branching=(4,), subspaces=(3,), encoder=ScreenedEncoder
    )
    plain = hierarchical_autoencoder(D, M, k=SLOTS, branching=(4,), subspaces=(3,))
    plain.load_state_dict(screened.state_dict())
    x = torch.randn(ROWS, D)
    torch.testing.assert_close(screened.encode(x), plain.encode(x))


def test_children_explain_what_roots_alone_cannot():
    """Parents whose children have a subspace: half of what TopK of as many roots leaves."""
    torch.manual_seed(0)
    d, m, a, rows = 24, 6, 3, 4000
    parents = nn.functional.normalize(torch.randn(m, d), dim=-1)
    offsets = 0.7 * nn.functional.normalize(torch.randn(m, a, d), dim=-1)
    active = torch.rand(rows, m) < 0.25
    child = torch.randint(a, (rows, m))
    x = active.double() @ parents
    x = x + (active[..., None] * offsets[torch.arange(m), child]).sum(1)
    k = int(active.sum(-1).max())
    tree = hierarchical_autoencoder(d, m, k=min(k, m), branching=(a,), subspaces=(3,))
    flat = topk_autoencoder(d, m, k=min(k, m))
    for pair in (tree, flat):
        fit(pair, x, steps=300, batch_size=128, lr=1e-2).run(progress=False)
    ours, theirs = (1 - metrics.explained_variance(x, p(x)).item() for p in (tree, flat))
    assert ours < 0.5 * theirs


def losing(losers, num_losers):
    decoder = hsae(2).model.decoder
    priors = FlatPrior(30), losers
    return HierarchicalAutoencoder(
        decoder, priors[0], k=2, noise=HALF, losers=priors[1], num_losers=num_losers
    )


@pytest.mark.parametrize(
    ("build", "code"),
    [
        (
            lambda: hierarchical_autoencoder(4, 8, k=2, branching=(3,), subspaces=(5,)),
            "hierarchy.subspace",
        ),
        (
            lambda: hierarchical_autoencoder(6, 8, k=2, branching=(3, 2), subspaces=(2, 3)),
            "hierarchy.subspace",
        ),
        (lambda: hierarchical_autoencoder(6, 8, k=2, branching=(0,), subspaces=(2,)), "tree.size"),
        (
            lambda: hierarchical_autoencoder(6, 8, k=2, branching=(3,), subspaces=(0,)),
            "hierarchy.subspace",
        ),
        (
            lambda: hierarchical_autoencoder(6, 8, k=2, branching=(3,), subspaces=()),
            "hierarchy.levels",
        ),
        (
            lambda: hierarchical_autoencoder(6, 8, k=2, branching=(), subspaces=(2,)),
            "hierarchy.levels",
        ),
        (lambda: hierarchical_autoencoder(6, 8, k=9), "select.k"),
        (lambda: hierarchical_autoencoder(6, 8, k=0), "select.k"),
        (lambda: hierarchical_autoencoder(6, 8, k=2, top_weight=-1.0), "hierarchy.weight"),
        (
            lambda: hierarchical_autoencoder(6, 8, k=2, orthogonality=-1.0),
            "biorthogonality.setting",
        ),
        (lambda: hierarchical_autoencoder(6, 1, k=1, orthogonality=0.1), "biorthogonality.setting"),
        (lambda: paper_hierarchical_autoencoder(6, 8, k=2, l1=0.0), "hierarchy.published"),
        (lambda: shipped_hierarchical_autoencoder(6, 8, k=2, subspace=7), "hierarchy.subspace"),
        (lambda: shipped_hierarchical_autoencoder(6, 8, k=2, width=9), "select.k"),
        (lambda: shipped_hierarchical_autoencoder(6, 8, k=4, width=3), "posterior.width"),
        (lambda: RoutedGuide(topk_autoencoder(6, 8, k=2).guide.posterior), "hierarchy.posterior"),
        (lambda: RoutedGuide(nn.Identity()), "hierarchy.posterior"),
        (
            lambda: RoutedPosterior(topk_autoencoder(6, 8, k=2).guide.posterior.encoder, k=2),
            "hierarchy.encoder",
        ),
        (lambda: hierarchical_autoencoder(6, 8, k=2, noise=LearnedNoise(0.5)), "hierarchy.noise"),
        (lambda: losing(LaplacePrior(30), 0), "hierarchy.losers"),
        (lambda: losing(None, 3), "hierarchy.losers"),
        (
            lambda: hsae(2).decode(SparseCode(torch.tensor([[30]]), torch.ones(1, 1), 31)),
            "slots.out_of_range",
        ),
        (lambda: hsae(2).elbo(torch.full((2, D), math.nan)), "data.nonfinite"),
        (
            lambda: hierarchical_autoencoder(
                D, M, k=2, normalizer=AffineNormalizer(torch.zeros(D - 1), 1.0)
            ),
            "data.width",
        ),
        (
            lambda: hierarchical_autoencoder(
                D, M, k=2, normalizer=AffineNormalizer(torch.zeros(D).float(), 1.0)
            )(torch.zeros(2, D)),
            "data.dtype",
        ),
        (lambda: AffineNormalizer.fit(torch.full((4, D), math.nan)), "data.nonfinite"),
        (lambda: LeakyThreshold(math.nan), "threshold.setting"),
        (lambda: LeakyThreshold(-0.5), "threshold.setting"),
        (lambda: LeakyThreshold(0.1, slope=-1.0), "threshold.setting"),
        (lambda: LeakyThreshold(0.5, slope=2.0), "threshold.setting"),
    ],
)
def test_bad_input_is_named(build, code):
    with pytest.raises(VsaeError) as caught:
        build()
    assert caught.value.code == code


def test_mismatched_parts_are_named_when_fitted():
    pair, x = hsae(2), torch.randn(20, D)
    wrong = Autoencoder(pair.model, AmortizedGuide(topk_autoencoder(D, M, k=SLOTS).guide.posterior))
    short = Autoencoder(pair.model, RoutedGuide(hsae(3).guide.posterior))
    same_size = hierarchical_autoencoder(D, 10, k=SLOTS, branching=(2,), subspaces=(2,))
    renamed = Autoencoder(pair.model, same_size.guide)
    flat = topk_autoencoder(D, 30, k=2 * SLOTS)
    unrouted = Autoencoder(pair.model, flat.guide)
    routed = Autoencoder(flat.model, pair.guide)
    for other, code in (
        (wrong, "pair.width"),
        (short, "pair.width"),
        (renamed, "pair.tree"),
        (unrouted, "pair.tree"),
        (routed, "pair.tree"),
    ):
        with pytest.raises(VsaeError) as caught:
            fit(other, x, steps=1, batch_size=5)
        assert caught.value.code == code
    bad = x.clone()
    bad[3, 1] = math.inf
    with pytest.raises(VsaeError) as caught:
        fit(pair, bad, steps=1, batch_size=5)
    assert caught.value.code == "data.nonfinite"
