"""What kind of data a run is about, and what follows from it: how networks are opened, see a batch and are written down."""

from limbeck.modalities.base import Modality
from limbeck.modalities.images import Images
from limbeck.modalities.search import Search
from limbeck.modalities.text import Text

__all__ = ["Images", "Modality", "Search", "Text", "modality_of"]

# Search goes by its prefix alone, and its files end as those of text do. Images are what no other kind claims, names of data
# sets among them.
_KINDS: tuple[type[Modality], ...] = (Search, Text, Images)


def modality_of(data: object, setting: str) -> type[Modality]:
    """The kind of some data as they were given or read, or, where these are None, of those that a data setting names."""
    return next(kind for kind in _KINDS if kind.claims(data, setting))
