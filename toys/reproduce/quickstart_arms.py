"""Training the arms of the quickstart: all from one first ℓ1 run, on the same rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from priors.replicas import stack, unstack
from toys.reproduce.quickstart_settings import Settings
from toys.reproduce.quickstart_structure import Belief, Structure, priors
from vsae.autoencoder import Autoencoder
from vsae.normalizers import AffineNormalizer
from vsae.presets import l1_autoencoder, variational_autoencoder
from vsae.schedules import LinearDecay
from vsae.training import fit

L1 = "ℓ1"
POSTERIOR_SCALE = 0.2  # of a V-SAE's latents to begin with, in units of the prior's scale


@dataclass(frozen=True, eq=False)
class Trained:
    """One arm at one strength, trained.

    Args:
        arm: Its name.
        strength: λ of the ℓ1 arm, σ of a V-SAE.
        pair: The autoencoder.
        records: What training measured.
    """

    arm: str
    strength: float
    pair: Autoencoder
    records: list[dict]

    @property
    def name(self) -> str:
        """For file names: ASCII, without spaces."""
        plain = self.arm.replace("ℓ", "l").replace(" ", "_").lower()
        return f"{plain}-{self.strength:.3g}"


@dataclass(frozen=True, eq=False)
class Plan:
    """What the first run decides for the arms.

    Args:
        first: The first run.
        structure: Its graph and blocks.
        belief: Mean and scale of the V-SAEs' priors.
        noises: σ of the V-SAEs, in normalised activation units.
        ratio: Strength over ridge of the graph priors.
    """

    first: Autoencoder
    structure: Structure
    belief: Belief
    noises: tuple[float, ...]
    ratio: float

    def priors(self) -> dict[str, nn.Module]:
        """Fresh ones, by arm."""
        return priors(self.structure, self.belief, ratio=self.ratio)

    def variational(self, arm: str, noise: float) -> Autoencoder:
        """An untrained V-SAE with rectified codes, under a fresh prior."""
        return variational_autoencoder(
            self.first.W_dec.shape[1],
            self.priors()[arm],
            noise=noise,
            link=nn.ReLU(),
            scale=POSTERIOR_SCALE * self.belief.scale,
            normalizer=self.first.normalizer,
        )


def first_run(x: Tensor, settings: Settings) -> Autoencoder:
    """The ℓ1 SAE from random atoms, that gives latents their identity."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        pair = l1_autoencoder(
            x.shape[-1], settings.latents, l1=settings.first_l1, normalizer=AffineNormalizer.fit(x)
        )
    _train(pair, x, settings, f"first {L1} run", settings.first_steps, settings.first_lr, 1)
    return pair


def l1_arm(first: Autoencoder, x: Tensor, settings: Settings) -> list[Trained]:
    """The ℓ1 SAE at every λ, from the first run."""
    d_model, latents = x.shape[-1], settings.latents
    pairs = [
        started(l1_autoencoder(d_model, latents, l1=l1, normalizer=first.normalizer), first)
        for l1 in settings.l1s
    ]
    return _arm(L1, settings.l1s, pairs, x, settings)


def variational_arms(plan: Plan, x: Tensor, settings: Settings) -> list[Trained]:
    """Every V-SAE arm at every σ, from the first run."""
    arms = plan.priors()
    trained = []
    for arm in arms:
        pairs = [started(plan.variational(arm, noise), plan.first) for noise in plan.noises]
        trained += _arm(arm, plan.noises, pairs, x, settings)
    return trained


@torch.no_grad()
def started(pair: Autoencoder, first: Autoencoder) -> Autoencoder:
    """``pair`` with the first run's atoms, bias and encoder of the mean; scales start constant."""
    latents = len(first.W_dec)
    pair.model.decoder.load_state_dict(first.model.decoder.state_dict())
    encoder = pair.guide.posterior.encoder
    encoder.W_enc[:, :latents] = first.W_enc
    encoder.W_enc[:, latents:] = 0.0
    encoder.b_enc[:latents] = first.b_enc
    return pair


def _arm(
    arm: str, strengths: Sequence[float], pairs: list[Autoencoder], x: Tensor, settings: Settings
) -> list[Trained]:
    """All strengths of an arm at once, as replicas; each sees the rows it would see alone."""
    together = stack(pairs)
    records = _train(together, x, settings, arm, settings.steps, settings.lr, len(pairs))
    return [
        Trained(arm, strength, pair, [_of(record, r) for record in records])
        for r, (strength, pair) in enumerate(zip(strengths, unstack(together), strict=True))
    ]


def _of(record: dict, replica: int) -> dict:
    return {n: v[replica] if isinstance(v, list) else v for n, v in record.items()}


def _train(
    pair: Autoencoder, x: Tensor, settings: Settings, name: str, steps: int, lr: float, models: int
) -> list[dict]:
    training = fit(
        pair,
        x,
        steps=steps,
        batch_size=settings.batch,
        lr=lr,
        lr_schedule=LinearDecay(start=steps * 4 // 5, end=steps),
        seed=settings.seed if models == 1 else [settings.seed] * models,
    )
    every, kept = max(1, steps // 100), []
    for record in tqdm(training, total=steps, desc=f"{name:>16}", unit="step", mininterval=0.5):
        if record.step % every == 0 or record.step == steps - 1:
            kept.append(record.to_dict())
    return kept
