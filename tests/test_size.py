from tests.size import faults


def test_each_limit_that_is_broken_is_named(tmp_path):
    home, book = tmp_path / "cappaper", tmp_path / "cappaper" / "paper"
    book.mkdir(parents=True)
    (home / "short.py").write_text("import torch\n")
    assert faults(tmp_path) == []
    (home / "private.py").write_text("torch.ops.aten\n")
    for i in range(13):
        (book / f"{i}.py").write_text("\n" * 250)
    (book / "long.py").write_text("\n" * 301)
    assert faults(tmp_path) == [
        "cappaper/private.py uses private names of torch",
        "this book has 3551 lines, more than 3200",
        "cappaper/paper/long.py has 301 lines, more than 300",
    ]
