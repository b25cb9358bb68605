"""Networks from every source, without a network connection, and the sentences for what cannot be made."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from limbeck.errors import MissingExtraError, SettingError, WeightsError
from limbeck.models import InputSpec, Source, create_model, list_models, register_source, save_weights
from limbeck.models.sources import Built, registry, sources

TIMM = "timm:test_resnet"
VISION = "torchvision:shufflenet_v2_x0_5"


@pytest.fixture
def no_connection(monkeypatch, tmp_path):
    """Every download fails at once, and no cache of this machine is seen."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A user's own module in the current directory."""
    (tmp_path / "limbeck_user_nets.py").write_text(
        "from torch import nn\n"
        "def make_net(width, num_classes=2, in_channels=3):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * 4, width), nn.Linear(width, num_classes))\n"
        "def fixed():\n"
        "    return nn.Linear(2, 2)\n"
        "def number():\n"
        "    return 3\n"
    )
    (tmp_path / "limbeck_user_broken.py").write_text("import limbeck_absent_module\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("limbeck_user_nets", None)


@pytest.fixture(scope="module")
def vit_folder(tmp_path_factory):
    """A tiny saved vision transformer of five classes with its image processor."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("vit")
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=16, patch_size=8
    )
    config.num_labels = 5
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def test_zoo_with_weights_of_a_file(tmp_path):
    teacher = create_model("resnet8", num_classes=10)
    save_weights(teacher.network, tmp_path / "teacher.safetensors", {})
    loaded = create_model(f"resnet8@{tmp_path}/teacher.safetensors", num_classes=10)
    assert (loaded.name, loaded.weights, loaded.input) == ("resnet8", f"{tmp_path}/teacher.safetensors", None)
    assert torch.equal(loaded.network.fc.weight, teacher.network.fc.weight)
    with pytest.raises(WeightsError, match=r"^resnet8: teacher\.safetensors has 10 classes, the data has 100"):
        create_model(f"resnet8@{tmp_path}/teacher.safetensors", num_classes=100)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet8x5", r"zoo has no model 'resnet8x5'; did you mean 'resnet8x4'\?.*timm:resnet18"),
        ("resnet8(width=3)", r"unknown argument of resnet8 'width'. Accepted: num_classes, in_channels\."),
        ("convnet(width=[8])", r"unknown argument of convnet 'width'; did you mean 'widths'\?"),
        ("resnet8@pretrained", r"resnet8 has no published weights; give a file instead, as in resnet8@"),
        ("resnet8(num_classes=7)", r"resnet8\(num_classes=7\) has num_classes=7, the data has 10 classes"),
        ("resnet8(in_channels=0)", r"in_channels must be a positive whole number, got 0"),
        ("timm:test_resnett", r"timm has no model 'test_resnett'; did you mean 'test_resnet'\?"),
        (f"{TIMM}(drop_rat=0.1)", r"unknown argument of timm:test_resnet 'drop_rat'; did you mean 'drop_rate'\?"),
        (f"{TIMM}.zzz", r"unknown timm weights 'test_resnet.zzz'; did you mean 'test_resnet.r160_in1k'\?"),
        (f"{TIMM}(pretrained=True)", r"'pretrained' is not an argument here; write timm:NAME@pretrained"),
        ("torchvision:vit_b_16(image_size=8)", r"vit_b_16 cannot be built with .*image_size=8: Input shape"),
        ("torchvision:resnet81", r"torchvision has no model 'resnet81'; did you mean 'resnet18'\?"),
        (f"{VISION}(weights='DEFAULT')", r"'weights' is not an argument here; write torchvision:NAME@pretrained"),
        (f"{VISION}(widht=3)", r"unknown argument of torchvision:shufflenet_v2_x0_5 'widht'"),
        ("tim:resnet18", r"'tim' is neither a model source \(did you mean 'timm'\?\) nor an importable module"),
        ("a-b:resnet18", r"'a-b' is neither a model source .* nor the name of a module"),
    ],
)
def test_what_cannot_be_made_says_why(spec, message):
    with pytest.raises((SettingError, WeightsError), match=message):
        create_model(spec, num_classes=10)


def test_the_zoo_needs_the_number_of_classes():
    with pytest.raises(SettingError, match="resnet8 needs num_classes"):
        create_model("resnet8")
    assert create_model("resnet8(num_classes=3)").network.fc.out_features == 3


def test_timm_network_starts_at_random_for_the_data():
    made = create_model(f"{TIMM}(drop_rate=0.1)", num_classes=7, in_channels=1)
    assert made.network.eval()(torch.zeros(1, 1, 32, 32)).shape == (1, 7)
    assert (made.input, made.weights, made.new_classifier) == (None, None, False)
    assert made.network.drop_rate == 0.1


def test_timm_transformer_is_made_for_the_size_of_the_data():
    made = create_model("timm:test_vit", num_classes=3, image_size=32)
    assert made.network.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    assert create_model("timm:test_vit(img_size=64)", num_classes=3, image_size=32).network.patch_embed.img_size == (
        64,
        64,
    )


def test_timm_published_weights_need_a_connection(no_connection):
    with pytest.raises(WeightsError, match=r"published weights of timm:test_resnet could not be fetched .*@FILE"):
        create_model(f"{TIMM}@pretrained", num_classes=1000)


def test_timm_published_weights_tell_their_input(monkeypatch):
    import timm

    make = timm.create_model
    # Only the download is left out: a random network stands for the published one.
    monkeypatch.setattr(timm, "create_model", lambda *given, pretrained=False, **named: make(*given, **named))
    made = create_model(f"{TIMM}@pretrained", num_classes=10, in_channels=1)
    assert made.input == InputSpec((0.5,), (0.5,), (160, 160), "bilinear")
    assert made.new_classifier
    assert not create_model(f"{TIMM}@pretrained", num_classes=1000).new_classifier
    assert not create_model(f"{TIMM}@pretrained").new_classifier


def test_torchvision_network_starts_at_random():
    made = create_model(VISION, num_classes=6)
    assert made.network.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 6)
    assert made.input is None
    with pytest.raises(SettingError, match="takes images of 3 channels, the data has 1"):
        create_model(VISION, in_channels=1)


def test_torchvision_published_weights_need_a_connection(no_connection):
    with pytest.raises(WeightsError, match=r"published weights of torchvision:shufflenet_v2_x0_5 could not be fetched"):
        create_model(f"{VISION}@pretrained", num_classes=6)


@pytest.mark.parametrize(("name", "classifier"), [("shufflenet_v2_x0_5", "fc"), ("squeezenet1_1", "classifier.1")])
def test_torchvision_published_weights_get_a_new_classifier_for_other_classes(
    tmp_path, no_connection, name, classifier
):
    from torchvision import models

    published = models.get_model(name)
    cached = tmp_path / "hub" / "checkpoints" / models.get_model_weights(name).DEFAULT.url.rpartition("/")[2]
    cached.parent.mkdir(parents=True)
    torch.save(published.state_dict(), cached)
    same = create_model(f"torchvision:{name}@pretrained", num_classes=1000)
    other = create_model(f"torchvision:{name}@pretrained", num_classes=6)
    assert torch.equal(same.network.get_submodule(classifier).weight, published.get_submodule(classifier).weight)
    assert (same.new_classifier, other.new_classifier) == (False, True)
    assert other.network.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 6)
    assert other.input == InputSpec((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (224, 224), "bilinear")


def test_hugging_face_folder_brings_its_weights_and_input(vit_folder):
    made = create_model(f"hf:{vit_folder}", num_classes=5)
    again = create_model(f"hf:{vit_folder}@pretrained")
    assert torch.equal(made.network.classifier.weight, again.network.classifier.weight)
    assert made.network.eval()(torch.zeros(1, 3, 16, 16)).logits.shape == (1, 5)
    assert made.input == InputSpec((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), (16, 16), "bilinear")
    assert not made.new_classifier
    other = create_model(f"hf:{vit_folder}(hidden_dropout_prob=0.25)", num_classes=3)
    assert other.network.config.hidden_dropout_prob == 0.25
    assert other.network.classifier.out_features == 3
    assert other.new_classifier


def test_hugging_face_network_with_weights_of_a_file(vit_folder, tmp_path):
    source = create_model(f"hf:{vit_folder}", num_classes=3)
    save_weights(source.network, tmp_path / "w.safetensors", {})
    made = create_model(f"hf:{vit_folder}@{tmp_path}/w.safetensors", num_classes=3)
    assert torch.equal(made.network.classifier.weight, source.network.classifier.weight)


def test_hugging_face_errors(vit_folder, no_connection, monkeypatch):
    with pytest.raises(
        SettingError, match="'trust_remote_code' is not an argument here; code from the hub is never run"
    ):
        create_model(f"hf:{vit_folder}(trust_remote_code=True)")
    with pytest.raises(SettingError, match=r"unknown argument of hf:.* 'hidden_siz'; did you mean 'hidden_size'\?"):
        create_model(f"hf:{vit_folder}(hidden_siz=4)")
    with pytest.raises(SettingError, match="takes images of 3 channels, the data has 1"):
        create_model(f"hf:{vit_folder}", in_channels=1)
    with pytest.raises(WeightsError, match="published weights of hf:nobody/nothing could not be fetched"):
        create_model("hf:nobody/nothing")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'limbeck\[text\]'"):
        create_model(f"hf:{vit_folder}")


def test_a_users_own_factory(package):
    made = create_model("limbeck_user_nets:make_net(width=3)", num_classes=4, in_channels=1)
    assert made.network(torch.zeros(2, 1, 2, 2)).shape == (2, 4)
    save_weights(made.network, package / "w.safetensors", {})
    again = create_model("limbeck_user_nets:make_net(width=3)@w.safetensors", num_classes=4, in_channels=1)
    assert torch.equal(again.network[1].weight, made.network[1].weight)
    assert isinstance(create_model("module:limbeck_user_nets:fixed", num_classes=4).network, nn.Linear)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "limbeck_user_nets:make_ne(width=3)",
            r"unknown factory in limbeck_user_nets 'make_ne'; did you mean 'make_net'\?",
        ),
        ("limbeck_user_nets:make_net", "limbeck_user_nets:make_net needs the argument width"),
        ("limbeck_user_nets:make_net(widht=3)", r"'widht'; did you mean 'width'\?"),
        ("limbeck_user_nets:number", "returned a int; expected a torch.nn.Module"),
        ("limbeck_user_nets:fixed@pretrained", "has no published weights"),
        ("limbeck_user_broken:make", "could not be imported: No module named 'limbeck_absent_module'"),
    ],
)
def test_a_factory_that_cannot_be_used_says_why(package, spec, message):
    with pytest.raises((SettingError, WeightsError), match=message):
        create_model(spec)


def test_listing_the_zoo_counts_parameters():
    entries = {entry.name: entry.parameters for entry in list_models("zoo:*")}
    assert entries["resnet8x4"] == 1_233_540
    assert entries["convnet_tiny"] < 5_000


def test_listing_by_pattern():
    assert {(entry.source, entry.name) for entry in list_models("resnet32x4")} == {("zoo", "resnet32x4")}
    assert {entry.source for entry in list_models("resnet50")} == {"timm", "torchvision"}
    assert all(entry.name.startswith("vit_") for entry in list_models("torchvision:vit_"))
    assert len(list_models()) > 1000
    with pytest.raises(SettingError, match=r"unknown model source 'tim'; did you mean 'timm'\?"):
        list_models("tim:*")


def test_a_source_is_added_by_its_class_alone(monkeypatch):
    monkeypatch.setattr(registry, "_sources", dict(sources()))

    @register_source
    class Attic(Source):
        name = "attic"

        def build(self, request):
            return Built(nn.Linear(request.in_channels, request.classes))

        def names(self):
            return ["old"]

    assert create_model("attic:old", num_classes=2).network.out_features == 2
    assert [(entry.source, entry.name, entry.parameters) for entry in list_models("attic:*")] == [
        ("attic", "old", None)
    ]
    with pytest.raises(SettingError, match=r"the source name 'attic' of .* is taken by"):
        register_source(type("Other", (Attic,), {}))
    with pytest.raises(SettingError, match="may hold letters, digits and _ only"):
        register_source(type("Odd", (Attic,), {"name": "a:b"}))


def test_an_installed_plugin_brings_a_source(tmp_path, monkeypatch):
    (tmp_path / "limbeck_plugin.py").write_text(
        "from torch import nn\n"
        "from limbeck.models.sources import Built, Source, register_source\n"
        "@register_source\n"
        "class Plugged(Source):\n"
        "    name = 'plugged'\n"
        "    def build(self, request):\n"
        "        return Built(nn.Linear(1, request.classes))\n"
    )
    information = tmp_path / "limbeck_plugin-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: limbeck-plugin\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[limbeck.models]\nplugged = limbeck_plugin\n")
    monkeypatch.setattr(registry, "_sources", dict(sources()))
    monkeypatch.syspath_prepend(tmp_path)
    registry._load_all.cache_clear()
    assert create_model("plugged:any", num_classes=2).network.out_features == 2
    sys.modules.pop("limbeck_plugin")
