"""The commands that evaluate: `janusflow eval BENCHMARK` and `janusflow eval compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from typer.core import TyperGroup

from janusflow.arguments import SYNONYMS, nearest
from janusflow.cli.options import Debug, NoSuchOption, SuggestingCommand, Vae, one_sentence

WIDE = 240  # columns of a table that is written to a file or a pipe
MEASURE = "run"  # the command that `janusflow eval` runs if no other one is named


class EvalGroup(TyperGroup):
    """Group that parses `janusflow eval compare ...`, and anything else as arguments of the command that measures."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] == MEASURE or args[0] not in self.commands:
            args = [MEASURE, *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return None if name == MEASURE else name, command, rest


class MeasureCommand(SuggestingCommand):
    """Command whose help ends with all benchmarks, including those of other packages."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except NoSuchOption as error:  # perhaps an argument of generate or ask, or another software's name for one
            from janusflow.evaluation.request import OPTIONS, SHORT

            name = error.option_name.lstrip("-").replace("-", "_")
            near = [name] if name in SHORT else nearest(name, OPTIONS)
            meant = name in SHORT or not OPTIONS.isdisjoint((name, *SYNONYMS.get(name, ())))
            if near and (meant or not error.possibilities):
                error.possibilities = [f"--option {near[0]}=VALUE"]
            raise

    def get_usage(self, ctx: Any) -> str:
        return super().get_usage(ctx).replace("eval  ", "eval ")  # the command's own name is not part of it

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from rich.console import Console
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        from janusflow.evaluation.registry import OWN, summaries

        super().format_help(ctx, formatter)
        table = Table.grid(padding=(0, 2))
        for name, text in {**summaries(), OWN: "a benchmark of your own; see docs/evaluation.md"}.items():
            table.add_row(Text(name, style="bold cyan"), Text(text))
        Console().print(Panel(table, title="Benchmarks", title_align="left", border_style="dim"))


Benchmark = Annotated[Optional[str], typer.Argument(help="A name from the list below, or MODULE:CLASS of your own.")]
Model = Annotated[Optional[str], typer.Option("--model", "-m", help="'tiny' (the default), a folder, or a hub id.")]
Data = Annotated[Optional[Path], typer.Option(help="Folder of the benchmark's official files; for qa, your file.")]
Settings = Annotated[
    Optional[list[str]], typer.Option("--set", metavar="KEY=VALUE", help="A setting of the benchmark; repeatable.")
]
Options = Annotated[
    Optional[list[str]],
    typer.Option("--option", metavar="KEY=VALUE", help="An argument of generate or ask; repeatable."),
]
Sweep = Annotated[
    Optional[list[str]],
    typer.Option(
        metavar="KEY=VALUES",
        help="One run per value, and a comparison: model=a,b or guidance=1..10 or solver=euler,heun; repeatable.",
    ),
]

app = typer.Typer(cls=EvalGroup, add_help_option=False, rich_markup_mode="rich")


@app.command(MEASURE, cls=MeasureCommand)
@one_sentence
def evaluate(
    benchmark: Benchmark = None,
    model: Model = None,
    data: Data = None,
    out: Annotated[
        Optional[Path], typer.Option(help="Folder of the run; rerun with the same folder to resume.")
    ] = None,
    mode: Annotated[Optional[str], typer.Option(help="full (the default), generate or score.")] = None,
    limit: Annotated[Optional[int], typer.Option(help="Only this many items, from all parts equally.")] = None,
    batch_size: Annotated[Optional[int], typer.Option(help="Items processed together; 16 by default.")] = None,
    settings: Settings = None,
    options: Options = None,
    sweep: Sweep = None,
    config: Annotated[Optional[Path], typer.Option(help="A janusflow or TorchUMM recipe; see recipes/eval.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Local processes.")] = 1,
    ray: Annotated[int, typer.Option(min=0, help="Ray workers, in place of processes.")] = 0,
    vae: Vae = None,
    device: Annotated[Optional[str], typer.Option(help="auto (the default), cpu, cuda, mps, ...")] = None,
    dtype: Annotated[Optional[str], typer.Option(help="auto (the default), float32 or bfloat16.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Name all benchmarks and their data.")] = False,
    debug: Debug = False,
) -> None:
    """Measure a model: generate or ask, judge, and report. `janusflow eval compare RUN RUN...` compares runs.

    The same command continues a run that was stopped. Under torchrun its processes share the work.

    [bold]Examples[/bold]

      janusflow eval tinyworld --out runs/tinyworld --set prompts=20

      janusflow eval geneval --model deepseek-ai/JanusFlow-1.3B --data geneval/prompts --out runs/geneval

      janusflow eval pope --model models/janusflow --data pope --out runs/pope --mode generate --workers 2

      janusflow eval qa --data questions.jsonl --out runs/qa --set rule=contains

      janusflow eval tinyworld --out runs/sweep --sweep guidance=1,2,3,4 --set prompts=20

      janusflow eval pope --data pope --out runs/pope --sweep model=tiny,models/mine

      janusflow eval compare runs/before runs/after --out comparison
    """
    from janusflow.evaluation.run.command import eval_command, listing
    from janusflow.interop.torchumm_config import read_umm

    if listed:
        print(listing())
        return
    changes = {"model": model, "data": data, "out": out, "mode": mode, "limit": limit, "batch_size": batch_size}
    changes |= {"vae": vae, "device": device, "dtype": dtype}
    given = {"settings": settings or [], "options": options or [], "sweep": sweep or []}
    if ray and workers > 1:
        raise ValueError("--workers and --ray exclude each other; give one of them")
    print(eval_command(benchmark, config=config, changes=changes, **given, workers=workers, ray=ray, foreign=read_umm))


@app.command()
@one_sentence
def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN...", help="Folders of runs (their --out); first the baseline.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of compare.html, compare.csv, compare.tex and changed.csv.")] = Path(
        "comparison"
    ),
    data: Annotated[
        Optional[Path], typer.Option(help="The benchmark's data, if it is no longer where the runs read it.")
    ] = None,
    items: Annotated[int, typer.Option(min=0, help="How many changed items are shown with their pictures.")] = 30,
    any_data: Annotated[
        bool, typer.Option("--any-data", help="Compare runs on different data over the items that are the same.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Compare runs of one benchmark: scores side by side, paired differences to the first run, items that changed.

    [bold]Examples[/bold]

      janusflow eval compare runs/before runs/after

      janusflow eval compare runs/sweep/model=tiny runs/sweep/model=mine --out runs/compared --items 100
    """
    from rich.console import Console

    from janusflow.evaluation.reports.compare import compare_runs
    from janusflow.evaluation.reports.comparison_page import terminal_table, write_comparison

    found = compare_runs(runs, data=data, any_data=any_data)
    page = write_comparison(found, out, changes=items)
    terminal = Console()
    if not terminal.is_terminal:
        terminal.width = WIDE
    terminal.print(terminal_table(found))
    print(page)
