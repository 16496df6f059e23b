"""The strongest attack beside AutoAttack's own code: a few images here, 500 in the table."""

from cappaper import PRETRAINED, load
from cappaper.paper import tables
from tests.referee import compared
from tests.test_book import BOOK, ROOT


def test_the_strongest_attack_leaves_no_more_than_autoattack():
    table = tables.read(BOOK / "results" / "referee.csv")
    assert set(table["network"]) == set(PRETRAINED)
    assert int(table.attrs["provenance"]["images"]) >= 500
    gap = (table["AutoAttack"] - table["strongest attack"]).set_axis(table["network"])
    assert gap.min() >= 0 and gap["cap-0.05"] > 0.1
    signs = table["signs of masking"].set_axis(table["network"])
    assert (signs[gap > 0.01] >= 4).all() and gap[signs == 0].max() < 0.003
    assert (table["both"] <= table[["strongest attack", "AutoAttack"]].min(axis=1)).all()


def test_the_readme_has_the_numbers_of_the_table():
    row = tables.read(BOOK / "results" / "referee.csv").set_index("network").loc["cap-0.05"]
    sentence = (
        f"of 500 test images it leaves {100 * row['AutoAttack']:.0f} % on the network with"
        f" β = 0.05 that comes with the package, at ε = {row['ε']:g}, and `strongest_attack`"
        f" {100 * row['strongest attack']:.0f} %"
    )
    assert sentence in (ROOT / "README.md").read_text()


def test_both_attack_the_same_images_of_the_same_network():
    row = compared("cap-0.05", load("mnist-sample", "test", limit=4))
    assert 0 <= row["both"] <= min(row["strongest attack"], row["AutoAttack"])
    assert max(row["strongest attack"], row["AutoAttack"]) <= row["no attack"] <= 1
