"""Which prior a name stands for, and which options it listens to. Imports torch when building."""

# Name: options with their defaults.
PRIORS: dict[str, dict[str, object]] = {
    "flat": {},
    "laplace": {"l1": 0.1},
    "isotropic": {},
    "cholesky": {},
    "blocks": {"block": 8},
    "graph": {"graph": None, "ridge": 1.0, "strength": 1.0},
}


def build_prior(name: str, latents: int, settings: dict):
    """The prior of that name over so many latents.

    Laplace takes its scale from the coefficient: ``b = 2σ²/λ``, with the model's σ, or σ² = ½.
    """
    import priors

    if name == "laplace":
        variance = 0.5 if settings.get("noise") is None else settings["noise"] ** 2
        return priors.LaplacePrior(latents, scale=2 * variance / settings["l1"])
    if name == "graph":
        graph, scales = _graph(settings["graph"], latents), ("ridge", "strength")
        return priors.GraphLaplacianPrior(graph, **{name: settings[name] for name in scales})
    if name == "blocks":
        full, rest = divmod(latents, settings["block"])
        return priors.BlockDiagonalPrior((settings["block"],) * full + ((rest,) if rest else ()))
    plain = {
        "flat": priors.FlatPrior,
        "isotropic": priors.IsotropicPrior,
        "cholesky": priors.CholeskyPrior,
    }
    return plain[name](latents)


def _graph(path, latents: int):
    from priors import Graph
    from priors.errors import ConfigError, GraphError
    from vsae.activations import read_array

    if path is None:
        raise ConfigError("--prior graph needs --graph EDGES.npy.", code="train.graph")
    edges = read_array(path)
    if edges.ndim != 2 or edges.shape[1] not in (2, 3):
        raise GraphError(
            f"{path} has shape {edges.shape}: expected (E, 2) or (E, 3).", code="graph.shape"
        )
    weights = edges[:, 2].astype(float) if edges.shape[1] == 3 else None
    if (edges[:, :2] != edges[:, :2].round()).any():
        raise GraphError(f"{path} names nodes by fractions.", code="graph.dtype")
    return Graph.from_edges(edges[:, :2].T.astype(int), weights, num_nodes=latents)
