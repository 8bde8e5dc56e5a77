"""TIFF files: grey, colour, palettes and inks, in integers and floating point, read right or refused."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from math import prod

import numpy as np
import tifffile
from PIL import Image
from tifffile import COMPRESSION, EXTRASAMPLE, PHOTOMETRIC, TiffPage

from aipo.io.files import MAX_BYTES, check_page, check_size, damaged, too_big, unreadable
from aipo.io.samples import format_of, from_inks, full_levels, straight, white_of
from aipo.io.stored import ORIENTATION, Stored, turned

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_INK = {PHOTOMETRIC.MINISBLACK: 1, PHOTOMETRIC.MINISWHITE: 1, PHOTOMETRIC.PALETTE: 1, PHOTOMETRIC.RGB: 3}
_COLOURS = {**_INK, PHOTOMETRIC.YCBCR: 3, PHOTOMETRIC.SEPARATED: 4}
_TEXTS = (271, 272, 306, 315, 33432)  # maker, model, date, artist, copyright
_PROFILE, _NODATA = 34675, 42113
_INNER = (34665, 34853)  # EXIF's own directories, of the exposure and of the place
_SAID = {270: "description (or OME or ImageJ data)", 700: "XMP"}
_UNITS = {2: 1.0, 3: 2.54}  # pixels per inch, or per centimetre
_JPEG = (COMPRESSION.JPEG, COMPRESSION.OJPEG)


def decode(data: bytes, shown: str, page: int) -> Stored:
    """A page of a TIFF file, counted from 1 without thumbnails. May raise any error for damage."""
    with _listening(shown), tifffile.TiffFile(BytesIO(data)) as file:
        pages = _pages(file)
        check_page(page, len(pages), shown)
        return _decoded(pages[page - 1], page, len(pages), data, shown)


def samples_of(data: bytes, page: int) -> np.dtype | None:
    """The kind of number of a page's samples, by its header. May raise any error for damage."""
    with _listening("a file"), tifffile.TiffFile(BytesIO(data)) as file:
        return _pages(file)[page - 1].dtype


def _pages(file: tifffile.TiffFile) -> list[TiffPage]:
    """The pages that are no thumbnails or masks of others."""
    return [page for page in file.pages if isinstance(page, TiffPage) and not page.subfiletype & 5]


def encode(stored: Stored) -> bytes:
    """An uncompressed TIFF file of one page: samples, alpha, colour profile, resolution and texts."""
    planes = [stored.samples] if stored.alpha is None else [stored.samples, stored.alpha[..., None]]
    pixels = np.concatenate(planes, axis=2)
    texts = [(number, 2, None, text, True) for number, text in _texts(stored.exif)]
    file = BytesIO()
    tifffile.imwrite(
        file,
        pixels.squeeze(2) if pixels.shape[2] == 1 else pixels,
        photometric="rgb" if stored.samples.shape[2] == 3 else "minisblack",
        planarconfig=None if pixels.shape[2] == 1 else "contig",
        extrasamples=None if stored.alpha is None else ["unassalpha"],
        iccprofile=stored.icc,
        resolution=stored.dpi,
        resolutionunit=None if stored.dpi is None else "inch",
        software="aipo",
        extratags=texts,
        metadata=None,
    )
    return file.getvalue()


@contextmanager
def _listening(shown: str) -> Iterator[None]:
    """Turn the errors that tifffile writes to its log, where it goes on with a guess, into a refusal."""
    told: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR:
                told.append(record.getMessage())

    log, ear = logging.getLogger("tifffile"), Ear()
    passed_on, log.propagate = log.propagate, False
    log.addHandler(ear)
    try:
        yield
    finally:
        log.removeHandler(ear)
        log.propagate = passed_on
    if told:
        raise damaged(shown, f"damaged: {' '.join(told[0].split())[:200]}")


def _decoded(page: TiffPage, number: int, pages: int, data: bytes, shown: str) -> Stored:
    _check_layout(page, len(data), shown)
    colours = _check_kind(page, shown)
    pixels = page.asarray()
    if page.axes == "SYX":
        pixels = np.moveaxis(pixels, 0, 2)
    pixels = np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], -1))
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    lost = _losses(page, number, pages)
    samples, alpha = pixels[..., :colours], None
    if page.photometric == PHOTOMETRIC.PALETTE:
        samples = _coloured(page, samples[..., 0], shown)
    else:
        samples = full_levels(samples, _bits(page))
        for index, kind in enumerate(page.extrasamples):
            if alpha is None and kind in (EXTRASAMPLE.ASSOCALPHA, EXTRASAMPLE.UNASSALPHA):
                alpha = full_levels(pixels[..., colours + index], _bits(page))
                if kind == EXTRASAMPLE.ASSOCALPHA:
                    samples = straight(samples, alpha, white_of(samples.dtype))
    white = white_of(samples.dtype)
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        assert white is not None
        samples = (white - samples).astype(samples.dtype)
    if page.photometric == PHOTOMETRIC.SEPARATED:
        samples = from_inks(samples)
    nodata = page.tags.get(_NODATA)
    if nodata is not None and samples.dtype.kind == "f":
        samples = np.where(samples == samples.dtype.type(nodata.value), np.nan, samples)
    exif = _exif(data)
    if format_of(samples.dtype) == "TIFF" and any(page.tags.get(tag) is not None for tag in _INNER):
        lost.append("its EXIF is not kept, but for maker, date and copyright")
    stored = Stored(samples, white, alpha, _icc(page), _dpi(page), exif, tuple(lost))
    orientation = page.tags.get(ORIENTATION)
    return turned(stored, 1 if orientation is None else int(orientation.value))


