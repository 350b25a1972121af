"""Document A's printed numbers: data with their source, never mixed with numbers measured here."""

from typing import NamedTuple

SOURCE = (
    "Li et al. (2025), From Unruly Stacks to Organized Shelves: Toy Model Validation of Structured "
    "Priors in Sparse Autoencoders, §3.4"
)
LATENTS = 32


class Printed(NamedTuple):
    """One row of its tables: mean squared errors, active latents of 32, and a KL in nats."""

    sae_mse: float
    vae_mse: float
    sae_l0: int
    vae_l0: int
    kl: float | None = None


TABLE = {
    "case1": Printed(0.015, 0.010, 8, 12),
    "case2": Printed(0.020, 0.014, 8, 12),
    "case3": Printed(0.025, 0.018, 10, 14),
    "case4": Printed(0.030, 0.022, 10, 13),
    "case5": Printed(0.028, 0.020, 11, 14),
    "case6": Printed(0.032, 0.025, 12, 15, 6.4),
}
