"""Tables, and the names of their functions."""

import math

import pandas as pd
import pytest

from cappaper import paper
from cappaper.paper import tables


@pytest.mark.parametrize(("old", "new"), paper.RENAMED.items())
def test_old_names_lead_to_new_ones_with_a_warning(old, new):
    with pytest.warns(DeprecationWarning, match=f"paper.{old} is now called .*paper.{new};"):
        assert getattr(paper, old) is getattr(paper, new)


def test_infinity_and_nan_survive_the_disk(tmp_path):
    table = pd.DataFrame({"median_l2": [math.inf, 0.5], "eps": [math.nan, 0.1]})
    tables.save(table, tmp_path / "t.csv", {"profile": "quick"})
    pd.testing.assert_frame_equal(tables.read(tmp_path / "t.csv"), table)
