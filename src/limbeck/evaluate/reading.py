"""The data of an evaluation, of whatever kind, in the tokens of its networks where it is text or a collection."""

from __future__ import annotations

from collections.abc import Sequence

from limbeck.config import RunSettings
from limbeck.data.search import search_of
from limbeck.data.text import TextData, text_of
from limbeck.errors import SettingError
from limbeck.evaluate.opening import Data
from limbeck.feeds import read_data
from limbeck.modalities.search_networks import is_encoder


def read_evaluated(settings: RunSettings, students: Sequence[str], teacher: str | None) -> Data:
    """The data that the settings name, for networks that are named by texts.

    Raises:
        LimbeckError: what is wrong with it, or networks of text whose tokenizers differ.
    """
    if text_of(settings.data) is not None:
        from limbeck.text_feeds import check_same_tokens, check_text_settings, read_text, tokens_of

        check_text_settings(settings)
        text = read_text(settings)
        assert isinstance(text, TextData)
        networks = [*([teacher] if teacher else []), *students]
        data = tokens_of(text, settings, networks)
        check_same_tokens(data, networks)
        return data
    if search_of(settings.data) is not None:
        from limbeck.search_feeds import check_search_settings, read_search, search_corpus

        if teacher is not None and not is_encoder(teacher):
            raise SettingError(
                f"teacher: {teacher} scores pairs of texts, and only encoders can search a collection: name an encoder, or "
                "none with --teacher none."
            )
        check_search_settings(settings, ())
        found = read_search(settings)
        assert found is not None
        # The whole collection is searched: nothing is mined or drawn for a batch.
        plain = {"negatives": 0, "mining": "random", "extra_queries": None}
        return search_corpus(*found, settings.model_copy(update=plain), teacher, list(students))
    return read_data(settings)
