"""What the truth itself scores, where bars ask for fewer firings than there are."""

from dataclasses import dataclass

import torch

from toys.reproduce.jobs import Found, Job
from toys.reproduce.recovery_data import Draw, problem
from toys.reproduce.recovery_scores import TRIMMED, Codes, plain, scored
from toys.reproduce.recovery_truth import Directions

TRUTH = "truth"


@dataclass(frozen=True, kw_only=True)
class CeilingJob(Job):
    """True features and codes, scored as trained ones are; nothing is trained.

    Its surest firings are its largest. The other way to have fewer firings is to silence features,
    the most frequent first: ``f1_silenced``.

    Args:
        draw: Which rows.
        keep: Features kept by the smaller one, those of greatest mean square.
    """

    draw: Draw
    keep: int

    @property
    def arm(self) -> str:
        """Its name in tables."""
        return TRUTH

    def compute(self) -> Found:
        found = problem(self.draw)
        assert isinstance(found.truth, Directions)
        codes, atoms = found.truth.strengths, found.truth.dictionary
        kept = codes.square().mean(0).topk(self.keep).indices.sort().values
        row = {"case": self.draw.case, "seed": self.draw.generator, "arm": self.arm, "failed": None}
        row |= {"strength": None, "structure": "none", "ev": None}
        row |= {"seen": 0, "seconds": 0.0, "curve": []}
        row |= scored(found, atoms, Codes(codes, codes))
        few = scored(found, atoms[kept], Codes(codes[:, kept], codes[:, kept]))
        fires = codes > 0
        seldom = torch.where(fires, -fires.double().mean(0), -torch.inf)
        left = Codes(codes, seldom.to(codes.dtype)).trimmed(TRIMMED)
        if left is not None:
            row["f1_silenced"] = found.truth.classification(atoms, left).f1
        return Found(plain(row | {"pruned": few}))
