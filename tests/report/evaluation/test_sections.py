"""The sections of an evaluation: what they say, and that they say it to eyes, ears and in the dark."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest
from evaluations import NAMES, make_record, png
from matplotlib import rc_context
from matplotlib.figure import Figure

from limbeck.evaluate.record import Evaluation
from limbeck.report.evaluation import evaluation_sections
from limbeck.report.plates import Palette, Plate
from limbeck.report.sections import Section

from .conftest import Make

LIGHT = Palette("#111111", "#cccccc", tuple(f"#0000{number:02x}" for number in range(1, 7)))
DARK = Palette("#eeeeee", "#333333", tuple(f"#ff00{number:02x}" for number in range(1, 7)))
PARTS = {
    "classification": {"classes"},
    "calibration": {"reliability"},
    "fidelity": {"fidelity", "correlation"},
    "retrieval": {"retrieval"},
    "database": {"database"},
    "distribution": {"distribution"},
    "robustness": {"robustness"},
    "transfer": {"transfer"},
    "cost": {"cost"},
    "examples": {"examples"},
    "embedding_map": {"embedding"},
}


def sections_of(evaluation: Evaluation) -> dict[str, Section]:
    return {section.name.removeprefix("evaluation-"): section for section in evaluation_sections(evaluation)}


def plates_of(evaluation: Evaluation) -> list[Plate]:
    return [plate for section in evaluation_sections(evaluation) for plate in section.plates]


def svg(figure: Figure) -> str:
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg")
    return buffer.getvalue()


class Tags(HTMLParser):
    """Start tags with their attributes, and the text; a tag that closes nothing is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def rows_of(section: Section) -> Iterator[list[str]]:
    """The texts of a table's rows."""
    for row in re.findall(r"<tr.*?</tr>", section.html, re.DOTALL):
        yield [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)]


def test_all_parts_give_sections_with_names_of_their_own(make: Make) -> None:
    sections = evaluation_sections(make(), "second")

    names = [section.name for section in sections] + [plate.name for section in sections for plate in section.plates]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"second-[a-z0-9-]+", name) for name in names)
    assert {section.name.removeprefix("second-") for section in sections} == {"overview"}.union(*PARTS.values())


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_missing_gives_no_section(make: Make, part: str) -> None:
    everything = {"overview"}.union(*PARTS.values())

    assert set(sections_of(make(**{part: None}))) == everything - PARTS[part]


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_plates_draw_in_the_palettes_colours_alone(make: Make, palette: Palette) -> None:
    allowed = {palette.ink, palette.grid, *palette.series, "none"}
    for plate in plates_of(make(students=["icd-seed0"])):
        figure = plate.draw(palette)
        figure.patch.set_visible(False)
        drawn = re.sub(r"base64,[^\"]*", "", svg(figure))

        assert set(re.findall(r"(?:fill|stroke): ([^;\"]+)", drawn)) <= allowed, plate.name
        # A text without a colour is black.
        assert len(re.findall("<text", drawn)) == len(re.findall(r"<text[^>]*fill:", drawn)), plate.name


def test_plates_make_a_new_figure_each_time(make: Make) -> None:
    for plate in plates_of(make(students=[])):
        assert plate.draw(LIGHT) is not plate.draw(LIGHT)


@pytest.mark.parametrize(
    ("section", "numbers"),
    [
        ("classes", ["points", "40 images"]),
        ("correlation", ["mean 0.086", "at most 0.400", "authors' 2024 code", "Mean 0.152"]),
        ("embedding", ["trustworthiness 0.970", "same class for"]),
        ("reliability", ["ECE 8.0 %", "2.0 % after temperature scaling", "50 images", "Logits divided by 1.25"]),
        (
            "robustness",
            ["80.0, 68.0, 56.0, 44.0, 32.0, 20.0 %", "at budgets 0, 1, 2, 4: 80.0, 40.0", "CIFAR-C", "own corrup"],
        ),
        ("cost", ["80.0 % with 23,200", "90.0 % with 2,064,800", "quartiles"]),
    ],
)
def test_alternatives_and_captions_hold_the_numbers(make: Make, section: str, numbers: list[str]) -> None:
    plates = sections_of(make())[section].plates
    words = " ".join(f"{plate.caption} {plate.alternative}" for plate in plates)

    assert [number for number in numbers if number not in words] == []