def _check_layout(page: TiffPage, size: int, shown: str) -> None:
    """Refuse too many pixels, more than two dimensions, and pixels that are not all within the file."""
    check_size((page.imagewidth, page.imagelength), shown)
    if page.nbytes > MAX_BYTES:
        raise too_big(shown, f"{page.nbytes} bytes of pixels")
    if page.axes not in ("YX", "YXS", "SYX"):
        problem = f"its page has the dimensions {page.axes}"
        raise unreadable(shown, problem, "save each plane as a page of its own")
    ends = [
        start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=True) if count
    ]
    if max(ends, default=0) > size:
        raise damaged(shown, f"cut short: its pixels end at byte {max(ends)} of {size}")
    expected = prod(page.chunked)
    if len(ends) < expected:
        raise damaged(shown, f"damaged: it has {len(ends)} of {expected} parts")


def _bits(page: TiffPage) -> int:
    return page.bitspersample if isinstance(page.bitspersample, int) else 0


def _check_kind(page: TiffPage, shown: str) -> int:
    """Refuse kinds of samples that would be read wrong; how many samples of a pixel are its colour."""
    bits, dtype = page.bitspersample, page.dtype
    if dtype is None or dtype.kind not in "biuf" or not isinstance(bits, int):
        problem = f"it has samples of {bits} bits and sample format {page.sampleformat!r}"
        raise unreadable(shown, problem, "save it with unsigned 8- or 16-bit or with 32-bit float samples")
    name = getattr(page.photometric, "name", str(page.photometric))
    colours = _COLOURS.get(page.photometric)  # type: ignore[call-overload]
    raw_ycbcr = page.photometric == PHOTOMETRIC.YCBCR and page.compression not in _JPEG
    if colours is None or raw_ycbcr or (colours == 4 and page.tags.valueof(332, 1) != 1):
        raise unreadable(shown, f"its colours are of the kind {name}", "save it as grey or RGB")
    unsigned = dtype.kind in "bu" and dtype.itemsize <= 2
    if not unsigned and page.photometric not in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB):
        raise unreadable(shown, f"it has {dtype} samples of the kind {name}", "save it with black as 0")
    if dtype.kind == "i" and page.extrasamples:
        raise unreadable(shown, "it has signed samples and alpha", "save it with unsigned ones")
    extra = page.samplesperpixel - colours
    if extra < 0 or (extra and colours == 1 and not _alphas(page)) or extra > 1 or (extra and bits < 8):
        problem = f"it has {page.samplesperpixel} samples a pixel of the kind {name}, and not just alpha"
        raise unreadable(shown, problem, "save grey, RGB or alpha, and other channels as pages of their own")
    return colours


def _alphas(page: TiffPage) -> bool:
    return any(kind in (EXTRASAMPLE.ASSOCALPHA, EXTRASAMPLE.UNASSALPHA) for kind in page.extrasamples)


def _coloured(page: TiffPage, indices: np.ndarray, shown: str) -> np.ndarray:
    """The colours of a palette, (H, W, 3) uint8. Its entries have 16 bits, in some old files 8."""
    palette = page.colormap
    if palette is None or int(indices.max()) >= palette.shape[1]:
        raise damaged(shown, "damaged: its palette is too short")
    levels = palette if palette.max() < 256 else palette >> 8
    return np.moveaxis(levels[:, indices.astype(np.intp)], 0, 2).astype(np.uint8)


def _losses(page: TiffPage, number: int, pages: int) -> list[str]:
    lost = [f"its {what} is not kept" for tag, what in _SAID.items() if page.tags.get(tag) is not None]
    if pages > 1:
        lost.append(f"page {number} of {pages} is restored and the others are not kept; --page gives another")
    if page.samplesperpixel > _COLOURS[PHOTOMETRIC(page.photometric)] and not _alphas(page):
        lost.append("a fourth sample of each pixel has no stated meaning and is not kept")
    if page.photometric == PHOTOMETRIC.SEPARATED:
        lost.append("its four inks were turned into red, green and blue by the plain formula")
    return lost


def _icc(page: TiffPage) -> bytes | None:
    tag = page.tags.get(_PROFILE)
    fits = page.photometric != PHOTOMETRIC.SEPARATED
    return bytes(tag.value) if tag is not None and fits and isinstance(tag.value, bytes) else None


def _dpi(page: TiffPage) -> tuple[float, float] | None:
    scale = _UNITS.get(int(page.tags.valueof(296, 2)))
    sides = [page.tags.valueof(tag, (0, 1)) for tag in (282, 283)]
    if scale is None or any(value[0] <= 0 or value[1] <= 0 for value in sides):
        return None
    (across, by), (down, below) = sides
    return scale * across / by, scale * down / below


def _exif(data: bytes) -> bytes | None:
    """EXIF of the file's first page, which is laid out as EXIF itself: texts, exposure and place."""
    found, kept = Image.Exif(), Image.Exif()
    try:
        found.load(data)
        for number in _TEXTS:
            if number in found:
                kept[number] = found[number]
        for number in _INNER:
            if number in found:
                kept[number] = dict(found.get_ifd(number))
        return kept.tobytes().removeprefix(b"Exif\0\0") if len(kept) else None
    except Exception:  # Pillow raises anything at damaged or 64-bit directories; the picture itself is sound
        return None


def _texts(exif: bytes | None) -> list[tuple[int, str]]:
    """The texts of EXIF that TIFF has too."""
    found = Image.Exif()
    found.load(exif or b"")
    said = ((number, found.get(number)) for number in _TEXTS)
    return [(number, text) for number, text in said if isinstance(text, str) and text.isascii()]
