"""Every verb of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from typer.core import TyperCommand

from finetune.cli import output
from finetune.cli.output import DONE, MENDABLE, NOT_PASSED, quiet_output, show, tell, teller

if TYPE_CHECKING:
    from finetune.recipe import Recipe
    from finetune.session import Run


class Verb(TyperCommand):
    """A command whose result is its exit code, and whose faults are told as `output.guarded` tells them.

    Wrong options and missing arguments are found before it is invoked; Typer tells those, with exit code 2.
    """

    def invoke(self, ctx: typer.Context) -> None:  # type: ignore[override]  # its own type is not public
        run = super().invoke
        raise typer.Exit(output.guarded(lambda: run(ctx), as_json=bool(ctx.params.get("as_json"))))


app = typer.Typer(
    help="Tune a small model on your data, prove that it beats its base, and ship a file proven to behave like it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Look at the data.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")

RecipeFile = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", metavar="RECIPE")]
RunPath = Annotated[Path, typer.Argument(help="A run folder, e.g. runs/NAME.", metavar="RUN")]
Overrides = Annotated[
    Optional[list[str]], typer.Option("--set", help="Override a value: train.epochs=1. May be repeated.")  # noqa: UP045
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


@app.command(cls=Verb)
def init(
    data: Annotated[str, typer.Option(help="Your data: a file or a glob.")],
    base: Annotated[str, typer.Option(help="The base model.")],
    out: Annotated[Path, typer.Option(help="The recipe to write.")] = Path("recipe.yaml"),
) -> int:
    """Write a recipe for your data: format recognised, choices explained."""
    from finetune.data.starter import write_starter

    why = write_starter(data, base, out)
    show(None, as_json=False, text=f"{out}: {why}\nnext: finetune check {out}")
    return DONE


@app.command(cls=Verb)
def check(recipe: RecipeFile, set_: Overrides = None, as_json: Json = False) -> int:
    """Say now all that would fail in an hour: recipe, data, masks, names, disk."""
    from finetune.recipe import load_recipe, problems

    found = problems(recipe, set_ or [])
    certificate = None
    if not any(problem.severity == "error" for problem in found):
        from finetune import pipeline

        output.calm_libraries()
        checked = pipeline.check(load_recipe(recipe, set_ or []))
        found, certificate = [*found, *checked.problems], checked.certificate
    errors = sum(problem.severity == "error" for problem in found)
    lines = output.problem_lines(found)
    summary = f"{errors} problem{'s' * (errors != 1)}" if errors else f"{recipe} is ready: finetune run {recipe}"
    value = {"problems": [problem.as_dict() for problem in found], "certificate": certificate}
    show(value, as_json=as_json, text=f"{lines}\n{summary}" if lines else summary)
    return MENDABLE if errors else DONE


@app.command(cls=Verb)
def run(recipe: RecipeFile, set_: Overrides = None, as_json: Json = False, quiet: Quiet = False) -> int:
    """Do the whole path: data, training, evaluation, exports, report. Called again, it goes on where it stopped."""
    from finetune import pipeline

    result = pipeline.run(_ready(recipe, set_), tell=teller(quiet), quiet=quiet_output(quiet))
    lines = result.evaluation.sentences
    proofs = sorted(result.exports.proofs.values(), key=lambda proof: not proof["passed"])
    lines += [output.proof_text(proof) for proof in proofs]
    show(result.as_dict(), as_json=as_json, text="\n".join([*lines, f"report: {result.report}"]))
    return DONE if result.passed else NOT_PASSED


@app.command(cls=Verb)
def train(recipe: RecipeFile, set_: Overrides = None, as_json: Json = False, quiet: Quiet = False) -> int:
    """Prepare the data and train."""
    from finetune import pipeline

    work = pipeline.train(_ready(recipe, set_), tell=teller(quiet), quiet=quiet_output(quiet))
    value = {"run": str(work.folder.path), "train": work.folder.finished("train")}
    show(value, as_json=as_json, text=str(work.folder.trained()))
    return DONE


@app.command(cls=Verb)
def evaluate(run: RunPath, as_json: Json = False, quiet: Quiet = False) -> int:
    """Compare the tuned model of a run with its base on the held-out rows."""
    from finetune import pipeline

    work = _opened(run)
    found = pipeline.evaluate(work, tell=teller(quiet), quiet=quiet_output(quiet))
    pipeline.report(work)
    show(found.as_dict(), as_json=as_json, text="\n".join(found.sentences))
    return DONE if found.meets(work.recipe.evaluate.require) else NOT_PASSED


@app.command(cls=Verb)
def merge(run: RunPath, as_json: Json = False) -> int:
    """Fold the run's adapter into its base, and prove the merged model."""
    return export(run, to="merged", as_json=as_json)


