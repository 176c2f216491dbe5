#!/bin/sh
# pydicom 3.0.2 with numpy 2.4.6, Python 3.11: a VOI LUT of 8-bit entries is read at the value modulo 256.
#
# apply_voi (and apply_voi_lut) look up the place in the table in the type of its entries: with 4 096 entries of 8 bits,
# which the standard allows (C.11.2.1.1: 8 bits an entry, up to 65 536 entries), the value 300 gets entry 44. The picture
# has bands where it should have one ramp, and nothing is said. Entries of 16 bits are right.
# Where tables of bytes may occur, look up by an index of your own: lut[np.clip(values.astype(int) - first, 0, n - 1)].
#
# Seen: entries of 8 bits: 0 2 13 15, of 16 bits: 0 18 125 255; right is the latter.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pydicom==3.0.2 numpy==2.4.6
cat > "$folder/wraps.py" <<'PY'
import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_voi
from pydicom.sequence import Sequence

values = np.array([[0, 300, 2000, 4095]], np.uint16)
ramp = np.arange(4096) // 16


def shown(dtype: str) -> list[int]:
    item = Dataset()
    item.LUTDescriptor = [4096, 0, 8 * np.dtype(dtype).itemsize]
    item.add_new("LUTData", "US", ramp.astype(dtype).tolist())
    data = Dataset()
    data.VOILUTSequence = Sequence([item])
    return apply_voi(values, data)[0].tolist()


print("entries of 8 bits:", *shown("u1"))
print("entries of 16 bits:", *shown("u2"))
assert shown("u2") == ramp[values[0]].tolist() == [0, 18, 125, 255]
assert shown("u1") == ramp[values[0] % 256].tolist()
PY
"$folder/venv/bin/python" "$folder/wraps.py"
