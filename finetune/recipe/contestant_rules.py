"""What contestants and the judge of a recipe mean for each other; run with all other rules by `rules.findings`."""

from __future__ import annotations

from collections.abc import Iterator

from finetune.recipe.contestants import Endpoint, EndpointContestant, ModelContestant
from finetune.recipe.finding import COMMIT, Finding, Rule
from finetune.recipe.paths import is_hub_base
from finetune.recipe.schema import PretrainObjective, Recipe
from finetune.recipe.words import or_list

# Who always takes part, and what a record of answers holds beside them
_TAKEN = ("base", "tuned", "id", "group", "prompt", "reference")
# What is decided by the question, and by answers being read whole
_OURS = ("model", "messages", "stream", "n")


def contestants_have_names(recipe: Recipe) -> Iterator[Finding]:
    """Results are told by name, so each has its own."""
    seen: dict[str, int] = {}
    for number, section in enumerate(recipe.evaluate.contestants):
        key = f"evaluate.contestants.{number}.name"
        first = seen.setdefault(section.name, number)
        if section.name in _TAKEN:
            yield Finding(key, f"{key} is {section.name!r}, a name that is taken", "give it another name")
        elif first != number:
            what = f"{key} is {section.name!r}, as is evaluate.contestants.{first}.name"
            yield Finding(key, what, "give each contestant its own name")


def contestants_of_the_hub(recipe: Recipe) -> Iterator[Finding]:
    """Only hub models have revisions, and their code is run only from a commit somebody has looked at."""
    for number, section in enumerate(recipe.evaluate.contestants):
        if not isinstance(section, ModelContestant):
            continue
        key, hub = f"evaluate.contestants.{number}", is_hub_base(section.base)
        if section.revision is not None and not hub:
            what = f"{key}.revision has no effect: {section.base!r} is not a hub model"
            yield Finding(f"{key}.revision", what, f"remove {key}.revision")
        if section.trust_remote_code and hub and not COMMIT.fullmatch(section.revision or ""):
            yield Finding(
                f"{key}.trust_remote_code",
                f"trust_remote_code runs whatever code {section.base!r} holds on the day",
                f"set {key}.revision to the full commit hash (40 characters) whose code you have read",
            )


def _endpoints(recipe: Recipe) -> Iterator[tuple[str, Endpoint]]:
    for number, section in enumerate(recipe.evaluate.contestants):
        if isinstance(section, EndpointContestant):
            yield f"evaluate.contestants.{number}", section
    if recipe.evaluate.judge is not None:
        yield "evaluate.judge", recipe.evaluate.judge


def endpoints_have_whole_prices(recipe: Recipe) -> Iterator[Finding]:
    """Half a price gives no cost, and a currency without one says nothing."""
    for key, section in _endpoints(recipe):
        prices = [section.price_per_million_input, section.price_per_million_output]
        given, absent = ("input", "output") if prices[1] is None else ("output", "input")
        if prices.count(None) == 1:
            what = f"{key}.price_per_million_{given} has no effect without the price of the {absent}"
            yield Finding(f"{key}.price_per_million_{given}", what, f"give {key}.price_per_million_{absent} as well")
        if prices.count(None) == 2 and section.currency is not None:
            what = f"{key}.currency has no effect: there are no prices"
            yield Finding(f"{key}.currency", what, "give both prices, or remove it")


def parameters_leave_the_question_alone(recipe: Recipe) -> Iterator[Finding]:
    """What is asked, of whom, and in how many answers is not for `parameters` to say."""
    for key, section in _endpoints(recipe):
        for name in _OURS:
            if name in section.parameters:
                what = f"{key}.parameters.{name} has no effect: {name} is set by the evaluation"
                yield Finding(f"{key}.parameters", what, f"remove {name}")


def judges_know_whom_they_judge(recipe: Recipe) -> Iterator[Finding]:
    """A judge compares answers of contestants that take part, and there have to be answers."""
    judge = recipe.evaluate.judge
    if judge is None:
        return
    taking_part = list(dict.fromkeys(["tuned", *(section.name for section in recipe.evaluate.contestants)]))
    looked_at = ("evaluate.contestants", "objective")
    for name in judge.contestants:
        if name not in taking_part:
            what = f"evaluate.judge.contestants names {name!r}, who does not take part beside base"
            yield Finding("evaluate.judge.contestants", what, f"name {or_list(taking_part)}", looked_at)
    no_answers = recipe.evaluate.scorer in ("bits_per_byte", "perplexity")
    if isinstance(recipe.objective, PretrainObjective) or no_answers:
        what = "evaluate.judge has no effect: raw text is measured without answers"
        yield Finding("evaluate.judge", what, "remove it", looked_at)


CONTESTANT_RULES: tuple[Rule, ...] = (
    contestants_have_names,
    contestants_of_the_hub,
    endpoints_have_whole_prices,
    parameters_leave_the_question_alone,
    judges_know_whom_they_judge,
)
