"""What hostile files hold: damaged, misnamed, oversized and odd images, and good neighbours."""

from __future__ import annotations

import base64
import importlib.util
import struct
import zlib
from collections.abc import Callable
from typing import Literal

import numpy as np
from PIL import Image, PngImagePlugin

from tests.image_builders import dicom, encoded, jpeg_segment, picture, png, png_chunk, tiff

Verdict = Literal["ok", "bad", "either"]
"""What becomes of a file: it is decoded, refused with a reason, or one of the two, where that is not for us to say."""
Files = dict[str, tuple[bytes, Verdict]]

ARITHMETIC_JPEG = (
    "|JeWF01!$>Nk#wx0RR9200961|JwjV01yid4h#wq4h;?x5fBp?C>j_R78o%jB^@X_Gd(;xGdMRuNL)@pL{~*OI8bd-S6^ahXlFi6ad~iLcw"
    "A*?WB=O#Lje&I5*QU2FB%#zV?sDWV`F1uV`F1uV`F1uV`F1uV`F1uV`F1uV`F1uV`F1uV`F1uV`F1uV`F1uV`F1uV`Klx01*fP5C9MZ0TBQK5d"
    "i}c0sqVZ3IGrg1pyEd1^?Or3<CiG0ucid06zf!=2rgz5pT+Y!7%^X"
)
"""16×16, base 85; Pillow cannot write one."""
HEIC = (
    "0000SW^{RQXk}?*00000ZE0pPXk}?*ZE0a<0004eZDn*}000000000XXk=`10000000000aA{+700000000000000000000B57=IV*mgE07O6l0R"
    "RC200001pa1~?00000001rk001LtX>Mi!000000RR916=`l}WdZ;I000310BCk&F#rGn01j|zbZr0t000010002|X>f9I0002oX>en20001WXm(>m"
    "0RwOV0058x000009`FGC{rLC*01pFT0096PKmiN^|NjGU00093kN^M!000939=ZZRVE_RDDMA4O18@KU0|1Z!00RI30{|YNAb|yz>aLpR;31&EfB"
    "*mtfB*mk0EA)y0RRR>0l{;@i2wiq6Ju{|a&BX6cmM$a4FCp!0000KX>)L8000000000$0000$0000eV{Bn?0000G000010000G00001|NsBc00002"
    "|NsBc000020000GaA|mH000000|*ER0000OX>e^}0000000001009Mo0s{qv0000sZDe6|0000gC;_h-A!b5A_m(34AjNbKkDsg!jx%cxxGwFW=d"
    "%gH1ecE8Ho%M{L#_"
)
"""16×16, base 85; written by pillow-heif, which need not be there."""


def _good() -> Files:
    """The neighbours."""
    kinds = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "JPEG", "PNG", "JPEG2000", "PPM", "TGA", "JPEG")
    suffixes = ("jpg", "png", "webp", "bmp", "gif", "tiff", "JPEG", "PNG", "jp2", "ppm", "tga", "jfif")
    return {
        f"good-{number:02d}.{suffix}": (encoded(picture(width=50 + number), kind), "ok")
        for number, (kind, suffix) in enumerate(zip(kinds, suffixes, strict=True))
    }


