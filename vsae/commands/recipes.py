"""Which recipe a name stands for; torch is imported to train."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from vsae.commands.architectures import Choice

RECIPES = {  # name: what its settings are, with their defaults
    "recommended": {"k": 32},
    "spike-slab": {},
}
ITS_OWN = ("batch_size", "lr", "steps")  # of a recipe, not of the command line


def choose_recipe(given: Mapping[str, object], explicit: set[str]) -> Choice:
    """What ``--recipe`` asks for.

    Raises:
        ConfigError: ``train.option`` for an option that would be ignored.

    Example:
        >>> choose_recipe({"recipe": "recommended", "k": 8}, set()).settings
        {'k': 8}
    """
    name = str(given["recipe"])
    known = RECIPES[name]
    ignored = (given.keys() - known.keys() - {"recipe"}) | (explicit & set(ITS_OWN))
    if ignored:
        from priors.errors import ConfigError

        flags = ", ".join("--" + option.replace("_", "-") for option in sorted(ignored))
        raise ConfigError(
            f"options without an effect: got {flags}, but a recipe has phases with settings of "
            "their own. Leave them out, or use the recipe from Python.",
            code="train.option",
            context={"ignored": sorted(ignored)},
        )
    return Choice(name, "flat", known | {n: v for n, v in given.items() if n in known})


def phases(choice: Choice, data, options: argparse.Namespace):
    """The run of every phase, each to be brought to its end before the next is asked for."""
    from vsae.recipes import RecoveryRecipe, SparseCodingRecipe

    if choice.architecture == "recommended":
        recipe = SparseCodingRecipe(k=choice.settings["k"])
    else:
        recipe = RecoveryRecipe()
    return recipe.phases(data, latents=options.latents, seed=options.seed)


def used(options: argparse.Namespace, choice: Choice) -> dict[str, object]:
    """All settings of a training that had a part in it: a recipe has steps and rates of its own."""
    recipe = "recipe" in options
    found = {n: v for n, v in vars(options).items() if not recipe or n not in ITS_OWN}
    if not recipe:
        found |= {"architecture": choice.architecture, "prior": choice.prior}
    found |= choice.settings
    return {n: str(v) if isinstance(v, Path) else v for n, v in found.items()}
