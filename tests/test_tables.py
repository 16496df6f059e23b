"""Tables, and the names of their functions."""

import pytest

from cappaper import paper


@pytest.mark.parametrize(("old", "new"), paper.RENAMED.items())
def test_old_names_lead_to_new_ones_with_a_warning(old, new):
    with pytest.warns(DeprecationWarning, match=f"paper.{old} is now called .*paper.{new};"):
        assert getattr(paper, old) is getattr(paper, new)
