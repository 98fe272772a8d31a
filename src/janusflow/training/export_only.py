"""The export of a run's last checkpoint, finished or not, without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from janusflow.training.distributed import join, leave
from janusflow.training.lock import alone_in
from janusflow.training.report import Report
from janusflow.training.resume import Checkpoints
from janusflow.training.start import open_start
from janusflow.training.step import TrainState
from janusflow.training.stop import leave_at_once, on_stop
from janusflow.training.stored_settings import stored_config
from janusflow.training.trainer import finish, learner, with_precision


def export_only(
    out: str | Path, *, device: str = "auto", official: bool = False, overrides: Sequence[str] = ()
) -> Path:
    """Export the last checkpoint of a run. This needs the model that the run started from, but not its data.

    Args:
        device: in a single process, the device on which the weights are assembled.
        official: also export in the official layout, into the folder `export-official`.
        overrides: `key=value` for settings that have changed, such as `model=FOLDER` if the starting model has moved.

    Returns:
        The exported folder.

    Raises:
        ValueError: if the folder contains no run with a checkpoint, its starting model is gone, another process
            trains there, or the official layout cannot store the network.
        OSError: if the export cannot be written.

    Example:
        >>> export_only("runs/mine")  # doctest: +SKIP
        PosixPath('runs/mine/export')
    """
    out, world = Path(out).expanduser(), join(device)
    try:
        config = with_precision(stored_config(out, overrides), world)
        with on_stop(leave_at_once), alone_in(out, world):
            checkpoints = Checkpoints(out / "checkpoints", world, keep=config.save.keep)
            if not checkpoints.all():
                raise ValueError(f"{out} has no checkpoint yet to export; continue the run with --resume")
            try:
                model = open_start(config, world.device)
            except ValueError as error:
                raise ValueError(f"{error}; if what the run started from has moved, give model=FOLDER") from error
            if official:
                model.family.layout("official").check(model.network.config)
            objective, ema = learner(config, world, model.network)
            progress = checkpoints.restore(objective, ema, [])
            state = TrainState(config, world, objective, None, None, [], ema, progress)
            report = Report(out, config, world, first=progress.step, shown=False)
            return finish(state, model, report, official=official)
    finally:
        leave(world)