@pytest.mark.parametrize(
    ("section", "row"),
    [
        ("overview", ["icd-seed0", "small", "icd+kd", "1,442", "80.0 %", "100.0 %", "0.500", "70.0 %", "0.250"]),
        ("fidelity", ["icd-seed0", "70.0 %", "40.0 %", "0.250", "0.350", "0.810", "0.086", "0.081", "0.152", "0.230"]),
        ("fidelity", ["icd-seed0, stages.1", "0.440", "0.660"]),
        ("retrieval", ["icd-seed0", "40.0 %", "80.0 %", "10.0 %"]),
        ("distribution", ["icd-seed0", "80.0 %", "40.0 %", "60.0 %", "70.0 %"]),
        ("transfer", ["icd-seed0", "40.0 %", "0.1", "26.7 %", "5", "61.0 %"]),
        ("robustness", ["icd-seed0", "80.0 %", "44.0 %", "0.55", "44.0 %"]),
        ("reliability", ["icd-seed0", "8.0 %", "20.0 %", "0.500", "0.300", "1.25", "2.0 %", "0.500", "0.300"]),
        ("cost", ["icd-seed0", "88.9 %", "200.3 ×", "89.1 ×", "193.9 ×", "2.5 ×", "18.6 ×", "9.4 ×"]),
    ],
)
def test_tables_hold_the_figures(make: Make, section: str, row: list[str]) -> None:
    rows = list(rows_of(sections_of(make())[section]))

    assert any(found[: len(row)] == row for found in rows), rows


def test_an_evaluation_says_that_it_is_of_one_network_each(make: Make) -> None:
    assert sections_of(make())["overview"].lead.startswith("200 images of 5 classes. Each row is one network:")


def test_columns_without_a_figure_are_left_out(make: Make) -> None:
    head = next(rows_of(sections_of(make())["fidelity"]))

    assert "asymmetry of logits" in head
    assert "asymmetry of embeddings" not in head
    assert head[-4:] == ["kept", "lost", "gained", "none"]


def test_tables_sort_by_value(make: Make) -> None:
    tags = Tags(sections_of(make())["overview"].html).found

    assert ("th", {"scope": "col", "data-kind": "number"}) in tags
    assert ("td", {"data-value": "288874"}) in tags
    assert ("tr", {"class": "teacher"}) in tags


def test_examples_show_the_image_and_both_names(make: Make) -> None:
    tags = Tags(sections_of(make())["examples"].html)

    images = [attributes for tag, attributes in tags.found if tag == "img"]
    assert len(images) == 6
    assert images[0]["src"] == f"data:image/png;base64,{png()}"
    assert images[0]["alt"] == "Image 17 of class apple, taken for pear by icd-seed0"
    assert images[0]["style"] == "image-rendering: pixelated"
    assert images[0]["width"] == images[0]["height"] == "104"
    assert "".join(tags.words).count("apple; student: pear (80 %)") == 2


def test_a_doctored_text_stays_text(make: Make) -> None:
    evil = "</section><script>alert(1)</script>\"'&$x_1$"
    value = make_record(students=[evil], classes=[evil, "pear"]) | {"calibration": None}
    value |= {"failures": {evil: evil}, "remarks": [evil], "data": evil, "transfer_data": evil}
    value["cost"]["device"] = evil
    value["networks"][evil] |= {"model": evil, "method": evil}
    for kind in value["robustness"][evil]["corruptions"]:
        kind["name"] = evil
    evaluation = make(**value)

    for section in evaluation_sections(evaluation):
        tags = Tags(section.html)
        assert not {"script", "section"} & {tag for tag, _ in tags.found}
        assert {name for _, attributes in tags.found for name in attributes} <= {
            *("class", "role", "aria-label", "tabindex", "scope", "data-kind", "data-value", "type", "title"),
            *("alt", "width", "height", "style", "src"),
        }
        for plate in section.plates:
            assert "<script" not in svg(plate.draw(LIGHT))


def test_dollars_in_names_are_no_formula(make: Make) -> None:
    plates = sections_of(make(classes=["$x_1$", "pear"]))["classes"].plates

    assert any("$x_1$ (40)" in svg(plate.draw(LIGHT)) for plate in plates)


def test_one_network_without_a_teacher(make: Make) -> None:
    evaluation = make(students=["model"], teacher=False)
    sections = sections_of(evaluation)

    assert set(sections) == {"overview"}.union(*PARTS.values()) - {"fidelity", "correlation", "examples"}
    assert sections["classes"].title == "Accuracy by class"
    assert sections["classes"].plates == ()
    assert sections["embedding"].plates[0].wide is False


def test_a_teacher_alone(make: Make) -> None:
    sections = sections_of(make(students=[]))

    assert sections["classes"].plates == ()
    assert [plate.title for plate in sections["reliability"].plates] == ["teacher"]


def test_a_split_in_which_one_class_is_present(make: Make) -> None:
    value = make_record(students=["icd-seed0"]) | dict.fromkeys(("robustness", "cost", "calibration"))
    for found in value["classification"].values():
        for each in found["classes"][1:]:
            each |= {"count": 0, "accuracy": None}
    value["embedding_map"]["labels"] = [0] * 50
    value["embedding_map"]["trustworthiness"]["teacher"] = None
    evaluation = make(**value)

    assert all(svg(plate.draw(LIGHT)) for plate in plates_of(evaluation))
    caption = sections_of(evaluation)["classes"].plates[0].caption
    assert sum(map(int, re.findall(r"(\d+) (?:of 1 classes lose|gain|are as before)", caption))) == 1


