"""Does a wrong sign, a lost ½ or a wrong gradient make a test fail?

Run ``python tests/mutations.py`` (some ten minutes; not part of the test run), or name a suite:
``python tests/mutations.py slots``. Each line of a suite changes one place in a temporary copy of
the tree and runs the suite's tests there until the first failure. Exits with 1 if a mutant
survives, or if the unchanged copy fails.
"""

# ruff: noqa: E501
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GAUSSIANS = ["tests/test_priors.py", "tests/test_kl.py", "tests/test_logdet.py"]
FAST = (
    "density or dense_matrix or draws_have or agrees_with_torch or laplace_kl or laplace_draws "
    "or grounding or lanczos or spectrum_gradient or rings or left_out"
)
PRIORS = [  # (what, file, old, new)
    ("every Gaussian: ½ of log det", "priors/_gaussian.py", "return 0.5 * (logdet -", "return 1.0 * (logdet -"),
    ("every Gaussian: ½ of the form", "priors/_gaussian.py", "- 0.5 * self.quadratic(value)", "- self.quadratic(value)"),
    ("every Gaussian: ½ of the KL", "priors/_gaussian.py", "return 0.5 * (trace", "return 1.0 * (trace"),
    ("every Gaussian: trace of the KL", "priors/_gaussian.py", "(trace + p.quadratic(loc)", "(-trace + p.quadratic(loc)"),
    ("every Gaussian: sign of the mean", "priors/_gaussian.py", "return self.precision.quadratic(value - self.loc)", "return self.precision.quadratic(value + self.loc)"),
    ("every Gaussian: sign of K in the KL", "priors/_gaussian.py", "- logdet - p.event_shape[0])", "- logdet + p.event_shape[0])"),
    ("full posterior: log det", "priors/_gaussian.py", "half_logdet = factor.diagonal(dim1=-2, dim2=-1)", "half_logdet = 2 * factor.diagonal(dim1=-2, dim2=-1)"),
    ("low-rank posterior: ½", "priors/_gaussian.py", "half_logdet + 0.5 * diag", "half_logdet + 1.0 * diag"),
    ("isotropic: log det sign", "priors/isotropic.py", "return -2 * self.dim", "return 2 * self.dim"),
    ("isotropic: exponent of the draw", "priors/isotropic.py", "self.log_scale.exp()", "(-self.log_scale).exp()"),
    ("equicorrelated: sign of ρ", "priors/equicorrelated.py", "float(1 / (1 - rho))", "float(1 / (1 + rho))"),
    ("equicorrelated: log det", "priors/equicorrelated.py", "+ self.between.log()", "- self.between.log()"),
    ("cholesky: log det sign", "priors/cholesky.py", "return 2 * self.log_diagonal", "return -2 * self.log_diagonal"),
    ("cholesky: 2 of the log det", "priors/cholesky.py", "return 2 * self.log_diagonal", "return self.log_diagonal"),
    ("cholesky: diagonal of the draw", "priors/cholesky.py", "(-self.log_diagonal).exp()", "self.log_diagonal.exp()"),
    ("blocks: 2 of the log det", "priors/block_diagonal.py", "return 2 * (total", "return 1 * (total"),
    ("blocks: diagonal of the draw", "priors/block_diagonal.py", "(-self.log_diagonal).exp()", "self.log_diagonal.exp()"),
    ("blocks: sum of groups", "priors/block_diagonal.py", "total = total + group", "total = total - group"),
    ("graph: sign of the ridge", "priors/laplacian.py", "forms(z)\n        return self.ridge *", "forms(z)\n        return -self.ridge *"),
    ("graph: 2 of the gradient", "priors/laplacian_forms.py", "grad = pull * (2 * g_smooth)", "grad = pull * (1 * g_smooth)"),
    ("graph: sign in the draw's edges", "priors/laplacian_operator.py", "-graph.weights.sign()", "graph.weights.sign()"),
    ("graph: surplus in the log det", "priors/component_lu.py", "gamma / scaling**2", "gamma * scaling**2"),
    ("graph: ground node", "priors/component_lu.py", "surplus[ground] + adj", "surplus[ground] - adj"),
    ("graph: path elimination", "priors/path_elimination.py", "a * b / pivot", "2 * a * b / pivot"),
    ("graph, learned: log det", "priors/spectrum.py", "(gamma + lam *", "(gamma - lam *"),
    ("graph, Lanczos: null space", "priors/lanczos.py", "self.nullity * ridge", "-self.nullity * ridge"),
    ("laplace: b of the density", "priors/laplace.py", "scale = self.log_scale.exp()", "scale = (-self.log_scale).exp()"),
]  # fmt: skip

