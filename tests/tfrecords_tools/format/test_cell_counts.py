from tfrecords_tools.format import cell_counts


def test_a_few_combinations_are_all_shown_in_their_order():
    assert list(cell_counts.shown({"b": 1_000, "?/?": 2})) == [("b", "1,000"), ("without labels", "2")]


def test_of_many_combinations_the_largest_and_smallest_are_shown():
    lines = list(cell_counts.shown({f"c{number:02d}": number for number in range(40_000)}))
    assert [name for name, _ in lines[:2]] == ["c39999", "c39998"]
    assert lines[5] == ("… 39,990 more of 40,000", "19,999.5 in the median")
    assert lines[-1] == ("c00", "0") and len(lines) == 11


def test_the_names_of_an_axis_fit_on_a_line():
    assert cell_counts.names_line(("a", "b")) == "0 a, 1 b"
    assert cell_counts.names_line([str(number) for number in range(3_000)]).endswith("2998 2998, 2999 2999")
