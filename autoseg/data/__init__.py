"""Images, masks and splits: prepared once into a memory-mapped file, augmented in batches on the device.

* `segdata`: `open_data`, from a configuration to images and labels; `source` is what kinds of data promise: `builtin`,
  `folder`, `mmseg_source`; `decode` reads one file, `threads` many;
* `cache`: the file, made `once` by whichever process comes first; `remarks` on what is odd in it;
* `holdout`: which training images a search is judged on; `augment`: scale, crop, flip, colours, on the device.
"""

from autoseg.data.augment import Augment, normalize
from autoseg.data.holdout import split_holdout
from autoseg.data.remarks import remarks_on
from autoseg.data.segdata import SegData, open_data, vote_shares

__all__ = ["Augment", "SegData", "normalize", "open_data", "remarks_on", "split_holdout", "vote_shares"]
