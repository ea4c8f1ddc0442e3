"""Series as pictures: one PNG for each figure, when matplotlib is there (`pip install '.[bench]'`)."""

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

from bench.measurement import Series


def draw(series: Sequence[Series], folder: Path) -> list[Path]:
    """The pictures written into `folder`; none without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return []
    figures = dict.fromkeys(one.figure for one in series)
    return [_draw(figure, [one for one in series if one.figure == figure], folder) for figure in figures]


def _draw(figure: str, series: Sequence[Series], folder: Path) -> Path:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    units = list(dict.fromkeys(one.unit for one in series))
    picture, axes = plt.subplots(
        len(units), 1, sharex=True, squeeze=False, figsize=(9, 3 * len(units)), layout="constrained"
    )
    for axis, unit in zip(axes[:, 0], units, strict=True):
        for one in series:
            if one.unit == unit:
                axis.plot([at for at, _ in one.points], [value for _, value in one.points], label=one.subject)
        axis.set_ylabel(unit)
        axis.set_ylim(bottom=0)
        axis.legend(loc="best")
    axes[0, 0].set_title(figure)
    axes[-1, 0].set_xlabel("seconds")
    file = folder / f"{re.sub('[^a-z0-9]+', '-', figure.lower()).strip('-')}.png"
    picture.savefig(file, dpi=100)
    plt.close(picture)
    return file
