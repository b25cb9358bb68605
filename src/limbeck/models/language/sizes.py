"""How many tokens a language model knows and how long a text it takes."""

from __future__ import annotations

from torch import nn

from limbeck.errors import SettingError


def embedding_of(network: nn.Module) -> nn.Embedding:
    """The embedding of tokens: (V, W), a row for each token.

    Raises:
        SettingError: the network does not say which it is, as those of transformers do.
    """
    get = getattr(network, "get_input_embeddings", None)
    try:
        embedding = get() if callable(get) else None
    except NotImplementedError:
        embedding = None
    if not isinstance(embedding, nn.Embedding):
        raise SettingError(
            f"{type(network).__name__} has no embedding of tokens that it tells of; a language model has "
            "get_input_embeddings(), as those of transformers do."
        )
    return embedding


def vocabulary_of(network: nn.Module) -> int:
    """V: the width of the logits of tokens, or the rows of the embedding in a network that gives no such logits.

    Raises:
        SettingError: see :func:`embedding_of`.
    """
    get = getattr(network, "get_output_embeddings", None)
    head = get() if callable(get) else None
    rows: int = head.out_features if isinstance(head, nn.Linear) else embedding_of(network).num_embeddings
    return rows


def context_of(network: nn.Module) -> int | None:
    """The most tokens that a text may have, or None where nothing limits it or the network does not say."""
    config = getattr(network, "config", None)
    if config is None:
        return None
    positions: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    if positions is None:
        return None
    # RoBERTa and its kin count positions from after the padding token.
    learned = (module for name, module in network.named_modules() if name.endswith("position_embeddings"))
    offsets = (module.padding_idx for module in learned if isinstance(module, nn.Embedding))
    return positions - next((offset + 1 for offset in offsets if offset is not None), 0)
