import pytest

from benchmarks.lines import PATHS, ROOT, lines


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("", 0),
        ('"""Says what it is.\n\nAnd how.\n"""\n\nimport os  # why\n\n# why not\n', 1),
        ('def f():\n    """Returns 1."""\n    return 1\n', 2),
        ("x = (\n    1,\n\n    # the second\n    2,\n)\n", 4),
        ('text = """a\n\nb"""\n', 3),
        ("class A:\n    '''Holds x.'''\n\n    x: int = 0\n    '''Of no use.'''\n", 2),
    ],
)
def test_lines_are_those_of_code(source, expected):
    assert lines(source) == expected


def test_files_on_the_way_are_there():
    assert all((ROOT / file).is_file() for files in PATHS.values() for file in files)
