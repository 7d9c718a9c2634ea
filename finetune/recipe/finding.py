"""What a rule of a recipe finds: `Finding`, `Rule`, `is_set`; the rules are in `rules` and `contestant_rules`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from finetune.recipe.schema import Recipe, Section

# What a revision has to be for foreign code to be the code that somebody has read
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Finding:
    """A broken rule: the key to change, what is wrong, the fix, and the other sections the rule looked at."""

    key: str
    what: str
    fix: str
    looked_at: tuple[str, ...] = ()

    def sections(self) -> set[str]:
        """Return the sections, by dotted name, that the finding depends on."""
        return {self.key.rpartition(".")[0], *self.looked_at}


Rule = Callable[[Recipe], Iterator[Finding]]


def is_set(recipe: Recipe, key: str) -> bool:
    """Tell whether a dotted key was written, with something else than null; entries of lists go by their number."""
    section: object = recipe
    for name in key.split("."):
        if isinstance(section, tuple) and name.isdecimal() and int(name) < len(section):
            section = section[int(name)]
            continue
        if not isinstance(section, Section) or name not in section.model_fields_set:
            return False
        section = getattr(section, name)
    return section is not None
