"""A word on the command line out of a few, as click has it, and the nearest one where it is another."""

import click

from memhpfs.words import did_you_mean

__all__ = ["WordParam"]


class WordParam(click.Choice[str]):
    """One of some words."""

    def get_invalid_choice_message(self, value: object, ctx: click.Context | None) -> str:
        """What is allowed, and what was meant."""
        said, hint = super().get_invalid_choice_message(value, ctx), did_you_mean(str(value), self.choices)
        return said.removesuffix(".") + hint if hint else said
