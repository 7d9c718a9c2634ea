"""Many tasks, margins and plans: Holm's verdicts, what a task will be able to show, whether a loss stays small."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from finetune.evaluation.statistics.inference import Bounds, degrees_of_freedom, group_numbers, reach_of, unit_sizes
from finetune.evaluation.statistics.paired import MIN_UNITS, Comparison, Verdict
from finetune.evaluation.statistics.proportions import minimum_detectable_effect
from finetune.evaluation.wording import percent, rounded_up

DISCORDANCE = 0.2
"""Share of items on which contestants are taken to differ before anything is known of them."""
LIKENESS = 0.2
"""Share of the differences' variance taken to lie between groups before anything is known of them."""

Keeping = Literal["keeps", "forgets", "cannot tell"]


# --------------------------------------------------------------------------------------------------- several tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class Holm:
    """A task's verdict when all `tasks` were asked at once. `p_value` is None for a task too small to be tested."""

    p_value: float | None
    tasks: int
    verdict: Verdict

    def as_json(self) -> dict[str, Any]:
        """The two keys that a task's results have of it."""
        return {"p_holm": self.p_value, "holm": {"tasks": self.tasks, "verdict": self.verdict}}


def holm(comparisons: Sequence[Comparison]) -> list[Holm]:
    """Judge the tasks of one contestant together, so that the chance of any false verdict stays below the level.

    With ten tasks and no real difference, one verdict in ten tests at 5 % would be false in 40 of 100 runs. Tasks with
    too few items to tell are no part of the family: they are not tested, whatever their scores.

    Args:
        comparisons: The contestant's comparison with base on each task.
    """
    tested = [found for found in comparisons if found.verdict != "too few items to tell"]
    values = iter(adjusted([found.p_value for found in tested]))
    together = []
    for found in comparisons:
        value = None if found.verdict == "too few items to tell" else next(values)
        stands = value is None or value <= 1 - found.confidence
        verdict: Verdict = found.verdict if stands else "no detectable difference"
        together.append(Holm(p_value=value, tasks=len(tested), verdict=verdict))
    return together


def adjusted(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted by Holm's step-down procedure (Holm 1979, Scand. J. Stat. 6:65-70).

    The k-th smallest of m is multiplied by m - k + 1, and none becomes smaller than one before it. The procedure holds
    for p-values that depend on each other in any way.
    """
    found, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        found[place] = highest
    return found


# ------------------------------------------------------------------------------------------------- before the run


def planned_mde(
    n: int,
    *,
    binary: bool,
    bounds: Bounds | None = (0.0, 1.0),
    confidence: float = 0.95,
    clusters: Sequence[Hashable] | None = None,
    discordance: float = DISCORDANCE,
    likeness: float = LIKENESS,
) -> float | None:
    """Smallest difference that a task will show with 80 % power, said before any answer is there.

    The contestants are taken to differ on a share `discordance` of the items, there by as much as the score's bounds
    allow: graded scores that differ by less show smaller differences. n items in groups of sizes m count as
    n / (1 + (sum m^2 / sum m - 1) likeness) independent ones (Kish 1965, Survey Sampling; for unequal groups Donner &
    Klar 2000), and Student's t with the groups' degrees of freedom takes the place of the normal.

    Returns:
        The difference in the score's unit; None where the score has no bounds or the units are too few for a verdict.

    Raises:
        ValueError: `n` or a share makes no sense, or there are not as many group names as items.
    """
    if n < 1 or not 0 <= discordance <= 1 or not 0 <= likeness <= 1:
        raise ValueError(f"needs n >= 1 and shares between 0 and 1, not {n}, {discordance}, {likeness}")
    groups = group_numbers(clusters, n)
    sizes = unit_sizes(groups, n)
    if bounds is None or len(sizes) < MIN_UNITS:
        return None
    if groups is None and binary:
        return minimum_detectable_effect(n, discordance, confidence)
    effective = n / (1 + (float(sizes @ sizes) / n - 1) * likeness)
    reach = reach_of(degrees_of_freedom(sizes), confidence)
    share = reach * math.sqrt(max(discordance, reach**2 / effective) / effective)
    return (bounds[1] - bounds[0]) * min(1.0, share)


def planned_sentence(
    task: str,
    n: int,
    *,
    binary: bool,
    bounds: Bounds | None = (0.0, 1.0),
    confidence: float = 0.95,
    clusters: Sequence[Hashable] | None = None,
) -> str:
    """Say in one sentence, before the run, what the task will be able to show (see `planned_mde`)."""
    found = planned_mde(n, binary=binary, bounds=bounds, confidence=confidence, clusters=clusters)
    groups = group_numbers(clusters, n)
    units = len(unit_sizes(groups, n))
    kind = "item" if groups is None else "group"
    size = f"{n:,} item{'s'[: n != 1]}" + ("" if groups is None else f" in {units:,} groups")
    if units < MIN_UNITS:
        return f"{task}: {size} will give no verdict, which needs at least {MIN_UNITS} {kind}s."
    if found is None:
        return f"{task}: what {size} can show is known once scores are in, which have no bounds."
    return (
        f"{task}: {size} show a difference of {rounded_up(found, 2)} or more with 80 % power "
        f"(at {percent(confidence)}, if the contestants differ on {percent(DISCORDANCE)} of them)."
    )


# ----------------------------------------------------------------------------------------------------- no worse than


@dataclass(frozen=True, slots=True, kw_only=True)
class NonInferiority:
    """Whether the tuned contestant lost more than `margin`; `loss` is positive where it is the worse one."""

    margin: float
    loss: float
    interval: tuple[float, float]
    verdict: Keeping


def non_inferiority(found: Comparison, *, margin: float, higher_is_better: bool) -> NonInferiority:
    """Judge a loss against a margin that was chosen before (Piaggio et al. 2012, JAMA 308:2594-2604).

    `keeps` where the whole interval of the loss lies within the margin, `forgets` where all of it lies beyond, and
    `cannot tell` else, also where there are too few items. With a two-sided interval of 95 %, "keeps" is wrong in at
    most 2.5 of 100 runs where the loss is as large as the margin. For right-or-wrong scores of independent items this
    is Tango's test of non-inferiority.

    Args:
        found: Tuned against base.
        margin: Largest loss that counts as none, in the score's unit.
        higher_is_better: Whether the larger score wins.

    Raises:
        ValueError: The margin is negative or not finite.
    """
    if not (math.isfinite(margin) and margin >= 0):
        raise ValueError(f"a margin is a finite number from 0 on, not {margin}")
    low, high = found.interval
    loss = -found.difference if higher_is_better else found.difference
    interval = (-high, -low) if higher_is_better else (low, high)
    verdict: Keeping = "cannot tell"
    if found.verdict != "too few items to tell":
        verdict = "keeps" if interval[1] <= margin else "forgets" if interval[0] > margin else "cannot tell"
    return NonInferiority(margin=margin, loss=loss, interval=interval, verdict=verdict)
