"""Images, masks and splits: prepared once into a memory-mapped file, augmented in batches on the device."""

from autoseg.data.augment import Augment, Draw, normalize
from autoseg.data.holdout import split_holdout
from autoseg.data.remarks import remarks_on
from autoseg.data.segdata import SegData, open_data, soft_labels

__all__ = ["Augment", "Draw", "SegData", "normalize", "open_data", "remarks_on", "soft_labels", "split_holdout"]