def _truncated() -> Files:
    """Cut at each tenth. A WebP of which nothing but the last bytes of padding is missing would be whole; none is."""
    whole = {
        "jpg": encoded(picture(), "JPEG"),
        "progressive.jpg": encoded(picture(), "JPEG", progressive=True),
        "png": encoded(picture(), "PNG"),
        "webp": encoded(picture(), "WEBP"),
        "gif": encoded(picture("P"), "GIF"),
        "tiff": tiff(np.asarray(picture())),
        "lzw.tiff": encoded(picture(), "TIFF", compression="tiff_lzw"),
        "bmp": encoded(picture(), "BMP"),
    }
    return {
        f"cut-{tenth}0-percent.{suffix}": (data[: len(data) * tenth // 10], "bad")
        for suffix, data in whole.items()
        for tenth in range(1, 10)
    }


def _no_images() -> Files:
    html = b"<!DOCTYPE html>\n<html><body><h1>404 Not Found</h1></body></html>\n"
    icon = encoded(picture(width=32, height=32), "ICO")
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\n0 0 40 40 rectfill\nshowpage\n"
    noise = np.random.default_rng(1).integers(0, 256, 5000, dtype=np.uint8).tobytes()
    contents = {
        "text.jpg": b"this is not an image\n",
        "page.jpg": html,
        "page.tga": html,
        "object.png": b'{"message": "rate limit exceeded"}',
        "program.jpg": b"\x7fELF\x02\x01\x01" + noise[:900],
        "archive.png": b"PK\x03\x04" + noise[:900],
        "document.tif": b"%PDF-1.7\n" + noise[:900],
        "pointer.jpg": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "drawing.png": b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>',
        "postscript.jpg": postscript,
        "postscript.tiff": postscript,
        "layers.tiff": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 20, 30, 8, 3) + bytes(2000),
        "icon.bmp": icon,
        "film.heic": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + noise[:900],
        "wide-text.png": "not an image".encode("utf-16"),
        "zeros.jpg": bytes(100_000),
        "one-byte.jpg": b"\xff",
        "start-only.jpg": b"\xff\xd8\xff",
        "start-only.png": b"\x89PNG\r\n\x1a\n",
        "start-only.gif": b"GIF89a",
        "start-only.webp": b"RIFF\x10\0\0\0WEBP",
        "start-only.tiff": b"II*\0",
        "start-only.bmp": b"BM",
    }
    contents |= {f"empty.{suffix}": b"" for suffix in ("jpg", "png", "gif", "tiff", "dcm", "heic")}
    suffixes = ("jpg", "png", "gif", "webp", "bmp", "tiff", "tga", "pgm", "jp2", "avif", "heic", "dcm")
    contents |= {f"noise.{suffix}": noise for suffix in suffixes}
    return {name: (data, "bad") for name, data in contents.items()}


def _misnamed() -> Files:
    """The content counts, not the name."""
    names = {"jpeg.png": "JPEG", "png.jpg": "PNG", "gif.webp": "GIF", "webp.gif": "WEBP", "bmp.tiff": "BMP"}
    return {f"really-{name}": (encoded(picture(), kind), "ok") for name, kind in names.items()}


def _bombs() -> Files:
    line = bytes(1 + 100)
    small = png(100, 100, 8, 0, line * 100)
    megabytes = zlib.compress(bytes(64 << 20), 9)  # 64 MB in 64 kB
    chunk = ("zTXt", b"k\0\0" + megabytes), ("iTXt", b"k\0\1\0\0\0" + megabytes), ("iCCP", b"k\0\0" + megabytes)
    jpeg = encoded(picture(), "JPEG")
    frame = jpeg.index(b"\xff\xc0") + 5
    gif = encoded(picture("P"), "GIF")
    window = gif.index(b"\x2c\0\0\0\0") + 5
    j2k = encoded(picture(), "JPEG2000")
    siz = j2k.index(b"\xff\x51") + 6
    sizes = struct.pack(">IIIIIIII", 60000, 60000, 0, 0, 60000, 60000, 0, 0)
    grey = np.zeros((10, 10), np.uint8)
    files: dict[str, bytes] = {
        "bomb-header.png": png(60000, 60000, 8, 2, bytes(1000)),
        "bomb-one-bit.png": png(60000, 60000, 1, 0, bytes(1000)),
        "bomb-header.pgm": b"P5 60000 60000 255 " + bytes(100),
        "bomb-header.ppm": b"P3 99999 99999 255 0 0 0",
        "bomb-header.gif": b"GIF89a" + struct.pack("<HH", 65535, 65535) + gif[10:],
        "bomb-header.bmp": b"BM" + struct.pack("<IIIIiiHHIIiiII", 99, 0, 54, 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0),
        "bomb-header.tiff": tiff(grey, t256=60000, t257=60000),
        "bomb-header.jpg": jpeg[:frame] + struct.pack(">HH", 65500, 65500) + jpeg[frame + 4 :],
        "bomb-header.webp": b"RIFF\x1e\0\0\0WEBPVP8X\n\0\0\0\0\0\0\0\xff\x3f\0\xff\x3f\0VP8L\0\0\0\0",
        "bomb-header.tga": struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 65535, 65535, 24, 0) + bytes(99),
        "bomb-header.jp2": j2k[:siz] + sizes + j2k[siz + 32 :],
        "bomb-header.dcm": dicom(grey, x00280010=60000, x00280011=60000),
    }
    result: Files = {name: (data, "bad") for name, data in files.items()}
    result["bomb-frame.gif"] = gif[:window] + struct.pack("<HH", 65000, 65000) + gif[window + 4 :], "bad"
    # Pillow reads no more than the picture needs, and refuses long texts
    result["bomb-pixels.png"] = png(100, 100, 8, 0, bytes(64 << 20)), "either"
    for name, content in chunk:
        data = small[:33] + png_chunk(name.encode(), content) + small[33:]
        result[f"bomb-{name}.png"] = data, "either"
    result["bomb-tile.tiff"] = tiff(grey, t322=60000, t323=60000, t324=8, t325=100), "either"
    result["bomb-strips.tiff"] = tiff(grey, t278=0x7FFFFFFF), "ok"
    result["bomb-samples.tiff"] = tiff(grey, t277=60000), "bad"
    result["large-one-bit.png"] = png(6000, 6000, 1, 0, bytes(751) * 6000), "ok"
    return result


