"""The command `janusflow ablate`."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Annotated, Optional

import typer

from janusflow.cli.options import Debug, Device, one_sentence

Only = Annotated[
    Optional[str], typer.Option(metavar="A,F", help="Train only these variants; differences need the baseline, too.")
]
Deviations = Annotated[
    Optional[list[str]],
    typer.Option(metavar="METRIC=VALUE", help="With --power: standard deviation of paired differences; repeatable."),
]


@one_sentence
def ablate(
    recipe: Annotated[Path, typer.Argument(help="A YAML file; see recipes/ablation.")],
    overrides: Annotated[
        Optional[list[str]], typer.Argument(metavar="[KEY=VALUE]...", help="Overrides of the recipe, as in seeds=5.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the runs; rerun with the same folder to resume.")] = Path(
        "runs/ablation"
    ),
    only: Only = None,
    seeds: Annotated[Optional[int], typer.Option(min=1, help="Runs of each variant.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print runs, steps, expected time and GPU days.")] = False,
    power: Annotated[
        bool, typer.Option("--power", help="Print the smallest effects that 2 to 10 seeds show, from finished runs.")
    ] = False,
    sd: Deviations = None,
    report: Annotated[
        bool, typer.Option("--report", help="Write the page for the finished runs, and train nothing.")
    ] = False,
    ray: Annotated[bool, typer.Option("--ray", help="Distribute the runs with Ray; needs the extra \\[ray].")] = False,
    workers: Annotated[
        Optional[int], typer.Option(min=1, help="With --ray: number of workers; by default, as many as fit.")
    ] = None,
    ray_address: Annotated[
        Optional[str], typer.Option(help="Address of a running cluster; by default, a local one is started.")
    ] = None,
    worker_cpus: Annotated[float, typer.Option(help="With --ray: processor cores of each worker.")] = 1,
    worker_gpus: Annotated[float, typer.Option(help="With --ray: GPUs of each worker.")] = 0,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Train variants of one recipe with several seeds, measure them, and write OUT/paper.md with intervals.

    The command can be stopped at any time; repeat it to continue. Several processes may run it at once: each takes runs
    that are not finished. If a run fails, that is reported, and the others continue.

    [bold]Examples[/bold]

      janusflow ablate recipes/ablation/table6.yaml --out runs/table6 --dry-run

      janusflow ablate recipes/ablation/table6.yaml --out runs/table6 --only A,F --seeds 2

      janusflow ablate recipes/ablation/table6.yaml --out runs/table6 --report

      janusflow ablate recipes/ablation/table6.yaml --out runs/table6 --power

      janusflow ablate recipes/ablation/table6.yaml --out runs/table6 --power --sd KID=0.004

      janusflow ablate recipes/ablation/table6.yaml --out runs/table6 --ray --worker-gpus 0.25

      janusflow ablate recipes/ablation/full.yaml --out runs/full --dry-run
    """
    from janusflow.ablation.config import load_ablation
    from janusflow.ablation.execution import run_all
    from janusflow.ablation.plan import dry_run as planned
    from janusflow.ablation.plan import power as visible
    from janusflow.ablation.report import write_report
    from janusflow.ablation.runs import runs_of
    from janusflow.evaluation.run.command import read_pair
    from janusflow.extras import require

    if not ray and (workers is not None or ray_address is not None or worker_cpus != 1 or worker_gpus):
        raise ValueError("--workers, --ray-address, --worker-cpus and --worker-gpus need --ray")
    chosen = [name.strip() for name in only.split(",")] if only else []
    runs = runs_of(load_ablation(recipe, overrides or []), recipe.parent, out, only=chosen, seeds=seeds)
    if dry_run:
        print(planned(runs))
        return
    if power or sd:
        given = dict(map(read_pair, sd or []))
        for name, value in given.items():
            if not isinstance(value, int | float) or not 0 < value < inf:
                raise ValueError(f"--sd {name}={value}: expected a number above 0, such as {name}=0.01")
        print(visible(runs, given))
        return
    if report:
        print(write_report(runs, out))
        return
    if ray:
        require("sharing an ablation on Ray", "ray")
        from janusflow.ablation.distributed import RayWorkers, run_on_ray

        run_on_ray(runs, RayWorkers(workers, ray_address, worker_cpus, worker_gpus), device=device)
    else:
        run_all(runs, device=device)
    print(write_report(runs, out))
    if failed := [run.name for run in runs if run.result() is None and run.failure() is not None]:
        raise ValueError(f"{len(failed)} of {len(runs)} runs failed: {', '.join(failed)}; the same command tries again")
