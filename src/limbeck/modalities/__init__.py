"""What kind of data a run is about, and what follows from it: how networks are opened, see a batch and are written down."""

from limbeck.modalities.base import Modality
from limbeck.modalities.images import Images
from limbeck.modalities.search import Search
from limbeck.modalities.text import Text

__all__ = ["Images", "Modality", "Search", "Text"]