SLOT_TESTS = [
    f"tests/test_{name}.py"
    for name in (
        "slots", "selection", "slot_pairs", "restrict", "slab", "screen", "auxk", "resampling",
        "matryoshka", "gated", "multi_topk", "switch", "matching_pursuit", "variational_topk",
    )
]  # fmt: skip
SLOTS = [
    ("bag: gradient of the table", "vsae/slots.py", "_rows(support, values, grad, len(table)) if to_table", "_rows(support, 2 * values, grad, len(table)) if to_table"),
    ("rows: gradient of the values", "vsae/slots.py", "_dots(x, support, grad) if to_values", "-_dots(x, support, grad) if to_values"),
    ("select: gradient of the centre", "vsae/select.py", "-(grad_bias @ weight)", "(grad_bias @ weight)"),
    ("select: centre in the weights' gradient", "vsae/select.py", "rows(support, grad, x - centre, len(weight))", "rows(support, grad, x, len(weight))"),
    ("top: index of a set's member", "vsae/select.py", "(place // k) * (n // groups)", "(place // k) * (n // groups - 1)"),
    ("screen: bound of the rest", "vsae/screen.py", "bounds[:, candidates - 1]", "bounds[:, candidates - 1] - 1"),
    ("restrict: cost of an empty slot", "priors/restrict.py", "log_prob(value) - empty", "log_prob(value)"),
    ("restrict: ½ of the form", "priors/restrict.py", "- 0.5 * self.quadratic(value)", "- self.quadratic(value)"),
    ("graph in slots: cross term", "priors/laplacian.py", "2 * (values * read(pull, support))", "(values * read(pull, support))"),
    ("slab: empty slots count", "priors/slab.py", "active = value != 0", "active = value == value"),
    ("TopK: not rectified", "vsae/posteriors/topk.py", "point(values.relu())", "point(values)"),
    ("BatchTopK: rank of the threshold", "vsae/posteriors/batch_topk.py", "* self.k + 1", "* self.k"),
    ("BatchTopK: threshold of evaluation", "vsae/posteriors/batch_topk.py", "torch.where(z > 0, z, torch.inf).amin()", "torch.where(z > 0, z, -torch.inf).amax()"),
    ("JumpReLU: sign of the pseudo-derivative", "vsae/posteriors/jumprelu.py", "(theta.detach() - theta) * kernel", "(theta - theta.detach()) * kernel"),
    ("JumpReLU: θ of the value's derivative", "vsae/posteriors/jumprelu.py", "v * active + theta.detach() * step", "v * active + step"),
    ("AuxK: residual carries a gradient", "vsae/models/residual.py", "obs=(x - mean).detach()", "obs=x - mean"),
    ("AuxK: centre", "vsae/posteriors/auxk.py", "- atoms @ encoder.centre()", "+ atoms @ encoder.centre()"),
    ("dead latents: rows, not steps", "vsae/dead_latents.py", "active[..., 0].numel()", "1"),
    ("resampling: second moment", "vsae/resampling.py", "state.mean() if name in SQUARES else 0.0", "0.0"),
    ("Matryoshka: a prefix's weight", "vsae/models/matryoshka.py", "noise / weight**0.5", "noise * weight**0.5"),
    ("gated: decoder not frozen", "vsae/models/gated.py", "gate, self.decoder.W_dec.detach()", "gate, self.decoder.W_dec"),
    ("multi-TopK: weight", "vsae/models/multi_topk.py", "weight**0.5", "weight"),
    ("Switch: loads carry no E", "vsae/models/switch.py", "return experts * (route @ share)", "return route @ share"),
    ("pursuit: residual", "vsae/posteriors/matching_pursuit.py", "residual = residual - value *", "residual = residual + value *"),
    ("TopKLink: by magnitude", "vsae/links.py", "z.detach().abs().topk", "z.detach().topk"),
]  # fmt: skip
TREE_TESTS = [
    f"tests/test_{name}.py"
    for name in (
        "tree_subsets",
        "released_hierarchical",
        "biorthogonality",
        "hierarchical",
        "whitening",
    )
] + ["vsae/leaky_threshold.py"]
TREES = [
    ("tree: offset of a level", "priors/tree.py", "sum(self.sizes[:level])", "sum(self.sizes[: level + 1])"),
    ("tree: parents", "priors/tree.py", "above + torch.arange(size)", "torch.arange(size)"),
    ("paths: k of the choices", "priors/tree_subsets.py", "self.k * sum(map(math.log", "sum(map(math.log"),
    ("paths: a child of the right parent", "priors/tree_subsets.py", 'rounding_mode="floor") == above', 'rounding_mode="floor") >= above'),
    ("paths: draws", "priors/tree_subsets.py", "place * each + torch.randint(each", "place * each + torch.randint(1"),
    ("child: amplitude", "vsae/child_dictionary.py", "amplitudes.unsqueeze(-1) * take", "amplitudes.unsqueeze(-1).abs() * take"),
    ("spread: rows of a subspace", "vsae/child_dictionary.py", "index.unsqueeze(-1) * each + torch.arange", "index.unsqueeze(-1) + torch.arange"),
    ("directions: of the level above", "vsae/child_dictionary.py", "repeat_interleave(parents // len(above), dim=0)", "repeat(parents // len(above), 1, 1)"),
    ("rows of some: the parent's place", "vsae/child_dictionary.py", 'place = place.div(tree.branching[above], rounding_mode="floor")', "place = place % tree.sizes[above]"),
    ("decode: of other levels", "vsae/hierarchical_decoder.py", "torch.where(here, z, 0.0)", "z"),
    ("decode: deeper levels", "vsae/hierarchical_decoder.py", "own if carried is None else carried + own", "own"),
    ("decode: bias of the roots' mean", "vsae/hierarchical_decoder.py", "return top, top + self._decode", "return self._decode(places[:1], amplitudes[:1]), top + self._decode"),
    ("project: centre", "vsae/hierarchical_encoder.py", "return inside - take(", "return inside + take("),
    ("best child: of its parent", "vsae/hierarchical_encoder.py", "return parent * self.branching + chosen", "return parent * self.branching + chosen * 0"),
    ("route: empty below an empty parent", "vsae/posteriors/routed.py", "self.child_activation(level) * (z[-1] > 0)", "self.child_activation(level)"),
    ("losers: the kept child pays twice", "vsae/posteriors/routed_losers.py", "(codes * (1 - rest))", "(codes * 1)"),
    ("losers: ties", "vsae/posteriors/routed_losers.py", "place, order = place.sort(-1)", "place, order = place.sort(-1, descending=True)"),
    ("model: top noise", "vsae/presets/hierarchical.py", "noise / top_weight**0.5", "noise * top_weight**0.5"),
    ("model: orthogonality once per row", "vsae/models/hierarchical.py", "self.orthogonality().expand(len(x))", "(self.orthogonality() / len(x)).expand(len(x))"),
    ("bi-orthogonality: own pairs", "vsae/biorthogonality.py", "- torch.linalg.vecdot(rows, atoms).square().sum()", ""),
    ("bi-orthogonality: sign", "vsae/biorthogonality.py", "return -self.weight *", "return self.weight *"),
    ("shipped: columns", "vsae/biorthogonality.py", "rows @ atoms.sum(0)", "atoms @ rows.sum(0)"),
    ("threshold: at the threshold", "vsae/leaky_threshold.py", "u >= self.threshold", "u > self.threshold"),
    ("released layout: columns", "vsae/conversions/released_hierarchical.py", 'if name in ("D", "W_up", "D_low")', 'if name in ("D", "D_low")'),
    ("released: an encoder bias is learned", "vsae/presets/published_hierarchical.py", "encoder.top.b_enc.requires_grad_(False)", "encoder.top.b_enc.requires_grad_(True)"),
]  # fmt: skip
ITERATION_TESTS = [
    f"tests/test_{name}.py"
    for name in ("fista", "mean_field", "mean_field_update", "expected_elbo")
]
ITERATION_FAST = "not (exports or program or average or saves or svi or mean_over_draws)"
ITERATION = [
    ("FISTA: step length", "vsae/posteriors/fista.py", "1 / greatest_eigenvalue(atoms)", "1.9 / greatest_eigenvalue(atoms)"),
    ("FISTA: σ² of the penalty", "vsae/posteriors/fista.py", "length * self.noise() ** 2", "length * self.noise()"),
    ("FISTA: no momentum", "vsae/posteriors/accelerated.py", "ahead = torch.lerp(z, new, 1 + (momentum - 1) / after)", "ahead = new"),
    ("FISTA: bias", "vsae/posteriors/fista.py", "target = x if bias is None else x - bias", "target = x"),
    ("FISTA: the plain one unrolls", "vsae/posteriors/fista.py", 'with torch.no_grad():\n            return {"z": point(self.solve(x))}', 'with torch.enable_grad():\n            return {"z": point(self.solve(x))}'),
    ("FISTA: bound on the eigenvalue", "vsae/posteriors/fista.py", "2 * (log_norm + norm.log())", "2 * log_norm + norm.log()"),
    ("FISTA: gradient of the step length", "vsae/posteriors/fista.py", "with torch.no_grad():\n        power", "with torch.enable_grad():\n        power"),
    ("proximal: one-sided", "vsae/posteriors/proximal.py", "(value - step * prior.rate).clamp(min=0)", "(value.abs() - step * prior.rate).clamp(min=0)"),
    ("proximal: Laplace", "vsae/posteriors/proximal.py", "(value.abs() - step / prior.scale)", "(value.abs() - step * prior.scale)"),
    ("relaxed: shrunk", "vsae/posteriors/relaxed_fista.py", "(ahead + residual @ atoms.mT)", "(ahead - 0.01 * length + residual @ atoms.mT)"),
    ("relaxed: support", "vsae/posteriors/relaxed_fista.py", "(values > 0).to(code.dtype)", "(values > 0.3).to(code.dtype)"),
    ("relaxed: no refit", "vsae/posteriors/relaxed_fista.py", "point(self.refit(x, self.solve(x)))", "point(self.solve(x))"),
    ("mean field: own code in the pull", "vsae/posteriors/mean_field.py", "residual @ atoms.mT + moments.code, sigma", "residual @ atoms.mT, sigma"),
    ("mean field: ½ of the variance", "vsae/posteriors/mean_field_update.py", "scale = (slab.precision + sharpness).rsqrt()", "scale = (slab.precision + 2 * sharpness).rsqrt()"),
    ("mean field: the amplitude's mean", "vsae/posteriors/mean_field_update.py", "addcmul(slab.linear, pull, sharpness)", "addcmul(0 * slab.linear, pull, sharpness)"),
    ("mean field: no field of gates", "vsae/posteriors/mean_field_update.py", "- slab.log_normaliser + field", "- slab.log_normaliser + 0 * field"),
    ("mean field: normaliser", "vsae/posteriors/mean_field_update.py", "- slab.log_normaliser + field", "+ slab.log_normaliser + field"),
    ("mean field: row noise without spread", "vsae/posteriors/mean_field.py", "residual.square().sum(-1) + moments.spread", "residual.square().sum(-1)"),
    ("mean field: gates lag", "vsae/posteriors/mean_field.py", "gate_field(gates, moments.rate)", "gate_field(gates, moments.rate * 0)"),
    ("mean field: the last step is damped", "vsae/posteriors/mean_field.py", "return update(*self._seen(target, moments, prior.gates, noise), slab)", "return update(*self._seen(target, Moments(moments.rate, self.damping * moments.code, moments.spread), prior.gates, noise), slab)"),
    ("mean field: mass of the tail", "vsae/posteriors/mean_field_update.py", "0.5 * amplitude.ratio**2 + amplitude.log_mass", "0.5 * amplitude.ratio**2 - amplitude.log_mass"),
    ("mean field: variance of a code", "vsae/posteriors/mean_field_update.py", "(square - code * code)", "square"),
    ("hasty: rough tail", "vsae/posteriors/mean_field_update.py", "LEAST = -12.0", "LEAST = -1.0"),
    ("hasty: twice the mass", "vsae/posteriors/mean_field_update.py", "(LOG_SQRT_TAU - math.log(2))", "LOG_SQRT_TAU"),
    ("hasty: no field of gates", "vsae/posteriors/mean_field_update.py", "known = field - slab", "known = 0 * field - slab"),
    ("hasty: the amplitude's mean", "vsae/posteriors/mean_field_update.py", ".add_(slab.linear)", ""),
    ("hasty: scale of the odds", "vsae/posteriors/mean_field_update.py", "(twice * scale).log_()", "twice.clone().log_()"),
    ("hasty: density of the tail", "vsae/posteriors/mean_field_update.py", "value=math.sqrt(2 / math.pi)", "value=math.sqrt(1 / math.pi)"),
    ("hasty: variance of an amplitude", "vsae/posteriors/mean_field_update.py", ".addcmul_(rate, variance)", ""),
    ("hasty: variance of a code", "vsae/posteriors/mean_field_update.py", "- torch.linalg.vector_norm(code, dim=-1) ** 2", ""),
    ("row noise: degrees", "vsae/row_noise.py", "(d_model + prior.alpha + 1)", "(d_model + prior.alpha)"),
    ("exclusion: sign", "priors/tree_gates.py", "* leaking - self.exclusion *", "* leaking + self.exclusion *"),
    ("expected ELBO: ½", "vsae/expected_elbo.py", "return 0.5 * (sources", "return 1.0 * (sources"),
    ("expected ELBO: lengths", "vsae/expected_elbo.py", "lengths = decoder.W_dec.square().sum(-1)", "lengths = decoder.W_dec.detach().square().sum(-1)"),
    ("expected ELBO: any posterior", "vsae/expected_elbo.py", 'name == "z" and _is_independent(q)', 'name == "z"'),
]  # fmt: skip
CROSSCODER_TESTS = [
    f"tests/test_{name}.py"
    for name in (
        "crosscoder",
        "crosscoder_faults",
        "crosscoder_golden",
        "crosscoder_masks",
        "decoupled",
        "released_crosscoder",
    )
]
CROSSCODERS = [
    ("sum of norms: slope", "vsae/atom_norms.py", "return torch.ones_like(norms)", "return 0.5 + norms"),
    ("mixed norm: slope", "vsae/atom_norms.py", "self.concatenated * norms / whole + self.summed", "self.concatenated * norms / whole"),
    ("gauge: direction", "vsae/layered_decoder.py", "per_column(steep, self.layers).mul_(self.W_dec)", "per_column(slope, self.layers).mul_(self.W_dec)"),
    ("gauge: length of the normal", "vsae/layered_decoder.py", "/ torch.linalg.vecdot(normal, normal)", ""),
    ("mask: gradient of the decoder", "vsae/layered_decoder.py", "gradient.mul_(per_column(self.writes, self.layers))", "gradient.mul_(1)"),
    ("mask: gradient of the encoder", "vsae/layered_encoder.py", "self.W_enc.grad.mul_(per_column(self.reads, self.layers))", "self.W_enc.grad.mul_(1)"),
    ("encoder: scale of the start", "vsae/layered_encoder.py", "start / start.square().sum(-1, keepdim=True)", "start"),
    ("mask: put back", "vsae/layered_encoder.py", "((self.W_enc != 0) & ~per_column(self.reads, self.layers)).any()", "False"),
    ("mask: an atom where there is none", "vsae/layered_decoder.py", "bool(((norms != 0) & ~self.writes).any())", "False"),
    ("encoder: blind beside its atom", "vsae/layered_encoder.py", "torch.where(atoms != 0, atoms, start[:, where])", "atoms"),
    ("guide: of the model inside", "vsae/layered_autoencoder.py", "guide = guide.following(model)", "model = pair.model"),
    ("skip: reads what it writes", "vsae/models/crosscoder.py", "if not fits or set(skip.inputs) & set(self.targets)", "if not fits"),
    ("causal: reads its own layer's successor", "vsae/causality.py", "number <= own[:, None], number > own[:, None]", "number <= own[:, None] + 1, number > own[:, None]"),
    ("skip: sign", "vsae/models/crosscoder.py", "self.model(explained - offset) + offset", "self.model(explained + offset) - offset"),
    ("skip: left out of what is restored", "vsae/layered_autoencoder.py", "mean = mean + self.model.skip", "mean = mean + 0 * self.model.skip"),
    ("units: Jacobian of the targets", "vsae/layered_autoencoder.py", "units(self.model.targets)[1].log()", "units(range(len(self.layers)))[1].log()"),
    ("units: a scale per layer", "vsae/layer_normalizer.py", "square.mean().sqrt() for square in squares", "square.sum().sqrt() for square in squares"),
    ("take: other layers", "vsae/layers.py", "return parts[chosen[0]] if", "return parts[0] if"),
    ("decoupled: layer of a coordinate", "vsae/decoupled_decoder.py", "flat % count, count, self.atoms", "flat // count % count, count, self.atoms"),
    ("decoupled: size of a winner", "vsae/decoupled_encoder.py", "scores * self.log_sizes[support].exp()", "scores * self.log_sizes[latent].exp()"),
    ("released: sizes of the encoder", "vsae/conversions/released_crosscoder.py", 'given["b_enc"] * size', 'given["b_enc"]'),
    ("released: mean folded in", "vsae/conversions/released_crosscoder.py", "encoder.b_enc.detach() - reads @ mean", "encoder.b_enc.detach()"),
]  # fmt: skip
LADDER_TESTS = [
    f"tests/test_{name}.py" for name in ("ladder", "variational_ladder", "ladder_metrics")
]
LADDERS = [
    ("lateral: share of the guess", "vsae/lateral_decoder.py", "alpha * below[i] + (1 - alpha) * guess", "alpha * below[i] + guess"),
    ("lateral: bias carried down", "vsae/lateral_decoder.py", "bias = bias + through[..., i, None] *", "bias = bias +"),
    ("consistency: the view is stopped", "vsae/consistency.py", "return view.detach()", "return view"),
    ("consistency: views are those below", "vsae/consistency.py", "seen = [x, *codes[:-1]]", "seen = [x, *codes[1:]]"),
    ("encoder: rectified between levels", "vsae/ladder_encoder.py", "below = found[-1][..., :size].relu()", "below = found[-1][..., :size]"),
    ("merge: variance", "vsae/precision_weighted.py", "(precisions[0] + precisions[1]).reciprocal()", "precisions[1].reciprocal()"),
    ("merge: means", "vsae/precision_weighted.py", "p.loc * precisions[0] + q.loc * precisions[1]", "p.loc * precisions[1] + q.loc * precisions[0]"),
    ("merge: the first level, too", "vsae/precision_weighted.py", "self._given[name] if first else merge", "merge(prior, prior) if first else merge"),
    ("ladder: priors of other levels", "vsae/models/ladder.py", "for i, p in enumerate(beliefs, start=1)]", "for i, p in enumerate(beliefs[:1] * len(beliefs), start=1)]"),
]  # fmt: skip
ROW_TESTS = [
    f"tests/test_{name}.py"
    for name in (
        "sample_graph",
        "latent_graphs",
        "product",
        "target_l0",
        "refreshed_graphs",
        "retrieval_scores",
    )
]
ROWS = [
    ("smoothness: half to each end", "vsae/sample_graph_elbo.py", "half = 0.5 * edges.size * gap", "half = edges.size * gap"),
    ("smoothness: sign of a weight", "priors/induced.py", "np.sign(weight) * scaling[high]", "scaling[high]"),
    ("smoothness: once per edge", "priors/induced.py", "kept = other > own", "kept = other >= 0"),
    ("edge batches: both ends", "vsae/edge_batches.py", "ends = pairs.mT.reshape(-1).numpy()", "ends = pairs.reshape(-1).numpy()"),
    ("lifted: unit profiles", "priors/lifted.py", "profile = unit_columns(matrix)", "profile = matrix"),
    ("lifted: own node", "priors/lifted.py", "graph.adjacency() + own *", "graph.adjacency() - own *"),
    ("neighbours: largest weights", "priors/_latent_pairs.py", "(column, -weight, row)", "(column, weight, row)"),
    ("product: entropy of the KL", "priors/product.py", "kl_divergence(marginals, p.laplace) + marginals.entropy()", "kl_divergence(marginals, p.laplace)"),
    ("product: restricted entropy", "priors/product.py", "kl_divergence(q, laplace) + q.entropy()", "kl_divergence(q, laplace)"),
    ("target: active codes", "vsae/target_l0.py", "else code > 0", "else code > 0.5"),
    ("target: limits", "vsae/target_l0.py", "self.log_beta.clamp_(*map(math.log, self.limits))", "self.log_beta.clamp_(-50, 50)"),
]  # fmt: skip
MOVES = [
    ("merge: what the second adds", "vsae/moves.py", "both = self.sizes([i, j]) @ self.atoms[[i, j]]", "both = self.sizes([i]) @ self.atoms[[i]]"),
    ("merge: the second is free", "vsae/moves.py", "self._set(k, torch.full_like(size, LEAST), size)", "pass"),
    ("merge: those that say less", "vsae/moves.py", "one = index > TIED or self.shared(i, j)", "one = index > TIED"),
    ("merge: not by a whole feature", "vsae/moves.py", "(less > LEAST_LESS) & (less < LESS)", "(less > 0) & (less < LESS)"),
    ("merge: the more frequent says less", "vsae/moves.py", "(i, j) if self.count[i] > self.count[j] else (j, i)", "(i, j) if self.count[i] < self.count[j] else (j, i)"),
    ("alike: chunks", "vsae/moves.py", "(rows + first).tolist()", "rows.tolist()"),
    ("alike: order", "vsae/moves.py", "key=lambda pair: -pair[0]", "key=lambda pair: pair[0]"),
    ("jaccard", "vsae/moves.py", "self.count[first, None] + self.count - both", "self.count[first, None] + self.count"),
    ("unfold: what the difference adds", "vsae/moves.py", "self.sizes([k, a]).sum() / 2**0.5", "self.sizes([k]).sum() / 2**0.5"),
    ("unfold: opposite", "vsae/moves.py", "lambda first: -self.atoms[first] @ self.atoms.mT", "lambda first: self.atoms[first] @ self.atoms.mT"),
    ("unfold: the third is free", "vsae/moves.py", "                self.release(b)\n", ""),
    ("split: halves", "vsae/moves.py", "self.atoms[k] = normalize(atom - along, dim=0)", "self.atoms[k] = atom"),
    ("split: size of the halves", "vsae/moves.py", "size = self.sizes([k])[0] / 2**0.5", "size = self.sizes([k])[0]"),
    ("split: where those below are silent", "vsae/moves.py", "rows = self.left[alone if int(alone.sum()) >= FEWEST else fires]", "rows = self.left[fires]"),
    ("split: those below leave the plane", "vsae/moves.py", "rest = self.atoms - self.atoms @ plane.mT @ plane", "rest = self.atoms.clone()"),
    ("split: no more than asked for", "vsae/moves.py", ".tolist()[:most]", ".tolist()"),
    ("split: with what never fires", "vsae/moves.py", "self.free = self.moved & (", "self.free = ("),
    ("split: with what was merged away", "vsae/moves.py", "        self.free[k] = True\n", ""),
    ("the optimiser forgets", "vsae/moves.py", "            forget(optimizer, atoms, changed)\n", "            pass\n"),
    ("split: a sign of its own", "vsae/moves.py", "return along if (rows @ along).pow(3).sum() >= 0 else -along", "return along"),
    ("rows in chunks", "vsae/moves.py", "for part in x.split(ROWS)", "for part in x.split(ROWS)[:1]"),
    ("power: where it fires", "vsae/moves.py", "normalize(along, dim=-1).mT) * self.on", "normalize(along, dim=-1).mT)"),
    ("power: above the mean", "vsae/moves.py", " - self.on.mT @ self.left.square().mean(-1)", ""),
    ("seldom firing latents stay", "vsae/moves.py", "self.moved = self.count < FEWEST", "self.moved = self.count < 0"),
    ("the prior follows", "vsae/moves.py", "        pair.model.prior.follow(self.moments)\n", ""),
    ("recipe: merges only, at the end", "vsae/recipes/recovery.py", "most = None if step < settled else 0", "most = None"),
    ("recipe: the last quarter without", "vsae/recipes/recovery.py", "steps * 3 // 4, every", "steps, every"),
    ("between: before its step", "vsae/run.py", "if self.step in due:", "if self.step + 1 in due:"),
]  # fmt: skip
AMPLITUDES = [
    ("match: slope", "priors/amplitudes.py", "/ (2 * deviation**3)", "/ deviation**3"),
    ("match: steps", "priors/amplitudes.py", "NEWTON = 8", "NEWTON = 4"),
    ("match: as if nothing were cut off", "priors/amplitudes.py", "far = first > FARTHEST * variance.sqrt()", "far = first > 0"),
    ("match: scale", "priors/amplitudes.py", "return ratio, mean / _cut_off(ratio)[1]", "return ratio, variance.sqrt()"),
    ("match: the flattest", "priors/amplitudes.py", "FARTHEST, NEAREST = 6.0, -5.0", "FARTHEST, NEAREST = 6.0, -4.0"),
    ("match: the farthest", "priors/amplitudes.py", "FARTHEST, NEAREST = 6.0, -5.0", "FARTHEST, NEAREST = 4.0, -5.0"),
]  # fmt: skip
SUITES = {
    "amplitudes": (["tests/test_truncated_normal.py"], "match or found_again or vary", AMPLITUDES),
    "moves": (["tests/test_moves.py"], "", MOVES),
    "crosscoders": (CROSSCODER_TESTS, "not (flat_model or presets)", CROSSCODERS),
    "ladders": (LADDER_TESTS, "", LADDERS),
    "rows": (ROW_TESTS, "", ROWS),
    "iteration": (ITERATION_TESTS, ITERATION_FAST, ITERATION),
    "priors": (GAUSSIANS, FAST, PRIORS),
    "slots": (SLOT_TESTS, "", SLOTS),
    "trees": (TREE_TESTS, "not children_explain", TREES),
}


