"""`bitwright film`: the best architecture of a search over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from ..architecture import Architecture
from ..errors import ConfigError, DataError
from ..experiment import opened, resolve
from ..recurrent.drawing import draw_cell
from ..report.figures import cell_figure, save_figure
from ..report.film import Frame, spread
from ..report.film import film as write_film
from ..report.layer_figure import layer_figure
from ..spaces import DecisionSpace
from ..spaces.enas_macro import EnasMacro
from ..spaces.enas_micro import EnasMicro
from ..spaces.enas_rnn import EnasRnn
from ..trial import Archive, Trial
from .options import Parser, open_console

LISTED = ("sample", "derive")  # the purposes of trials that show now and then what the strategy has come to


class Moment(NamedTuple):
    """step: trials that the strategy had learned from. best: of those that were sampled then."""

    step: int
    best: Trial


def film(arguments: Sequence[str]) -> None:
    parser = Parser("film", "Show the best architecture of a search over time.", experiment=False)
    parser.add_argument("run", type=Path, help="a search of cells or layers, complete or not")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="a .gif, with ffmpeg also .mp4 (default: RUN/film.gif)"
    )
    parser.add_argument("--seconds", type=float, default=0.5, help="for how long each picture is shown")
    parser.add_argument("--max-frames", type=int, default=50, help="of more, so many at equal distances")
    parser.add_argument("--data", type=Path, metavar="DIR", help="where the data set is now")
    options, _ = parser.read(arguments, "film")
    if not (options.run / "config.yaml").exists():
        raise ConfigError(f"{options.run} holds no search" if options.run.exists() else f"there is no {options.run}")
    if options.max_frames < 1:
        raise ConfigError(f"--max-frames is at least 1, got {options.max_frames}")
    given = ["--config", str(options.run / "config.yaml"), "--device=cpu"]
    given += [] if options.data is None else [f"--dataset.root={options.data}"]
    space = opened(resolve(given)).space
    found = list(moments(options.run / "archive.sqlite"))
    if not found:
        raise DataError(f"{options.run} has no end of a round yet, so there is nothing to show")
    out = options.out or options.run / "film.gif"
    with TemporaryDirectory() as folder:
        chosen = [found[position] for position in spread(len(found), options.max_frames)]
        frames = [
            Frame(_picture(space, moment.best.architecture, Path(folder) / f"{number}.png"), caption(space, moment))
            for number, moment in enumerate(chosen)
        ]
        write_film(frames, out, options.seconds, options.max_frames)
    open_console().print(f"wrote {out}: {len(chosen)} of {len(found)} moments")


def moments(archive: Path) -> Iterator[Moment]:
    """What was found at the end of every round, in order."""
    if not archive.exists():
        return
    step = 0
    with closing(Archive(archive)) as trials:
        for purpose, group in groupby(trials, key=lambda trial: trial.purpose):
            members = list(group)
            if purpose in LISTED:
                yield Moment(step, max(members, key=lambda trial: trial.measurement.accuracy))
            elif purpose == "search":
                step += len(members)


def caption(space: DecisionSpace, moment: Moment) -> str:
    accuracy = moment.best.measurement.accuracy
    figure = f"perplexity {1 / accuracy:,.2f}" if isinstance(space, EnasRnn) else f"accuracy {accuracy:.4f}"
    return f"step: {moment.step:,}  {figure}"


def _picture(space: DecisionSpace, architecture: Architecture, path: Path) -> Path:
    match space:
        case EnasRnn():
            cell = space.cell(architecture)
            draw_cell(cell, path, space.averaged(cell))
        case EnasMicro():
            save_figure(cell_figure(space, architecture), path)
        case EnasMacro():
            save_figure(layer_figure(space, architecture), path)
        case _:
            raise ConfigError(f"there are no pictures of {space.name}: enas_micro, enas_macro, enas_rnn")
    return path