def test_data_of_one_class(make: Make) -> None:
    value = make_record(students=["icd-seed0"], classes=["apple"])
    evaluation = make(**value | dict.fromkeys(("robustness", "cost", "calibration")))

    assert all(svg(plate.draw(LIGHT)) for plate in plates_of(evaluation))


def test_many_students_show_the_best_and_tables_have_all(make: Make) -> None:
    students = [f"m{place}" for place in range(12)]
    sections = sections_of(make(students=students[::-1]))

    assert [plate.title for plate in sections["classes"].plates] == ["m11", "m10", "m9", "m8", "m7"]
    assert "Figures show the 5 best of 12 students." in sections["classes"].lead
    assert [row[0] for row in rows_of(sections["overview"])] == ["network", "teacher", *students[::-1]]
    legend = sections["robustness"].plates[0].legend
    # All are of one method, and so of one colour; dashes and markers tell them apart.
    assert [number for _, number in legend] == [0, 1, 7, 13, 19, 25]


def test_a_few_left_out_are_named(make: Make) -> None:
    lead = sections_of(make(students=[f"m{place}" for place in range(7)]))["reliability"].lead

    assert lead.endswith("Figures show the 5 best of 7 students; m5 and m6 are left out.")


def test_too_many_classes_have_no_heat_map_but_a_reason(make: Make) -> None:
    value = make_record(students=["icd-seed0"], classes=[f"class {place}" for place in range(201)])
    del value["fidelity"]["icd-seed0"]["correlation"]["matrix"]
    sections = sections_of(make(**value))

    assert sections["correlation"].plates == ()
    assert "201 classes" in sections["correlation"].lead
    assert len(list(rows_of(sections["classes"]))) == 101
    assert "101 others are left out" in sections["classes"].html
    assert sections["classes"].html.startswith("<details>")


def test_maps_stay_small(make: Make) -> None:
    value = make_record()
    found = value["embedding_map"]
    found["labels"] *= 12
    found["networks"] = {who: points * 12 for who, points in found["networks"].items()}
    plate = sections_of(make(**value))["embedding"].plates[0]

    assert "Drawn are 400 of 600 points" in plate.caption
    assert len(svg(plate.draw(LIGHT))) < 160_000


def test_the_share_of_own_neighbours_is_counted(make: Make) -> None:
    value = make_record(students=[])
    value["embedding_map"] |= {
        "labels": [0, 0, 1, 1, 0],
        "networks": {"teacher": [[0, 0], [0, 1], [9, 0], [9, 1], [9, 3]]},
    }

    # The last point's nearest is of class 1.
    assert "same class for 80.0 %" in sections_of(make(**value))["embedding"].plates[0].caption


def test_failures_and_remarks_are_told(make: Make) -> None:
    html = sections_of(make(failures={"ood": "no file"}, remarks=["no validation split"]))["overview"].html

    assert "<b>ood</b> was left out: no file" in html
    assert "no validation split" in html


def test_the_heat_maps_of_all_students_have_one_scale(make: Make) -> None:
    value = make_record()
    small = [[0.0 if one == other else 0.01 for other in range(len(NAMES))] for one in range(len(NAMES))]
    value["fidelity"]["kd-seed0"]["correlation"]["matrix"] = small
    plates = sections_of(make(**value))["correlation"].plates

    limits = [plate.draw(LIGHT).axes[0].images[0].get_clim() for plate in plates]
    assert limits[0] == limits[1]
    assert limits[0][0] == 0


def test_stages_that_were_not_compared_have_no_table(make: Make) -> None:
    value = make_record()
    value["fidelity"]["icd-seed0"]["cka_stages"] = []
    assert "icd-seed0, stages.1" not in sections_of(make(**value))["fidelity"].html
    value["fidelity"]["kd-seed0"]["cka_stages"] = []
    assert "CKA by stage" not in sections_of(make(**value))["fidelity"].html


def test_the_most_frequent_confusions_are_told(make: Make) -> None:
    value = make_record(classes=[f"c{place}" for place in range(9)])
    value["classification"]["kd-seed0"]["confused"] = []
    words = "".join(Tags(sections_of(make(**value))["classes"].html).words)

    assert "icd-seed0: c0 taken for c1 (6 of 40); c1 taken for c2 (6 of 40); " in words
    assert "c4 taken for c5 (6 of 40)." in words
    assert "c5 taken for c6" not in words
    assert "kd-seed0:" not in words


def test_a_plate_that_is_not_wanted_is_left_out(make: Make) -> None:
    evaluation = make()
    whole = {plate.name for plate in plates_of(evaluation)}
    fewer = {
        plate.name
        for section in evaluation_sections(evaluation, leave_out=["cost-accuracy"])
        for plate in section.plates
    }

    assert whole - fewer == {"evaluation-cost-accuracy"}
