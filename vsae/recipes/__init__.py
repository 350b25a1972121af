"""Whole trainings: phases of the same dictionary under different priors."""

from vsae.recipes.recovery import RecoveryRecipe as RecoveryRecipe
from vsae.recipes.sparse_coding import SparseCodingRecipe as SparseCodingRecipe
