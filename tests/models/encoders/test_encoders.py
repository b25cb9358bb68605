"""Encoders opened, projected and saved, against sentence-transformers' own encoding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck.data.search import Tokenising
from limbeck.errors import SettingError, WeightsError
from limbeck.evaluate.search import embed
from limbeck.models.encoders import Encoder, fit_projection, open_encoder, project

pytest.importorskip("sentence_transformers", reason="encoders are opened by the package sentence-transformers")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "query", "passage", ":", "wings", "bend", "in", "the", "wind", "steel"]
TEXTS = ["wings bend in the wind", "steel", "", "the wind bend wings in the wind in the wind in the steel wind"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT with a tokenizer of words, as Hugging Face saves it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    core = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ["input_ids", "token_type_ids", "attention_mask"]
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=core, model_input_names=names, **special).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=12,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with CLS pooling, scaling to length 1, and prompts, as sentence-transformers saves it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize

    folder = tmp_path_factory.mktemp("pipeline") / "model"
    inner = open_encoder(bert, pooling="cls").model
    prompts = {"query": "query : ", "document": "passage : "}
    model = SentenceTransformer(
        modules=[*inner.children(), Normalize()], prompts=prompts, similarity_fn_name="dot", device="cpu"
    )
    model.save(str(folder), create_model_card=False)
    return folder


def vectors(encoder: Encoder, kind: Any) -> Tensor:
    rows = Tokenising(encoder.tokenizer, encoder.max_length, encoder.prompt(kind))(TEXTS)
    return embed(encoder, rows, batch_size=3)


def theirs(folder: Path, kind: str) -> Tensor:
    """What sentence-transformers says of the same texts."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    encode = {"query": model.encode_query, "document": model.encode_document}[kind]
    return torch.from_numpy(encode(TEXTS, show_progress_bar=False))


@pytest.mark.parametrize("kind", ["query", "document"])
def test_a_pipeline_is_used_as_its_folder_says(pipeline: Path, kind: str) -> None:
    encoder = open_encoder(pipeline)
    found = vectors(encoder, kind)
    assert torch.allclose(found, theirs(pipeline, kind), atol=1e-6)
    assert torch.allclose(found.norm(dim=1), torch.ones(4))
    assert (encoder.width, encoder.max_length, encoder.similarity) == (8, 12, "dot")
    assert (encoder.prompt("query"), encoder.prompt("document")) == ("query : ", "passage : ")
    with pytest.raises(SettingError, match="kind"):
        encoder.prompt("qurey")  # type: ignore[arg-type]


@pytest.mark.parametrize("pooling", [None, "mean", "cls", "max"])
def test_an_encoder_of_hugging_face_is_pooled(bert: Path, pooling: Any) -> None:
    from transformers import BertModel

    encoder = open_encoder(bert, pooling=pooling)
    found = vectors(encoder, "query")
    rows = Tokenising(encoder.tokenizer, encoder.max_length)(TEXTS)
    plain = BertModel.from_pretrained(bert).eval()
    for place in range(len(TEXTS)):
        with torch.no_grad():
            hidden = plain(**rows.batch(torch.tensor([place])).inputs()).last_hidden_state[0]
        wanted = {"cls": hidden[0], "max": hidden.max(dim=0).values}.get(pooling or "mean", hidden.mean(dim=0))
        assert torch.allclose(found[place], wanted, atol=1e-5)
    assert encoder.similarity == "cosine"


def test_it_learns(bert: Path) -> None:
    encoder = open_encoder(bert)
    batch = Tokenising(encoder.tokenizer, encoder.max_length)(TEXTS).batch(torch.tensor([0, 1]))
    encoder(batch.inputs()).square().sum().backward()
    named = {name: parameter.grad for name, parameter in encoder.named_parameters()}
    # The pooler of BERT has no part in it.
    assert all(value is not None for name, value in named.items() if "pooler" not in name)


@pytest.mark.parametrize("projected", [False, True])
def test_a_saved_folder_gives_the_same_vectors(pipeline: Path, tmp_path: Path, projected: bool) -> None:
    encoder = open_encoder(pipeline)
    if projected:
        torch.manual_seed(0)
        encoder = project(encoder, 5)
        assert encoder.width == 5
    folder = encoder.save(tmp_path / "new" / "student")
    assert [path.name for path in folder.parent.iterdir()] == ["student"]
    for kind in ("query", "document"):
        assert torch.allclose(theirs(folder, kind), vectors(encoder, kind), atol=1e-6)
        assert torch.equal(vectors(open_encoder(folder), kind), vectors(encoder, kind))
    assert open_encoder(folder).similarity == "dot"
    with pytest.raises(SettingError, match="exists already"):
        encoder.save(folder)


def test_a_projection_is_solved(bert: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    student, weight = torch.randn(50, 8, generator=generator), torch.randn(3, 8, generator=generator)
    solved = fit_projection(student, student @ weight.T, ridge=1e-9)
    assert torch.allclose(solved, weight, atol=1e-5)
    ridge = 0.1
    slow = torch.linalg.lstsq(
        torch.cat([student, (ridge * student.square().sum(dim=0).mean()).sqrt() * torch.eye(8)]),
        torch.cat([student @ weight.T, torch.zeros(8, 3)]),
    ).solution.T
    assert torch.allclose(fit_projection(student, student @ weight.T, ridge=ridge), slow, atol=1e-5)
    encoder = open_encoder(bert)
    before, after = vectors(encoder, "query"), vectors(project(encoder, 3, solved), "query")
    assert torch.allclose(after, before @ solved.T, atol=1e-4)
    with pytest.raises(SettingError, match=r"weight must be of shape \(3, 8\), got \(8, 3\)"):
        project(encoder, 3, solved.T)


def copy_of(folder: Path, target: Path) -> Path:
    import shutil

    return Path(shutil.copytree(folder, target))


def test_folders_that_are_not_opened(bert: Path, pipeline: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there is no folder"):
        open_encoder(tmp_path / "absent")
    with pytest.raises(WeightsError, match="which tells what network it is"):
        open_encoder(tmp_path)
    with pytest.raises(SettingError, match="says itself how it pools"):
        open_encoder(pipeline, pooling="mean")
    with pytest.raises(SettingError, match="did you mean 'mean'"):
        open_encoder(bert, pooling="maen")  # type: ignore[arg-type]
    pickled = copy_of(bert, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="is a pickle"):
        open_encoder(pickled)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"type": "evil.Module", "path": ""}, "has a part 'evil.Module'"),
        (
            {"type": "sentence_transformers.models.CLIPModel", "path": ""},
            "has a part 'sentence_transformers.models.CLIPModel'",
        ),
        ({"type": "sentence_transformers.models.Transformer", "path": "../other"}, "a part outside of it"),
    ],
)
def test_code_of_a_folder_is_never_run(pipeline: Path, tmp_path: Path, part: dict[str, str], message: str) -> None:
    folder = copy_of(pipeline, tmp_path / "copy")
    (folder / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", **part}]))
    with pytest.raises(WeightsError, match=message):
        open_encoder(folder)
    (folder / "modules.json").write_text("nothing")
    with pytest.raises(WeightsError, match="cannot be read as JSON"):
        open_encoder(folder)


def test_a_config_that_asks_for_code_is_refused(bert: Path, tmp_path: Path) -> None:
    folder = copy_of(bert, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(WeightsError, match="auto_map"):
        open_encoder(folder)