@app.command(cls=Verb)
def export(
    run: RunPath,
    to: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="merged, gguf or ollama, with :FORMAT if not the usual one (gguf:q8_0); unset: the recipe's."
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Write the files to ship, each one loaded again and compared with the trained model."""
    from finetune import pipeline

    work = _opened(run)
    exports = pipeline.export(work, to, tell=tell)
    pipeline.report(work)
    show(exports.proofs, as_json=as_json, text="\n".join(map(output.proof_text, exports.proofs.values())))
    return DONE if exports.passed else NOT_PASSED


@app.command(cls=Verb)
def verify(
    path: Annotated[Path, typer.Argument(help="A .gguf file, a Modelfile or a model folder.", metavar="PATH")],
    against: Annotated[Path, typer.Option(help="The run that it is to be compared with.", metavar="RUN")],
    as_json: Json = False,
) -> int:
    """Compare a file to ship with what a run trained: prompts, predictions, answers."""
    from finetune import pipeline

    proof = pipeline.verify(_opened(against), path).as_dict()
    show(proof, as_json=as_json, text=output.proof_text(proof))
    return DONE if proof["passed"] else NOT_PASSED


@app.command(cls=Verb)
def report(
    runs: Annotated[list[Path], typer.Argument(help="One run folder, or several to compare.", metavar="RUN...")],
    out: Annotated[Path, typer.Option(help="Where the page that compares several runs is written.")] = Path(
        "comparison.html"
    ),
    as_json: Json = False,
) -> int:
    """Make the report page and the model card of a run again, or compare several runs on what they have in common."""
    from finetune import pipeline

    if len(runs) == 1:
        page = pipeline.report(_opened(runs[0]))
        show({"report": str(page)}, as_json=as_json, text=str(page))
        return DONE
    found = pipeline.compare_runs(runs, out)
    show({**found.as_dict(), "report": str(out)}, as_json=as_json, text="\n".join([*found.sentences, f"report: {out}"]))
    return DONE


@app.command(cls=Verb)
def chat(run: RunPath) -> int:
    """Talk to the tuned model of a run; an empty line ends it."""
    from finetune.cli.talk import talk

    return talk(_opened(run))


@app.command(cls=Verb)
def explain(recipe: RecipeFile, set_: Overrides = None, as_json: Json = False) -> int:
    """Print every effective value of a recipe and where it came from."""
    from finetune.recipe import explain as effective
    from finetune.recipe import load_recipe

    found = effective(load_recipe(recipe, set_ or []))
    width = max(len(f"{value.path}: {value.value!r}") for value in found)
    lines = [f"{f'{value.path}: {value.value!r}':<{min(width, 70)}}  # {value.origin}" for value in found]
    entries = [{"path": v.path, "value": v.value, "origin": v.origin, "description": v.description} for v in found]
    show(entries, as_json=as_json, text="\n".join(lines))
    return DONE


@app.command(cls=Verb)
def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="The reference of all options as Markdown.")] = False,
) -> int:
    """Print the recipe's JSON Schema; editors complete from it."""
    from finetune.recipe import json_schema, reference_markdown

    if markdown:
        show(None, as_json=False, text=reference_markdown())
    else:
        show(json_schema(), as_json=True, text="")
    return DONE


@data_app.command(cls=Verb)
def inspect(
    target: Annotated[str, typer.Argument(help="A recipe (.yaml), or a file, folder or glob.", metavar="RECIPE|PATH")],
    rows: Annotated[int, typer.Option(help="How many training rows to show.")] = 3,
    base: Annotated[Optional[str], typer.Option(help="For data without a recipe: count tokens of this model.")] = None,  # noqa: UP045
    page: Annotated[Optional[Path], typer.Option("--html", help="Write it as one HTML page too.")] = None,  # noqa: UP045
    set_: Overrides = None,
    as_json: Json = False,
) -> int:
    """Show how the data reads, what is odd about it and, in colour, what will be learned."""
    from finetune.cli.look import look, look_at

    return look(look_at(target, _ready, base=base, rows=rows, overrides=set_), as_json=as_json, page=page)


def _ready(recipe: Path, overrides: list[str] | None) -> Recipe:
    """Load a recipe; missing data files are told with all its other problems."""
    from finetune.errors import FinetuneError
    from finetune.recipe import load_recipe, problems

    output.calm_libraries()
    found = [problem for problem in problems(recipe, overrides or []) if problem.severity == "error"]
    if found:
        raise FinetuneError.of(found)
    return load_recipe(recipe, overrides or [])


def _opened(path: Path) -> Run:
    from finetune.session import Run

    output.calm_libraries()
    return Run.open(path)


def main() -> None:
    """Run the command line and exit."""
    app()