def _modes() -> Files:
    rgb = picture()
    wide = np.linspace(0, 65535, 300).reshape(15, 20)
    odd = wide.astype(np.float32)
    odd[0, 0], odd[1, 1], odd[2, 2] = np.nan, np.inf, -np.inf
    sixteen = np.stack([wide] * 3, 2).astype(np.uint16)
    scan = b"".join(b"\0" + row.astype(">u2").tobytes() for row in sixteen)
    keyed = picture("P")
    files = {f"mode-{mode}.png": encoded(rgb.convert(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGBA", "RGB")}
    files |= {
        f"mode-{mode}.tiff": encoded(rgb.convert(mode), "TIFF")
        for mode in ("1", "L", "LA", "P", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "I", "F")
    }
    files |= {
        "mode-PA.png": encoded(keyed, "PNG", transparency=bytes(range(256))),
        "mode-P-key.gif": encoded(keyed, "GIF", transparency=3),
        "mode-CMYK.jpg": encoded(rgb.convert("CMYK"), "JPEG"),
        "mode-L.jpg": encoded(rgb.convert("L"), "JPEG"),
        "mode-L.webp": encoded(rgb.convert("L"), "WEBP"),
        "mode-RGBA.webp": encoded(rgb.convert("RGBA"), "WEBP", lossless=True),
        "16-bit-grey.png": encoded(Image.fromarray(wide.astype(np.uint16)), "PNG"),
        "16-bit-grey.tiff": tiff(wide.astype(np.uint16)),
        "16-bit-signed.tiff": tiff((wide - 30000).astype(np.int16)),
        "16-bit-white-is-zero.tiff": tiff(wide.astype(np.uint16), t262=0),
        "16-bit-grey.pgm": b"P5 20 15 65535 " + wide.astype(">u2").tobytes(),
        "16-bit-colour.png": png(20, 15, 16, 2, scan),
        "16-bit-colour.tiff": tiff(sixteen),
        "32-bit-grey.tiff": tiff(wide.astype(np.uint32)),
        "32-bit-signed.tiff": tiff((wide - 30000).astype(np.int32)),
        "float.tiff": tiff(wide.astype(np.float32)),
        "float-not-a-number.tiff": tiff(odd),
        "float-nothing-but-nan.tiff": tiff(np.full((4, 4), np.nan, np.float32)),
        "fax.tiff": encoded(rgb.convert("1"), "TIFF", compression="group4"),
        "jpeg-inside.tiff": encoded(rgb, "TIFF", compression="jpeg"),
        "deflated.tiff": encoded(rgb, "TIFF", compression="tiff_adobe_deflate"),
        "interlaced-2-bit.png": png(4, 4, 2, 0, b"\0\x1b" * 4),
        "bottom-up-1-bit.bmp": encoded(rgb.convert("1"), "BMP"),
        "ascii.ppm": b"P3\n# a comment\n2 1\n255\n255 0 0  0 255 0\n",
        "bitmap.pbm": b"P4 16 2 " + b"\xaa\x55\xaa\x55",
    }
    result: Files = {name: (data, "ok") for name, data in files.items()}
    result["mode-LA-transparent.png"] = encoded(Image.new("LA", (9, 9), (7, 0)), "PNG"), "bad"
    # what Pillow does not know today, and may tomorrow
    result["double.tiff"] = tiff(wide), "either"
    result["float-colour.tiff"] = tiff(np.zeros((5, 5, 3), np.float32)), "either"
    result["palette-missing.png"] = png(8, 8, 8, 3, bytes(9) * 8), "either"
    result["palette-too-short.png"] = png(2, 2, 8, 3, b"\0\1\2\0\3\4", (b"PLTE", b"abc")), "either"
    return result


def _metadata() -> Files:
    """Damaged EXIF, XMP and profiles must not cost a good picture."""
    jpeg = encoded(picture(), "JPEG")
    rng = np.random.default_rng(2)
    exif = Image.Exif()
    exif[0x0112] = 6
    good = exif.tobytes()[6:]
    loop = b"II*\0\x08\0\0\0\0\0\x08\0\0\0"
    blocks = {
        "random": rng.integers(0, 256, 400, dtype=np.uint8).tobytes(),
        "empty": b"",
        "cut": good[:11],
        "loop": loop,
        "far": b"II*\0\xff\xff\xff\xff",
        "many": b"II*\0\x08\0\0\0\xff\xff" + bytes(300),
        "orientation-0": good.replace(b"\x00\x06\x00\x00", b"\x00\x00\x00\x00"),
        "orientation-99": good.replace(b"\x00\x06\x00\x00", b"\x00\x63\x00\x00"),
        "orientation-text": good.replace(b"\x01\x12\x00\x03", b"\x01\x12\x00\x02"),
        "orientation-many": good.replace(b"\x00\x00\x00\x01\x00\x06", b"\xff\xff\xff\xff\x00\x06"),
        "huge-value": b"MM\0*\0\0\0\x08\0\x01\x87\x69\0\x07\x7f\xff\xff\xff\0\0\0\x08\0\0\0\0",
    }
    files = {
        f"exif-{name}.jpg": jpeg[:2] + jpeg_segment(0xE1, b"Exif\0\0" + block) + jpeg[2:]
        for name, block in blocks.items()
    }
    files |= {f"exif-{name}.webp": encoded(picture(), "WEBP", exif=block) for name, block in blocks.items() if block}
    small = png(10, 10, 8, 0, bytes(11) * 10)
    files["exif-random.png"] = small[:33] + png_chunk(b"eXIf", blocks["random"]) + small[33:]
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="' + b"9" * 5000
    files["xmp-odd.jpg"] = jpeg[:2] + jpeg_segment(0xE1, xmp) + jpeg[2:]
    files["profile-odd.jpg"] = jpeg[:2] + jpeg_segment(0xE2, b"ICC_PROFILE\0\1\1" + blocks["random"]) + jpeg[2:]
    files["thumbnail.jpg"] = jpeg[:2] + jpeg_segment(0xE1, b"Exif\0\0" + good + jpeg) + jpeg[2:]
    files["photoshop-odd.jpg"] = jpeg[:2] + jpeg_segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04" + bytes(9)) + jpeg[2:]
    return {name: (data, "ok") for name, data in files.items()}


def _shapes() -> Files:
    sizes = [(1, 1), (1, 30000), (30000, 1), (2, 3), (7, 20000)]
    files = {f"shape-{w}x{h}.png": encoded(Image.new("L", (w, h), 99), "PNG") for w, h in sizes}
    files |= {f"shape-{w}x{h}.jpg": encoded(Image.new("RGB", (w, h), (9, 200, 99)), "JPEG") for w, h in sizes}
    files["shape-65500x1.jpg"] = encoded(Image.new("L", (65500, 1), 3), "JPEG")
    result: Files = {name: (data, "ok") for name, data in files.items()}
    jpeg = encoded(picture(), "JPEG")
    frame = jpeg.index(b"\xff\xc0") + 5
    result["shape-0x0.jpg"] = jpeg[:frame] + bytes(4) + jpeg[frame + 4 :], "bad"
    result["shape-0x0.png"] = png(0, 0, 8, 0, b""), "bad"
    result["shape-0x0.gif"] = b"GIF89a" + bytes(7) + b"\x2c" + bytes(9) + b"\x02\0;", "bad"
    result["shape-0x9.bmp"] = (
        encoded(picture(), "BMP").replace(struct.pack("<ii", 60, 44), struct.pack("<ii", 0, 9)),
        "bad",
    )
    result["shape-0x9.pgm"] = b"P5 0 9 255 ", "bad"
    result["shape-minus.ppm"] = b"P6 -5 9 255 " + bytes(999), "bad"
    result["shape-taller.bmp"] = (
        encoded(picture(), "BMP").replace(struct.pack("<ii", 60, 44), struct.pack("<ii", 60, -44)),
        "ok",
    )
    return result


def _jpegs() -> Files:
    jpeg = encoded(picture(), "JPEG")
    scan = jpeg.index(b"\xff\xda")
    middle = (scan + len(jpeg)) // 2
    frame = jpeg.index(b"\xff\xc0")
    result: Files = {
        "jpeg-progressive.jpg": (encoded(picture(), "JPEG", progressive=True), "ok"),
        "jpeg-restarts.jpg": (encoded(picture(), "JPEG", restart_marker_blocks=2), "ok"),
        "jpeg-trailing-garbage.jpg": (jpeg + b"garbage" * 5000, "ok"),
        "jpeg-two.jpg": (jpeg + encoded(picture(width=9), "JPEG"), "ok"),
        "jpeg-many-comments.jpg": (jpeg[:2] + jpeg_segment(0xFE, b"") * 30000 + jpeg[2:], "ok"),
        "jpeg-long-comment.jpg": (jpeg[:2] + jpeg_segment(0xFE, bytes(65000)) * 9 + jpeg[2:], "ok"),
        "jpeg-filler-bytes.jpg": (jpeg[:2] + b"\xff" * 1000 + jpeg[2:], "ok"),
        "jpeg-arithmetic.jpg": (base64.b85decode(ARITHMETIC_JPEG), "either"),  # libjpeg can be built without
        "jpeg-no-end.jpg": (jpeg[:-2], "bad"),
        "jpeg-no-start.jpg": (jpeg[2:], "bad"),
        "jpeg-no-scan.jpg": (jpeg[:scan] + b"\xff\xd9", "bad"),
        "jpeg-no-tables.jpg": (jpeg.replace(b"\xff\xc4", b"\xff\xfe"), "either"),  # the standard ones may be assumed
        "jpeg-no-quantisation.jpg": (jpeg.replace(b"\xff\xdb", b"\xff\xfe"), "bad"),
        "jpeg-12-bit.jpg": (jpeg[: frame + 4] + b"\x0c" + jpeg[frame + 5 :], "bad"),
        "jpeg-lossless.jpg": (jpeg[: frame + 1] + b"\xc3" + jpeg[frame + 2 :], "bad"),
        "jpeg-hierarchical.jpg": (jpeg[: frame + 1] + b"\xc5" + jpeg[frame + 2 :], "bad"),
        "jpeg-7-colours.jpg": (jpeg[: frame + 9] + b"\x07" + jpeg[frame + 10 :], "bad"),
        "jpeg-zero-segment.jpg": (jpeg[:2] + b"\xff\xe5\0\0" + jpeg[2:], "either"),
        "jpeg-segment-too-long.jpg": (jpeg[:2] + b"\xff\xe5\xff\xff" + jpeg[2:], "bad"),
        # libjpeg goes on after damage inside the picture, with a guess
        "jpeg-damaged-middle.jpg": (jpeg[:middle] + b"\xff\xff\0\xab" * 20 + jpeg[middle + 80 :], "either"),
        "jpeg-damaged-bits.jpg": (jpeg[:middle] + bytes(60) + jpeg[middle + 60 :], "either"),
    }
    return result


def _pngs() -> Files:
    image = encoded(picture(), "PNG")
    idat, iend = image.index(b"IDAT"), image.index(b"IEND")
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 100_000, zip=True)
    damaged = bytearray(image)
    damaged[idat + 300] ^= 0xFF
    wrong_sum = bytearray(image)
    wrong_sum[iend - 5] ^= 0xFF
    raw = b"\x09" + bytes(10)
    small = png(10, 10, 8, 0, bytes(11) * 10)
    return {
        "png-long-text.png": (encoded(picture(), "PNG", pnginfo=info), "ok"),
        "png-trailing-garbage.png": (image + b"garbage" * 999, "ok"),
        "png-wrong-checksum.png": (bytes(wrong_sum), "either"),  # of pixels that are right
        "png-wrong-header-checksum.png": (small[:32] + bytes([small[32] ^ 1]) + small[33:], "bad"),
        "png-damaged.png": (bytes(damaged), "bad"),
        "png-no-end.png": (image[: iend - 4], "either"),  # the picture itself is whole
        "png-no-data.png": (image[: idat - 4] + image[iend - 4 :], "bad"),
        "png-odd-filter.png": (png(10, 10, 8, 0, raw * 10), "either"),
        "png-odd-depth.png": (png(10, 10, 5, 0, bytes(11) * 10), "bad"),
        "png-odd-interlace.png": (
            small[:28] + b"\x07" + struct.pack(">I", zlib.crc32(small[12:28] + b"\x07")) + small[33:],
            "either",
        ),
        "png-chunk-too-long.png": (small[:33] + b"\xff\xff\xff\xffteSt" + small[33:], "bad"),
        "png-many-chunks.png": (small[:33] + png_chunk(b"teSt", b"") * 20000 + small[33:], "ok"),
        "png-unknown-critical.png": (small[:33] + png_chunk(b"TEST", b"x") + small[33:], "either"),
    }


def _others() -> Files:
    frames = [picture(), picture("L").convert("RGB"), picture(width=60, height=44).rotate(90)]
    rest = {"save_all": True, "append_images": frames[1:]}
    good = tiff(np.asarray(picture("L")))
    start = struct.unpack_from("<I", good, 4)[0]
    gif = encoded(picture("P"), "GIF")
    avif = encoded(picture(), "AVIF")
    j2k = encoded(picture(), "JPEG2000")
    webp = encoded(picture(), "WEBP")
    has_heif = importlib.util.find_spec("pillow_heif") is not None
    return {
        "animated.gif": (encoded(frames[0], "GIF", **rest), "ok"),
        "animated.webp": (encoded(frames[0], "WEBP", **rest), "ok"),
        "animated.png": (encoded(frames[0], "PNG", **rest), "ok"),
        "animated-cut.gif": (encoded(frames[0], "GIF", **rest)[:-300], "ok"),
        "pages.tiff": (encoded(frames[0], "TIFF", **rest), "ok"),
        "directory-loop.tiff": (good[:-4] + struct.pack("<I", start), "ok"),
        "directory-beyond.tiff": (good[:4] + struct.pack("<I", 1 << 31) + good[8:], "bad"),
        "directory-huge.tiff": (good[:start] + b"\xff\xff" + good[start + 2 :], "either"),
        "strip-beyond.tiff": (tiff(np.asarray(picture("L")), t273=1 << 30), "bad"),
        "compression-odd.tiff": (tiff(np.asarray(picture("L")), t259=31337), "bad"),
        "bits-odd.tiff": (tiff(np.asarray(picture("L")), t258=77), "bad"),
        "no-frames.gif": (gif[:13] + b";", "bad"),
        "code-size.gif": (gif.replace(b"\x08\xff", b"\x7f\xff", 1), "either"),
        "riff-size.webp": (webp[:4] + b"\xff\xff\xff\x7f" + webp[8:], "bad"),
        "image.avif": (avif, "ok"),
        "cut.avif": (avif[: len(avif) // 2], "bad"),
        "cut.jp2": (j2k[: len(j2k) // 3], "either"),  # its quality grows with its length: a part is a picture too
        "image.heic": (base64.b85decode(HEIC), "ok" if has_heif else "bad"),
        "cut.heic": (base64.b85decode(HEIC)[:300], "bad"),
        "maximum-0.pgm": (b"P5 9 9 0 " + bytes(99), "bad"),
        "maximum-huge.pgm": (b"P5 9 9 99999999 " + bytes(999), "bad"),
        "words.ppm": (b"P3 2 2 255 red green blue", "bad"),
        "run-length.tga": (encoded(picture(), "TGA", compression="tga_rle"), "ok"),
        "colours-odd.bmp": (encoded(picture("P"), "BMP")[:46] + b"\xff\xff\xff\x7f" + bytes(2000), "bad"),
    }


def _scans() -> Files:
    """DICOM, which an extra reads."""
    scan = np.linspace(0, 4000, 300).reshape(15, 20).astype(np.uint16)
    good = dicom(scan)
    readable: Verdict = "ok" if importlib.util.find_spec("pydicom") else "bad"
    return {
        "scan.dcm": (good, readable),
        "scan-really.jpg": (good, readable),
        "scan-colours.dcm": (dicom(np.asarray(picture())), readable),
        "scan-window.dcm": (dicom(scan, x00281050="2000", x00281051="0"), readable),
        "scan-cut.dcm": (good[:-200], "bad"),
        "scan-cut-header.dcm": (good[:200], "bad"),
        "scan-no-picture.dcm": (bytes(128) + b"DICM" + bytes(200), "bad"),
        "scan-jpeg-missing.dcm": (dicom(scan, syntax="1.2.840.10008.1.2.4.50"), "bad"),
        "scan-deflated.dcm": (dicom(scan, syntax="1.2.840.10008.1.2.1.99"), "bad"),
        "scan-no-preamble.dcm": (good[132:], readable),
        "scan-shape-0.dcm": (dicom(scan, x00280010=0), "bad"),
        "scan-odd-bits.dcm": (dicom(scan, x00280100=7), "bad"),
    }


SECTIONS: tuple[Callable[[], Files], ...] = (
    *(_good, _truncated, _no_images, _misnamed, _bombs, _modes, _metadata, _shapes, _jpegs, _pngs, _others, _scans),
)
