"""Whether a proxy ranks losses as longer training does: `rankings` trains and judges by `agreement`; `documents`."""
