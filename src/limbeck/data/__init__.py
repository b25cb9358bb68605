"""Data sets, replayable augmentation and loaders."""

from limbeck.data.batches import FileBatches, ResidentBatches, eval_batches
from limbeck.data.damage import long_tail, wrong_labels
from limbeck.data.load import load_data
from limbeck.data.loader import LoaderBatches
from limbeck.data.preprocess import Preprocess
from limbeck.data.slots import Slots
from limbeck.data.sources import SourceEntry, list_sources, register_source
from limbeck.data.views import Views, parse_view_sets, parse_views
from limbeck.data.vision import ImageData, ImageSplit

__all__ = [
    "FileBatches",
    "ImageData",
    "ImageSplit",
    "LoaderBatches",
    "Preprocess",
    "ResidentBatches",
    "Slots",
    "SourceEntry",
    "Views",
    "eval_batches",
    "list_sources",
    "load_data",
    "long_tail",
    "parse_view_sets",
    "parse_views",
    "register_source",
    "wrong_labels",
]
