"""Real tables as datasets: numbers, categories, target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fdl.data.dataset import Arrays
from fdl.data.fetch import locate
from fdl.data.formats.table import read_table


class Layout(NamedTuple):
    """What the columns of a file are."""

    file: str
    kinds: str
    """A letter a column: "x" a number, "c" a category, "y" the class to predict, "t" the number to predict, "-"."""
    names: str = ""
    """The header's names, with commas between; "" = the file has no header."""


_TITANIC = "PassengerId,Survived,Pclass,Name,Sex,Age,SibSp,Parch,Ticket,Fare,Cabin,Embarked"
_HOUSING = (
    "longitude,latitude,housing_median_age,total_rooms,total_bedrooms,population,households,median_income,"
    "median_house_value,ocean_proximity"
)
_ESOL = (
    "Compound ID,ESOL predicted log solubility in mols per litre,Minimum Degree,Molecular Weight,"
    "Number of H-Bond Donors,Number of Rings,Number of Rotatable Bonds,Polar Surface Area,"
    "measured log solubility in mols per litre,smiles"
)
ADULT = Layout("tabular/adult/adult-train.csv", "xcxcxcccccxxxcy")
LAYOUTS = {
    "abalone": Layout("tabular/classic/abalone.csv", "cxxxxxxxt"),
    "airline-passengers": Layout("timeseries/airline-passengers.csv", "-t", "Month,Passengers"),
    "california-housing": Layout("tabular/california-housing/housing.csv", "xxxxxxxxtc", _HOUSING),
    "daily-min-temperatures": Layout("timeseries/daily-min-temperatures.csv", "-t", "Date,Temp"),
    "esol": Layout("esol/delaney-processed.csv", "--xxxxxxt-", _ESOL),
    "german-credit": Layout("tabular/classic/german.csv", "cxccxccxccxcxccxcxccy"),
    "ionosphere": Layout("tabular/classic/ionosphere.csv", "x" * 34 + "y"),
    "monthly-sunspots": Layout("timeseries/monthly-sunspots.csv", "-t", "Month,Sunspots"),
    "pima-diabetes": Layout("tabular/classic/pima-indians-diabetes.csv", "xxxxxxxxy"),
    "sonar": Layout("tabular/classic/sonar.csv", "x" * 60 + "y"),
    "titanic": Layout("tabular/titanic/train.csv", "-yc-cxxx-x-c", _TITANIC),
    "wine-red": Layout("tabular/wine-quality/winequality-red.csv", "x" * 11 + "t"),
    "wine-white": Layout("tabular/wine-quality/winequality-white.csv", "x" * 11 + "t"),
}


def read(layout: Layout) -> Arrays:
    """A table as Arrays: x float32 [n, numbers] (NaN = missing), categories int32 [n, columns] (-1 = missing), y."""
    return _read(layout, {})[0]


def read_adult(split: str) -> Arrays:
    """The test file's categories are numbered as the training file's, and its classes end in a full stop."""
    train, categories = _read(ADULT, {})
    if split == "train":
        return train
    label = _columns(ADULT)[-1]
    given = categories | {label: [f"{value}." for value in categories[label]]}
    return _read(ADULT._replace(file="tabular/adult/adult-test.csv"), given)[0]


def _read(layout: Layout, given: dict[str, Sequence[str]]) -> tuple[Arrays, dict[str, Sequence[str]]]:
    names = _columns(layout)
    words = {"x": "float", "t": "float", "c": "category", "y": "category", "-": "skip"}
    columns = {name: given.get(name, words[kind]) for name, kind in zip(names, layout.kinds, strict=True)}
    table = read_table(locate(layout.file), columns, header=bool(layout.names))
    parts = {"x": "x", "c": "categories", "y": "y", "t": "y"}
    arrays = {}
    for kind, part in parts.items():
        picked = [table.columns[name] for name, its in zip(names, layout.kinds, strict=True) if its == kind]
        if picked:
            arrays[part] = picked[0] if part == "y" else np.stack(picked, 1)
    return Arrays(**arrays), dict(table.categories)


def _columns(layout: Layout) -> list[str]:
    return layout.names.split(",") if layout.names else [f"column {n + 1}" for n in range(len(layout.kinds))]
