#!/bin/sh
# Pillow 12.3.0, Python 3.11: an uncompressed YCbCr TIFF, as Pillow itself writes one, cannot be read back; 13.0.0 reads it.
#
# Image.save of a YCbCr image writes three bytes a pixel. On opening, the reader plans a raw tile of mode RGBX, four bytes
# a pixel, and load() ends in "OSError: image file is truncated (0 bytes not processed)", which blames the file. The same
# picture with LZW or Deflate is read, since libtiff turns it into RGB. Pillow 11.0.0 to 12.2.0 do the same; 13.0.0 plans a
# raw tile of mode YCbCr. Scanners and slide exports write such files, and packages that cap Pillow below 13 (Gradio
# 6.31.0 does) bring the older reader along. Naming YCbCr in the tile before load() gives the pixels.
#
# Seen: 12.3.0 raises OSError without compression and reads LZW; 13.0.0 reads both.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
cat > "$folder/read.py" <<'PY'
import io
import sys

import PIL
from PIL import Image

said = []
for compression in (None, "tiff_lzw"):
    sink = io.BytesIO()
    Image.new("YCbCr", (24, 20), (90, 120, 140)).save(sink, "TIFF", compression=compression)
    image = Image.open(io.BytesIO(sink.getvalue()))
    tile = image.tile[0][3]
    try:
        image.load()
        said.append("read")
    except OSError as error:
        said.append("OSError")
        print(PIL.__version__, compression, tile, error)
print(PIL.__version__, said)
sys.exit(said != sys.argv[1:])
PY
for release in "12.3.0 OSError read" "13.0.0 read read"; do
    set -- $release
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check "pillow==$1"
    shift
    "$folder/venv/bin/python" "$folder/read.py" "$@"
done