def _verdict(tree: Path, tests: list[str], fast: str) -> str:
    """The first test that fails in a copy of the project, or the empty string."""
    chosen = [*tests, *(["-k", fast] if fast else [])]
    command = [sys.executable, "-m", "pytest", *chosen, "-x", "-q", "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, timeout=600
    )
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", run.stdout, re.MULTILINE)
    if run.returncode == 0:
        return ""
    return failed.group(1) if failed else run.stdout[-400:] + run.stderr[-400:]


def _mutated(tree: Path, suite: tuple, name: str, old: str, new: str) -> str:
    file = tree / name
    original = file.read_text()
    if original.count(old) != 1:
        return f"not applicable: {original.count(old)} places read {old!r}"
    file.write_text(original.replace(old, new))
    found = _verdict(tree, *suite)
    file.write_text(original)
    return found or "SURVIVED"


def _run(tree: Path, tests: list[str], fast: str, mutations: list[tuple]) -> int:
    if unchanged := _verdict(tree, tests, fast):
        print(f"the unchanged copy fails: {unchanged}")
        return 1
    print(f"{'mutation':40}  killed by", flush=True)
    bad = 0
    for what, name, old, new in mutations:
        found = _mutated(tree, (tests, fast), name, old, new)
        bad += found.startswith(("SURVIVED", "not applicable"))
        print(f"{what:40}  {found}", flush=True)
    print(f"{len(mutations) - bad} of {len(mutations)} mutations made a test fail", flush=True)
    return bad


def main(names: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for part in ("priors", "vsae", "toys", "tests"):
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        conftest = tree / "tests" / "conftest.py"  # a gross mistake needs few examples
        conftest.write_text(conftest.read_text().replace("max_examples=500", "max_examples=25"))
        return int(sum(_run(tree, *SUITES[name]) for name in names or SUITES) > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
