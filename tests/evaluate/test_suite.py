"""All parts on a pair of networks that learned the digits, and what is left out with a reason."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from limbeck.combination import Combination
from limbeck.data import ImageData, ImageSplit, load_data
from limbeck.errors import DataError, NonFiniteError, SettingError, SignalError
from limbeck.evaluate.bench import Options
from limbeck.evaluate.cifar_c import read_cifar_c
from limbeck.evaluate.image_bench import with_channels
from limbeck.evaluate.parts import PARTS, check_part, check_parts, usual_parts
from limbeck.evaluate.record import Evaluation, read_evaluation
from limbeck.evaluate.suite import evaluate_networks
from limbeck.evaluate.training_data import other_damage
from limbeck.teachers.rules import Mean

NAMES = tuple(PARTS["images"])
QUICK = ("accuracy", "calibration", "fidelity", "retrieval", "ood", "examples", "tsne")


@pytest.fixture(scope="module")
def small(digits: ImageData) -> ImageData:
    """Fewer test images."""
    assert digits.test is not None
    return replace(digits, test=digits.test.subset(torch.arange(0, len(digits.test), 3)))


@pytest.fixture(scope="module")
def pair(small: ImageData, learned: nn.Module, learned_less: nn.Module) -> Evaluation:
    return evaluate_networks(learned_less, small, teacher=learned, options=Options(QUICK))


def test_figures_of_all_parts_fit_each_other(pair: Evaluation, small: ImageData) -> None:
    assert small.test is not None
    assert pair.classification is not None
    assert pair.calibration is not None
    assert pair.fidelity is not None
    assert pair.retrieval is not None
    assert pair.distribution is not None
    student, teacher = (pair.networks[who] for who in ("model", "teacher"))
    kept = pair.fidelity["model"]
    assert 0.5 < student.accuracy < teacher.accuracy
    assert pair.classification["model"].top1 == pytest.approx(student.accuracy)
    assert pair.calibration["teacher"].raw.nll == pytest.approx(teacher.nll, rel=1e-5)
    assert pair.calibration["model"].fitted_on == len(small.val or ())
    assert kept.agreement == pytest.approx(student.agreement)
    assert kept.kl == pytest.approx(student.kl, rel=1e-4)
    assert kept.retention == pytest.approx(student.accuracy / teacher.accuracy)
    assert kept.aligned_on == f"{len(small.val or ())} images of the validation split"
    assert [(each.student, each.teacher) for each in kept.cka_stages][:2] == [
        ("stages.0", "stages.0"),
        ("stages.0", "stages.1"),
    ]
    assert pair.retrieval["teacher"].map > pair.retrieval["teacher"].chance
    assert pair.distribution["model"].outside == len(small.test)
    assert pair.remarks == ()
    assert (pair.robustness, pair.transfer, pair.cost) == (None, None, None)


def test_json_has_one_schema_whatever_is_asked(pair: Evaluation, small: ImageData, learned: nn.Module) -> None:
    alone = evaluate_networks(learned, small).as_dict()
    value = json.loads(json.dumps(pair.as_dict()))
    assert list(value) == list(alone)
    assert list(value["networks"]) == ["model", "teacher"]
    assert [name for name, part in alone.items() if part is None] == [
        "classification",
        "calibration",
        "fidelity",
        "retrieval",
        "database",
        "distribution",
        "robustness",
        "transfer",
        "transfer_data",
        "cost",
        "examples",
        "embedding_map",
        "tokens",
        "answers",
        "writing",
        "tasks",
        "search",
        "followed",
        "missed",
        "index",
    ]
    assert value["calibration"]["model"]["raw"]["reliability"][14]["high"] == 1.0
    facts = ["role", "model", "method", "parameters", "count", "accuracy", "top5", "nll", "agreement", "kl"]
    assert sorted(alone["networks"]["model"]) == sorted(facts)


def test_a_teacher_of_several_networks(small: ImageData, learned: nn.Module, learned_less: nn.Module) -> None:
    both = Combination(Mean(weights=[3, 1]), (learned, learned_less))
    options = Options(("fidelity", "cost", "robustness", "tsne"), robustness_limit=10, map_limit=40)
    found = evaluate_networks(learned_less, small, teacher=both, options=options, batch_size=64)
    assert found.failures == {}
    assert small.test is not None
    assert isinstance(small.test.images, Tensor)
    single = evaluate_networks(
        {"one": learned, "other": learned_less}, small, options=Options(("cost",)), batch_size=64
    )
    assert found.cost is not None
    assert single.cost is not None
    for name in ("parameters", "macs", "bytes"):
        parts = [getattr(each, name) for each in single.cost.networks.values()]
        assert getattr(found.cost.networks["teacher"], name) == sum(parts)
    # By hand, a network at a time.
    norm = (small.test.images.float() / 255 - small.mean[0]) / small.std[0]
    with torch.no_grad():
        first, second = learned.eval()(norm).double(), learned_less.eval()(norm).double()
    right = (Mean(weights=[3, 1]).answer([first, second]).argmax(dim=1) == small.test.labels).double().mean()
    assert found.networks["teacher"].accuracy == pytest.approx(right.item())
    assert found.networks["teacher"].model.startswith("mean(")
    with pytest.raises(SettingError, match="several networks, which a teacher may be"):
        evaluate_networks("mean(runs/one, runs/two)", small)


def test_a_classifier_that_is_named_is_taken_where_it_is(small: ImageData) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 7), nn.ReLU(), nn.Linear(7, 10))
    options = Options(("retrieval", "tsne"), map_limit=20)
    for named in ("1", "3", "gone"):
        found = evaluate_networks(network, small, classifiers={"model": named}, options=options)
        assert found.embedding_map is not None
        wide = "PCA" in found.embedding_map.method  # 64 numbers go into the first layer, 7 into the last
        assert wide == (named == "1")


def test_training_images_that_the_networks_did_not_see_are_said(small: ImageData, tmp_path: Path) -> None:
    (tmp_path / "noisy").mkdir()
    (tmp_path / "clean").mkdir()
    (tmp_path / "noisy" / "config.yaml").write_text("label_noise: 0.4\nimbalance: 1.0\n")
    (tmp_path / "clean" / "config.yaml").write_text("label_noise: 0.0\nimbalance: null\n")
    models = {name: str(tmp_path / name) for name in ("noisy", "clean", "gone")} | {"network": nn.Identity()}
    assert other_damage(models, small) == [
        "noisy was trained with label_noise=0.4, and the training images here are other ones: unchanged."
    ]
    assert other_damage(models, replace(small, damage=("40 % of the training labels are wrong",))) == [
        "clean was trained with no wrong labels and no long tail, and the training images here are other ones: 40 % of the "
        "training labels are wrong."
    ]


def test_training_images_are_found_by_test_images(small: ImageData, learned: nn.Module) -> None:
    found = evaluate_networks(learned, small, options=Options(("database",))).database
    assert found is not None
    assert small.test is not None
    assert [each.metric for each in found["model"]] == ["cosine", "l2"]
    for each in found["model"]:
        assert (each.queries, each.database, each.top) == (len(small.test), len(small.train), 100)
        assert 3 * each.chance < each.precision < each.map < 1


def test_what_the_database_needs(small: ImageData, learned: nn.Module) -> None:
    few = replace(small, train=small.train.subset(torch.arange(99)), damage=("a tail is cut off",))
    found = evaluate_networks(learned, few, options=Options(("database",)))
    assert found.database is None
    assert found.remarks == (
        "the database was changed on purpose: a tail is cut off.",
        "model: database is left out: retrieval: the database has 99 images, and the first 100 are asked for.",
    )
    found = evaluate_networks(learned, small, split="train", options=Options(("database",)))
    assert found.database is None
    assert found.remarks == (
        "database is left out: the training images are the database, and they are the split evaluated too.",
    )


def test_the_networks_are_left_as_they_were(small: ImageData, learned: nn.Module) -> None:
    before = {name: value.clone() for name, value in learned.state_dict().items()}
    options = Options(("fidelity", "robustness", "cost"), robustness_limit=20)
    found = evaluate_networks(learned, small, teacher=learned, options=options, batch_size=16)
    assert found.robustness is not None
    assert found.robustness["model"] == found.robustness["teacher"]
    assert found.robustness["model"].count == 20
    assert found.cost is not None
    assert found.cost.ratios is not None
    assert found.cost.ratios["model"].macs == 1.0
    assert all(torch.equal(value, before[name]) for name, value in learned.state_dict().items())


def test_what_cannot_be_told_is_said(small: ImageData, learned: nn.Module) -> None:
    bare = replace(small, val=None)
    found = evaluate_networks(learned, bare, options=Options(("calibration", "fidelity", "transfer")))
    assert found.calibration is not None
    assert found.calibration["model"].scaled is None
    assert found.fidelity is None
    assert "has no validation split" in found.remarks[0]
    assert "needs a teacher" in found.remarks[1]
    assert "--transfer" in found.remarks[2]
    on_validation = evaluate_networks(learned, small, split="validation", options=Options(("calibration",)))
    assert "is the one evaluated" in on_validation.remarks[0]
    assert small.test is not None
    one_class = replace(small, test=small.test.subset((small.test.labels == 3).nonzero().flatten()))
    found = evaluate_networks(learned, one_class, options=Options(("retrieval", "accuracy", "calibration", "ood")))
    assert found.retrieval is None
    assert "with one class every image is relevant" in found.remarks[0]
    assert found.classification is not None
    assert [each.count > 0 for each in found.classification["model"].classes].count(True) == 1


def test_a_network_without_a_known_classifier_has_all_figures_but_those_of_embeddings(small: ImageData) -> None:
    class Sums(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(64, 10), nn.Linear(64, 10)

        def forward(self, images: Tensor) -> Tensor:
            return self.one(images.flatten(1)) + self.two(images.flatten(1).relu())

    found = evaluate_networks(Sums(), small, options=Options(QUICK))
    assert found.retrieval is None
    assert found.distribution is not None
    assert "no embedding: cannot tell which layer of Sums is the classifier" in found.remarks[0]


def test_transfer_to_other_channels_and_both_protocols(small: ImageData, learned: nn.Module) -> None:
    def coloured(split: ImageSplit | None) -> ImageSplit | None:
        if split is None:
            return None
        assert isinstance(split.images, Tensor)
        few = split.subset(torch.arange(min(300, len(split))))
        assert isinstance(few.images, Tensor)
        return replace(few, images=few.images.expand(-1, 3, -1, -1))

    train, val, test = (coloured(split) for split in (small.train, small.val, small.test))
    assert train is not None
    mean, std = small.mean * 3, small.std * 3
    other = replace(small, name="colours", train=train, val=val, test=test, in_channels=3, mean=mean, std=std)
    options = Options(("transfer", "ood"), transfer=other, protocol="both", transfer_epochs=3, other=other)
    found = evaluate_networks(learned, small, options=options)
    assert found.transfer is not None
    probe = found.transfer["model"]
    assert probe.frozen is not None
    assert probe.authors is not None
    assert probe.frozen.logistic.accuracy > 0.8
    assert 0.1 < probe.authors.accuracy <= 1
    assert found.transfer_data == "colours"
    assert found.distribution is not None
    assert found.distribution["model"].other.startswith("colours")


def test_transfer_to_data_without_a_test_split_measures_its_validation_split(
    small: ImageData, learned: nn.Module
) -> None:
    other = replace(small, name="other", test=None)
    found = evaluate_networks(learned, small, options=Options(("transfer",), transfer=other)).transfer
    assert found is not None
    assert found["model"].frozen is not None
    counts = found["model"].frozen
    assert small.val is not None
    assert counts.test == len(small.val)
    assert counts.train + counts.validation == len(small.train)


def test_channels_are_brought_to_each_other() -> None:
    colours = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    assert with_channels(colours, 1).item() == 76
    assert with_channels(with_channels(colours, 1), 3).flatten().tolist() == [76, 76, 76]
    with pytest.raises(SettingError, match="4 channels"):
        with_channels(torch.zeros(1, 4, 1, 1, dtype=torch.uint8), 3)


def test_bad_input_is_refused_in_a_sentence(small: ImageData, learned: nn.Module) -> None:
    with pytest.raises(SettingError, match="unknown part 'acuracy'; did you mean 'accuracy'"):
        check_part("acuracy")
    assert check_parts(NAMES, "images") == set(NAMES)
    with pytest.raises(
        SettingError, match="'answers' is for text for language models, and this is images; there are acc"
    ):
        check_parts(["answers"], "images")
    assert "fidelity" not in usual_parts("images", teacher=False)
    assert not {"database", "transfer"} & set(usual_parts("images", teacher=True))
    with pytest.raises(SettingError, match=r"split is 'validation', and digits has none; it has train, test\."):
        evaluate_networks(learned, replace(small, val=None), split="validation")
    with pytest.raises(SettingError, match="the data that is evaluated"):
        evaluate_networks(learned, small, options=Options(("ood",), other=small))
    without = replace(small, name="other", test=None, val=None)
    with pytest.raises(SettingError, match="transfer: other has neither a test nor a validation split"):
        evaluate_networks(learned, small, options=Options(("transfer",), transfer=without))
    with pytest.raises(SignalError, match="model: the network tells 7 classes apart, and digits has 10"):
        evaluate_networks(nn.Sequential(nn.Flatten(), nn.Linear(64, 7)), small)
    with pytest.raises(SettingError, match=r"model: Sequential cannot take an input of shape \(2, 1, 8, 8\)"):
        evaluate_networks(nn.Sequential(nn.Conv2d(4, 2, 1)), small)
    broken = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.constant_(broken[1].bias, float("nan"))
    with pytest.raises(NonFiniteError, match="NaN or infinite"):
        evaluate_networks(broken, small)


def test_several_students_of_one_teacher(
    pair: Evaluation, small: ImageData, learned: nn.Module, learned_less: nn.Module
) -> None:
    options = Options((*QUICK, "cost"))
    models = {"less": learned_less, "twin": learned}
    found = evaluate_networks(models, small, teacher=learned, methods={"less": "kd"}, options=options, batch_size=16)
    assert list(found.networks) == ["less", "twin", "teacher"]
    assert [entry.role for entry in found.networks.values()] == ["student", "student", "teacher"]
    assert [entry.method for entry in found.networks.values()] == ["kd", None, None]
    assert found.fidelity is not None
    assert list(found.fidelity) == ["less", "twin"]
    assert found.fidelity["twin"].agreement == 1
    assert found.cost is not None
    assert found.cost.ratios is not None
    assert list(found.cost.ratios) == ["less", "twin"]
    assert found.examples is not None
    assert len(found.examples["less"]) > 0
    assert found.examples["twin"] == ()
    assert found.embedding_map is not None
    assert list(found.embedding_map.networks) == ["less", "twin", "teacher"]
    assert pair.fidelity is not None
    assert pair.fidelity["model"] == found.fidelity["less"]
    with pytest.raises(SettingError, match="a network is called 'teacher'"):
        evaluate_networks({"teacher": learned}, small)
    with pytest.raises(SettingError, match="there is no network to evaluate"):
        evaluate_networks({}, small)


def test_a_part_that_fails_leaves_the_others(small: ImageData, learned: nn.Module, tmp_path: Path) -> None:
    paths = []
    for number in range(12):
        path = tmp_path / f"{number}.png"
        Image.new("L", (8, 8)).save(path)
        paths.append(str(path))
    labels = torch.arange(12) % 10
    files = ImageSplit(paths, labels, torch.arange(12))
    other = replace(small, name="files", train=files, val=None, test=files)
    # Long after it was loaded, when most of the work is done.
    Path(paths[7]).write_bytes(b"no image")
    options = Options(("ood", "calibration"), other=other)
    found = evaluate_networks(learned, small, options=options)
    assert list(found.failures) == ["ood"]
    assert "7.png" in found.failures["ood"]
    assert found.calibration is not None
    assert found.distribution is None


def test_a_foreign_network_that_cannot_be_attacked_leaves_the_other_parts(small: ImageData) -> None:
    class Closed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(64, 10)

        @torch.no_grad()
        def forward(self, images: Tensor) -> Tensor:
            return self.head(images.flatten(1))

    options = Options(("robustness", "calibration"), robustness_limit=10)
    found = evaluate_networks(Closed(), small, options=options)
    assert list(found.failures) == ["robustness"]
    assert "RuntimeError" in found.failures["robustness"]
    assert found.calibration is not None


def test_other_classes_are_refused_before_anything_takes_time(small: ImageData) -> None:
    said: list[str] = []
    wrong = nn.Sequential(nn.Flatten(), nn.Linear(64, 7))
    with pytest.raises(SignalError, match="7 classes"):
        evaluate_networks(wrong, small, options=Options(NAMES), progress=said.append)
    assert said == []


def test_a_tiny_split_leaves_out_what_needs_more(small: ImageData, learned: nn.Module) -> None:
    assert small.test is not None
    for count in (1, 3):
        tiny = replace(small, test=small.test.subset(torch.arange(count)))
        options = Options((*QUICK, "cost", "robustness"))
        found = evaluate_networks(learned, tiny, teacher=learned, options=options, batch_size=4)
        assert found.failures == {}
        assert any("tsne is left out: a map of embeddings needs 10 images" in remark for remark in found.remarks)
        assert found.embedding_map is None
        json.dumps(found.as_dict(), allow_nan=False)


def test_a_training_split_that_was_changed_is_said(small: ImageData, learned: nn.Module) -> None:
    found = evaluate_networks(learned, replace(small, damage=("a tenth of the labels are wrong",)), split="train")
    assert found.remarks == ("the training split was changed on purpose: a tenth of the labels are wrong.",)


def test_cifar_c_beside_the_corruptions(tmp_path: Path) -> None:
    colour = load_data("digits", test_limit=40, train_limit=40)

    def coloured(split: ImageSplit | None) -> ImageSplit | None:
        assert split is not None
        assert isinstance(split.images, Tensor)
        return replace(split, images=split.images.expand(-1, 3, -1, -1).contiguous())

    train, val, test = (coloured(split) for split in (colour.train, colour.val, colour.test))
    assert train is not None
    assert test is not None
    assert isinstance(test.images, Tensor)
    data = replace(colour, train=train, val=val, test=test, in_channels=3, mean=colour.mean * 3, std=colour.std * 3)
    np.save(tmp_path / "labels.npy", np.tile(test.labels.numpy(), 5))
    np.save(tmp_path / "fog.npy", np.tile(test.images.permute(0, 2, 3, 1).numpy(), (5, 1, 1, 1)))
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    options = Options(("robustness",), cifar_c=read_cifar_c(tmp_path))
    found = evaluate_networks(network, data, options=options)
    assert found.robustness is not None
    (fog,) = found.robustness["model"].cifar_c or ()
    assert fog.name == "fog"
    assert fog.severities == pytest.approx([found.robustness["model"].clean] * 5)
    assert "has no" in found.remarks[0]
    with pytest.raises(SettingError, match="cifar_c holds images in colour"):
        evaluate_networks(network, colour, options=options)
    fewer = replace(data, classes=data.classes[:9])
    with pytest.raises(DataError, match=r"labels\.npy must be in 0 to 8"):
        evaluate_networks(network, fewer, options=options)


def test_the_file_is_what_is_told(pair: Evaluation, tmp_path: Path) -> None:
    pair.write(tmp_path / "evaluation.json")
    assert json.loads((tmp_path / "evaluation.json").read_text()) == json.loads(json.dumps(pair.as_dict()))
    assert read_evaluation(tmp_path / "evaluation.json") == pair
