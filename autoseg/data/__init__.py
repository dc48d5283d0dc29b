"""Images, masks and splits: prepared once into a memory-mapped file, augmented in batches on the device.

* `segdata`: `open_data`, from a configuration to images and labels; `source` is the interface of the kinds of data:
  `builtin`, `folder`, `mmseg_source`; `decode` reads one file, `masks` turns ids or colours into labels, `threads`
  reads many;
* `cache`: the file, made `once` by the first process that needs it; `remarks` warns of oddities in the data;
* `holdout`: the training images on which a search scores; `augment`: scale, crop, flip, colours, on the device.
"""

from autoseg.data.augment import Augment, normalize
from autoseg.data.holdout import split_holdout
from autoseg.data.remarks import remarks_on
from autoseg.data.segdata import SegData, open_data, vote_shares

__all__ = ["Augment", "SegData", "normalize", "open_data", "remarks_on", "split_holdout", "vote_shares"]
