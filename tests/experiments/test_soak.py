import pytest

from experiments import soak


def rows(**rise):
    """20 cycles of one step, in which some figures rise by so much a cycle."""
    flat = dict.fromkeys((*soak.COUNTS, *soak.MEMORY, "images_per_second"), 100.0)
    return [
        {"cycle": cycle, "step": "random", "seconds": 60.0 * cycle}
        | {name: value + cycle * rise.get(name, 0) for name, value in flat.items()}
        for cycle in range(20)
    ]


@pytest.mark.parametrize("rise", [{}, {"descriptors": 1}, {"anonymous_mb": 5, "threads": 1}])
def test_what_rises_is_named(rise):
    assert sorted(soak.summary(rows(**rise))) == sorted(rise)


def test_the_curves_are_drawn(tmp_path):
    soak.plot(rows(), tmp_path / "soak.png")
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")
