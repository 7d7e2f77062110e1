"""AVIF and HEIC (ISO/IEC 14496-12, 23008-12, 23000-22): reads the boxes without decoding the picture.

This module does three things that the libraries do not: it finds the real size of the coded pictures (`ispe` is only a
claim), applies the clean aperture's crop (libavif only reports it, pi-heif rejects large ones), and accepts an alpha
plane without a stated size, which browsers show and libavif rejects.
"""

import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from struct import unpack_from
from typing import Final

from colours import icc
from colours.light import HDR
from pictures.formats import Format
from pictures.headers import DEEP, Header, Source
from social.refusals import Code, Rejected

_CROP, _TURN, _MIRROR = b"clap", b"irot", b"imir"
_ALPHA: Final = b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0"
_HEVC_ALPHA: Final = b"urn:mpeg:hevc:2015:auxid:1\0"
_MOST: Final = 16_384
"""The most boxes in a file or a box, and the most items, properties, references and samples of a file. The grid of a
picture of 200 megapixels has 800 tiles. The libraries search lists of these for each of them.
"""
_LARGEST_CONFIGURATION: Final = 1 << 16
_MOST_PARAMETER_SETS: Final = 16
"""H.265, 7.4.3.2.1: sps_seq_parameter_set_id is 0 to 15."""
_SINGLE: Final = frozenset({b"pitm", b"iinf", b"iref", b"iprp", b"iloc", b"idat"})
_COUNTED: Final = frozenset({b"stts", b"stss", b"stsc", b"stsz", b"stco", b"co64", b"ctts"})
"""Tables of samples."""
_MOST_PIXELS: Final = 600_000_000
"""Of all parts: the largest accepted picture has as many as itself, its tiles, its alpha plane and that one's tiles."""
_LEAST: Final = 256, 128
"""What decoding the smallest part costs, as a size."""
_DEEPEST: Final = 8
"""Steps from the picture to a part: an overlay of grids has 2."""
_HEAD: Final = 64
"""Bytes that are read of a sample or of an item: its AV1 sequence header, or the size of what is made of parts."""
_BITS_READ: Final = 192
"""Bytes of a sequence parameter set that hold the size: 100, and those that prevent an emulated start code."""

ORIENTATION: Final = {
    # quarter turns to the left, then the mirroring (None, 0 top and bottom, 1 left and right)
    (0, None): 1, (0, 0): 4, (0, 1): 2,
    (1, None): 8, (1, 0): 5, (1, 1): 7,
    (2, None): 3, (2, 0): 2, (2, 1): 4,
    (3, None): 6, (3, 0): 7, (3, 1): 5,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Box:
    name: bytes
    start: int
    body: int
    end: int


@dataclass(slots=True)
class _Meta:
    """The `meta` box. Items are keyed by number, properties by their index in `ipco`, from 1."""

    box: _Box
    primary: int = 0
    kinds: dict[int, bytes] = field(default_factory=dict)
    kind_at: dict[int, int] = field(default_factory=dict)
    """The file offset of each item's type."""
    references: list[tuple[bytes, int, list[int]]] = field(default_factory=list)
    extents: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """Each item's pieces, (start, end) in the file."""
    properties: list[_Box] = field(default_factory=list)
    owned: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """item: [(property, file offset of the association)]"""
    ipmas: list[_Box] = field(default_factory=list)
    wide: bool = False
    alphas: set[int] = field(default_factory=set)
    parts: dict[int, list[int]] = field(default_factory=dict)
    """The items that each is made of, and their alpha planes."""
    needed: set[int] = field(default_factory=set)
    """The items that the picture's pixels depend on: itself, its parts, and their alpha planes."""
    unused: list[_Box] = field(default_factory=list)
    """Boxes that the pixels do not depend on: groups, and the index of a file that hangs behind the picture."""


def read(source: bytes, kind: Format) -> Source:
    """Raises Rejected, and struct.error or IndexError if a box contradicts itself.

    The header's size is the largest stated or coded size of any part: the visible area may be a small part of it, but
    all of it is decoded.
    """
    boxes = _top_level(source)
    found = next((box for box in boxes if box.name == b"meta"), None)
    moov = next((box for box in boxes if box.name == b"moov"), None)
    if found is not None and kind is Format.HEIF:
        moov = None  # the clip of a motion photo
    cut = bool(boxes) and boxes[-1].end > len(source)
    if found is None:
        if moov is not None and kind is Format.HEIF:
            raise Rejected(Code.HEIF_SEQUENCE, "a HEIF file that contains only a sequence")
        if moov is None or cut:
            raise Rejected(Code.TRUNCATED if cut or len(boxes) < 2 else Code.DAMAGED, f"the {kind} file has no picture")
    if found is not None and found.end > len(source):
        raise Rejected(Code.TRUNCATED, f"the {kind} file ends within its index")
    meta = _meta(source, found) if found is not None else None
    if meta is not None and any(end > len(source) for item in meta.needed for _, end in meta.extents.get(item, [])):
        raise Rejected(Code.TRUNCATED, f"the {kind} file ends within its pixels")
    if meta is not None and (moov is None or source[8:12] != b"avis"):  # libavif then shows its picture
        _supported(source, meta, kind)
    of_items = _sizes_of_items(source, meta) if meta is not None else {}
    sizes = [size for item in of_items.values() for size in item]
    for start in _first_samples(source, moov) if moov is not None else ():
        sizes += _av1_sizes(source[start : start + _HEAD])
    if not sizes:
        raise Rejected(Code.DAMAGED, f"the {kind} file states no size")
    deep = any(_is_deep(source, box) for box in _properties(meta)) if meta is not None else True
    header = Header(kind, *max(sizes, key=lambda size: size[0] * size[1]), bytes_a_pixel=DEEP if deep else None)
    if meta is None:
        return Source(header, source)
    _check_work(meta, of_items)
    meta.unused += (box for box in boxes if box.name == b"meta" and box != found)
    return _shown(source, meta, header)


def _supported(source: bytes, meta: _Meta, kind: Format) -> None:
    codecs = {b"av01", b"grid"} if kind is Format.AVIF else {b"hvc1", b"grid", b"iovl", b"iden", b"tmap"}
    for item in meta.needed:
        coding = meta.kinds.get(item, b"")
        if coding not in {*codecs, b""}:
            raise Rejected(Code.HEIF_CODEC, f"a picture in {kind} encoded as {coding!r}")
        if coding == b"av01" and not list(_av1_sizes(_head(source, meta, item))):
            raise Rejected(Code.DAMAGED, "AV1 that does not begin with its sequence header")


def _shown(source: bytes, meta: _Meta, header: Header) -> Source:
    """The file in a form that its library accepts, and the transformations that remain to be applied here."""
    mine = {meta.properties[number - 1].name: meta.properties[number - 1] for number, _ in meta.owned[meta.primary]}
    data = _picture_alone(source, meta, header.format)
    crop = _crop(source, mine) if _CROP in mine else None
    orientation = 1
    if crop or header.format is Format.AVIF:  # libheif rotates by itself, which would come before this crop
        turn = source[mine[_TURN].body] & 3 if _TURN in mine else 0
        mirror = source[mine[_MIRROR].body] & 1 if _MIRROR in mine else None
        order = [name for name in mine if name in (_TURN, _MIRROR)]
        # libheif follows the listed order; libavif and browsers ignore it.
        if header.format is Format.HEIF and order == [_MIRROR, _TURN]:
            turn = -turn & 3
        orientation = ORIENTATION[turn, mirror]
    if _CROP in mine:
        data = _without(data, meta, {_CROP, _TURN, _MIRROR} if crop else {_CROP})
    if header.format is Format.AVIF and not meta.alphas <= _sized(meta):
        data = _with_alpha_sizes(data, meta)
    tiles = [part for part in meta.parts.get(meta.primary, []) if part not in meta.alphas]
    # A grid without colours of its own has those of its tiles, as in libheif.
    colours = next(filter(None, (_colours(source, meta, item) for item in (meta.primary, *tiles[:1]))), [])
    coded = next((unpack_from(">HH", body, 4) for body in colours if body[:4] == b"nclx"), None)
    stated = next((body[4:] for body in colours if body[:4] in (b"prof", b"rICC")), None)
    light = coded if coded and coded[1] in HDR else None
    profile = stated or (icc.of_code_points(*coded) if coded else None)
    return Source(header, data, orientation, profile, light, crop)


def _colours(source: bytes, meta: _Meta, item: int) -> list[bytes]:
    """The contents of an item's `colr` properties."""
    owned = sorted({number for number, _ in meta.owned.get(item, [])})
    properties = [meta.properties[number - 1] for number in owned]
    return [source[box.body : box.end] for box in properties if box.name == b"colr"]


# Boxes


def _top_level(source: bytes) -> list[_Box]:
    """The file's top-level boxes. Data after the picture need not be boxes: phones put clips and notes there."""
    boxes: list[_Box] = []
    try:
        for box in _boxes(source, 0, len(source)):
            boxes.append(box)
            _bound(len(boxes), "boxes in the file")
    except (Rejected, struct.error):
        if len(boxes) > _MOST or all(box.name != b"meta" for box in boxes):
            raise
    return boxes


def _boxes(source: bytes, at: int, end: int) -> Iterator[_Box]:
    while at + 8 <= end:
        size, name = unpack_from(">I4s", source, at)
        body = at + 8
        if size == 1:
            (size,) = unpack_from(">Q", source, body)
            body += 8
        elif size == 0:
            size = end - at
        if size < body - at:
            raise Rejected(Code.DAMAGED, f"a box {name!r} of {size} bytes")
        yield _Box(name, at, body, at + size)
        at += size


def _bound(number: int, what: str, code: Code = Code.DAMAGED) -> None:
    if number > _MOST:
        raise Rejected(code, f"more than {_MOST} {what}")


def _children(source: bytes, box: _Box, skip: int = 0) -> Iterator[_Box]:
    """The boxes in a box, behind the first `skip` bytes of its body."""
    for number, child in enumerate(_boxes(source, box.body + skip, box.end), start=1):
        _bound(number, f"boxes in {box.name!r}")
        if child.end > box.end:
            raise Rejected(Code.DAMAGED, f"a box {child.name!r} extends beyond {box.name!r}")
        yield child


def _inner(source: bytes, box: _Box) -> dict[bytes, _Box]:
    inner: dict[bytes, _Box] = {}
    for child in _children(source, box, 4):
        if child.name in inner and child.name in _SINGLE:
            raise Rejected(Code.DAMAGED, f"two boxes {child.name!r}")
        inner[child.name] = child
    return inner


def _meta(source: bytes, box: _Box) -> _Meta:
    inner = _inner(source, box)
    meta = _Meta(box, unused=[inner[b"grpl"]] if b"grpl" in inner else [])
    if pitm := inner.get(b"pitm"):
        (meta.primary,) = unpack_from(">I" if source[pitm.body] else ">H", source, pitm.body + 4)
    if iinf := inner.get(b"iinf"):
        meta.kind_at = dict(_kinds(source, iinf))
        meta.kinds = {item: source[at : at + 4] for item, at in meta.kind_at.items()}
    if iref := inner.get(b"iref"):
        meta.references = list(_references(source, iref))
    if iprp := inner.get(b"iprp"):
        for child in _children(source, iprp):
            if child.name == b"ipco":
                meta.properties = list(_children(source, child))
            elif child.name == b"ipma":
                meta.ipmas.append(child)
        _associate(source, meta)
    meta.owned.setdefault(meta.primary, [])
    if iloc := inner.get(b"iloc"):
        meta.extents = _extents(source, iloc, inner.get(b"idat"))
    for item, owned in meta.owned.items():
        for number, _ in owned:
            one = meta.properties[number - 1]
            if one.name == b"auxC" and source.startswith((_ALPHA, _HEVC_ALPHA), one.body + 4, one.end):
                meta.alphas.add(item)
    meta.parts = _parts(meta)
    meta.needed = _needed(meta)
    return meta


def _parts(meta: _Meta) -> dict[int, list[int]]:
    parts: dict[int, list[int]] = {}
    for kind, item, others in meta.references:
        if kind == b"dimg":
            parts.setdefault(item, []).extend(others)
        elif kind == b"auxl" and item in meta.alphas:
            for other in others:
                parts.setdefault(other, []).append(item)
    return parts


def _needed(meta: _Meta) -> set[int]:
    needed, waiting = set[int](), [meta.primary]
    while waiting:
        if (item := waiting.pop()) not in needed:
            needed.add(item)
            waiting += meta.parts.get(item, [])
    return needed


def _properties(meta: _Meta) -> list[_Box]:
    """The properties of the needed items, each once."""
    numbers = {number for item in meta.needed for number, _ in meta.owned.get(item, [])}
    return [meta.properties[number - 1] for number in sorted(numbers)]


def _kinds(source: bytes, iinf: _Box) -> Iterator[tuple[int, int]]:
    """Yields (item, file offset of its type)."""
    for child in _children(source, iinf, 8 if source[iinf.body] else 6):
        if child.name == b"infe" and source[child.body] >= 2:
            wide = source[child.body] >= 3
            (number,) = unpack_from(">I" if wide else ">H", source, child.body + 4)
            yield number, child.body + (10 if wide else 8)


def _references(source: bytes, iref: _Box) -> Iterator[tuple[bytes, int, list[int]]]:
    letter, step = ("I", 4) if source[iref.body] else ("H", 2)
    total = 0
    for child in _children(source, iref, 4):
        (number,) = unpack_from(f">{letter}", source, child.body)
        (count,) = unpack_from(">H", source, child.body + step)
        first = child.body + step + 2
        count = max(0, min(count, (child.end - first) // step))
        total += count
        _bound(total, "references")
        yield child.name, number, list(unpack_from(f">{count}{letter}", source, first))


def _associate(source: bytes, meta: _Meta) -> None:
    """Reads which item has which properties. Raises IndexError or struct.error if a box ends within them."""
    items = total = 0
    for ipma in meta.ipmas:
        body = source[ipma.body : ipma.end]
        version = body[0]
        meta.wide = bool(body[3] & 1)
        (count,) = unpack_from(">I", body, 4)
        items += count
        _bound(items, "items with properties")
        at = 8
        for _ in range(count):
            (item,) = unpack_from(">I" if version else ">H", body, at)
            at += 4 if version else 2
            entries, at = body[at], at + 1
            total += entries
            _bound(total, "properties of items")
            owned = meta.owned.setdefault(item, [])
            for _ in range(entries):
                number = unpack_from(">H", body, at)[0] & 0x7FFF if meta.wide else body[at] & 0x7F
                if 0 < number <= len(meta.properties):
                    owned.append((number, ipma.body + at))
                at += 2 if meta.wide else 1


def _extents(source: bytes, iloc: _Box, idat: _Box | None) -> dict[int, list[tuple[int, int]]]:
    """Raises IndexError if the box ends within them."""
    body = source[iloc.body : iloc.end]
    version = body[0]
    sizes, more = body[4], body[5]
    widths = {"offset": sizes >> 4, "length": sizes & 15, "base": more >> 4, "index": more & 15 if version else 0}
    at = 6

    def number(width: int) -> int:
        nonlocal at
        at += width
        if at > len(body):
            raise IndexError("no bytes left")
        return int.from_bytes(body[at - width : at])

    extents = {}
    items, total = number(4 if version == 2 else 2), 0
    _bound(items, "items")
    for _ in range(items):
        item = number(4 if version == 2 else 2)
        method = number(2) & 15 if version else 0
        number(2)
        base = number(widths["base"]) + (idat.body if method == 1 and idat else 0)
        count = number(2)
        total += count
        _bound(total, "extents of items")
        pieces = []
        for _ in range(count):
            number(widths["index"])
            start = base + number(widths["offset"])
            pieces.append((start, start + number(widths["length"])))
        if pieces and method < 2:
            extents[item] = pieces
    return extents


# Sizes


type _Sizes = list[tuple[int, int]]


def _sizes_of_items(source: bytes, meta: _Meta) -> dict[int, _Sizes]:
    """Every stated and every coded size of the picture's parts."""
    stated: dict[int, _Sizes] = {}
    sizes: dict[int, _Sizes] = {}
    for item in meta.needed:
        numbers = [number for number, _ in meta.owned.get(item, [])]
        for number in numbers:
            if number not in stated:
                stated[number] = list(_sizes_of_property(source, meta.properties[number - 1]))
        sizes[item] = [size for number in numbers for size in stated[number]]
        if item in meta.extents:
            sizes[item] += _sizes_of_data(meta.kinds.get(item, b""), _head(source, meta, item))
    return sizes


def _head(source: bytes, meta: _Meta, item: int) -> bytes:
    """The first bytes of an item's data."""
    pieces = meta.extents.get(item, [])
    return b"".join(source[start : min(end, start + _HEAD)] for start, end in pieces)[:_HEAD]


def _sizes_of_data(kind: bytes, data: bytes) -> Iterator[tuple[int, int]]:
    """The size by an item's first bytes (ISO/IEC 23008-12, 6.6.2, for those that are made of others)."""
    if kind == b"av01":
        yield from _av1_sizes(data)
    elif kind in (b"grid", b"iovl"):
        yield unpack_from(">II" if data[1] & 1 else ">HH", data, 4 if kind == b"grid" else 10)


def _sizes_of_property(source: bytes, box: _Box) -> Iterator[tuple[int, int]]:
    if box.name == b"ispe":
        yield unpack_from(">II", source, box.body + 4)
    elif box.name == b"av1C":
        yield from _av1_sizes(_configuration(source, box)[4:])
    elif box.name == b"hvcC":
        yield from _hevc_sizes(_configuration(source, box))


def _check_work(meta: _Meta, sizes: Mapping[int, _Sizes]) -> None:
    """Raises Rejected if the parts have too many pixels together, each part counted as often as it is used.

    Few bytes can be many parts: items may share their data, and a part's parts multiply.
    """
    known: dict[int, int] = {}

    def work(item: int, depth: int) -> int:
        if depth > _DEEPEST:
            raise Rejected(Code.DAMAGED, f"parts of parts, {depth} deep")
        if item not in known:
            own = max(width * height for width, height in (*sizes[item], _LEAST))
            known[item] = own + sum(work(part, depth + 1) for part in meta.parts.get(item, []))
        return known[item]

    if (total := work(meta.primary, 0)) > _MOST_PIXELS:
        most = f"the limit is {_MOST_PIXELS / 1e6:g}"
        raise Rejected(Code.TOO_MANY_PIXELS, f"its parts have {total / 1e6:.0f} megapixels together; {most}")


def _configuration(source: bytes, box: _Box) -> bytes:
    if box.end - box.body > _LARGEST_CONFIGURATION:
        raise Rejected(Code.DAMAGED, f"a codec's configuration {box.name!r} of {box.end - box.body} bytes")
    return source[box.body : box.end]


def _first_samples(source: bytes, moov: _Box) -> Iterator[int]:
    """The file offset of each track's first sample."""
    entries = 0
    tables = [moov]
    for name in (b"trak", b"mdia", b"minf", b"stbl"):
        tables = [child for box in tables for child in _children(source, box) if child.name == name]
        _bound(len(tables), "tracks")
    for child in (child for table in tables for child in _children(source, table)):
        if child.name in _COUNTED:
            (number,) = unpack_from(">I", source, child.body + (8 if child.name == b"stsz" else 4))
            entries += number
            _bound(entries, "entries about the sequence's samples", Code.TOO_MANY_FRAMES)
            if child.name == b"stco" and number:
                yield unpack_from(">I", source, child.body + 8)[0]
            elif child.name == b"co64" and number:
                yield unpack_from(">Q", source, child.body + 8)[0]


def _is_deep(source: bytes, box: _Box) -> bool:
    """Whether a codec's configuration has more than 8 bits."""
    if box.name == b"av1C":
        return bool(source[box.body + 2] & 0x40)
    return box.name == b"hvcC" and bool(source[box.body + 17] & 7)


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data), 8 * len(data)

    def take(self, count: int) -> int:
        """Raises IndexError at the end."""
        self._left -= count
        if self._left < 0:
            raise IndexError("no bits left")
        return self._value >> self._left & (1 << count) - 1

    def exp_golomb(self) -> int:
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)


def _av1_sizes(data: bytes) -> Iterator[tuple[int, int]]:
    """The size in the sequence header among the first OBUs (AV1 bitstream specification, 5.3 and 5.5)."""
    at = 0
    while at < len(data):
        kind, extended, sized = data[at] >> 3 & 15, data[at] >> 2 & 1, data[at] >> 1 & 1
        at += 1 + extended
        size = shift = 0
        while sized and at < len(data) and shift < 56:
            byte = data[at]
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                break
        if kind == 1:
            with suppress(IndexError):
                yield _av1_size(_Bits(data[at : at + 64]))
            return
        if not sized:
            return
        at += size


def _av1_size(bits: _Bits) -> tuple[int, int]:
    bits.take(4)
    if bits.take(1):  # the short header of a still
        bits.take(5)
    else:
        model = delay = 0
        if bits.take(1):
            bits.take(64)
            if bits.take(1):
                bits.exp_golomb()
            if model := bits.take(1):
                delay = bits.take(5) + 1
                bits.take(42)
        display = bits.take(1)
        for _ in range(bits.take(5) + 1):
            bits.take(12)
            if bits.take(5) > 7:
                bits.take(1)
            if model and bits.take(1):
                bits.take(2 * delay + 1)
            if display and bits.take(1):
                bits.take(4)
    width, height = bits.take(4) + 1, bits.take(4) + 1
    return bits.take(width) + 1, bits.take(height) + 1


def _hevc_sizes(configuration: bytes) -> Iterator[tuple[int, int]]:
    """The sizes in the sequence parameter sets of an hvcC (ISO/IEC 14496-15, 8.3.2; ITU-T H.265, 7.3.2.2)."""
    at, found = 23, 0
    for _ in range(configuration[22] if len(configuration) > 22 else 0):
        kind = configuration[at] & 63
        (count,) = unpack_from(">H", configuration, at + 1)
        at += 3
        for _ in range(count):
            (length,) = unpack_from(">H", configuration, at)
            if kind == 33:
                found += 1
                if found > _MOST_PARAMETER_SETS:
                    raise Rejected(Code.DAMAGED, f"more than {_MOST_PARAMETER_SETS} sequence parameter sets")
                first = configuration[at + 4 : at + 2 + min(length, _BITS_READ)]
                with suppress(IndexError):
                    yield _hevc_size(_Bits(first.replace(b"\0\0\3", b"\0\0")))
            at += 2 + length


def _hevc_size(bits: _Bits) -> tuple[int, int]:
    bits.take(4)
    layers = bits.take(3)
    bits.take(1 + 96)
    if layers:
        flags = [(bits.take(1), bits.take(1)) for _ in range(layers)]
        bits.take(2 * (8 - layers))
        for profile, level in flags:
            bits.take(88 * profile + 8 * level)
    bits.exp_golomb()
    if bits.exp_golomb() == 3:
        bits.take(1)
    return bits.exp_golomb(), bits.exp_golomb()


# Cropping, and rewriting the file for it


def _crop(source: bytes, mine: Mapping[bytes, _Box]) -> tuple[int, int, int, int] | None:
    """The clean aperture (ISO/IEC 14496-12, 12.1.4.3) in whole pixels; None if it is the whole picture or invalid.

    A boundary within a pixel is rounded inwards, so that nothing cropped becomes visible.
    """
    size = mine.get(b"ispe")
    if size is None:
        return None
    width, height = unpack_from(">II", source, size.body + 4)
    values = unpack_from(">IIIIiIiI", source, mine[_CROP].body)
    if not all(values[1::2]):
        return None
    wide, high, right, down = (Fraction(values[at], values[at + 1]) for at in (0, 2, 4, 6))
    left = Fraction(width - 1, 2) + right - (wide - 1) / 2
    top = Fraction(height - 1, 2) + down - (high - 1) / 2
    box = (-(-left // 1), -(-top // 1), (left + wide) // 1, (top + high) // 1)
    inside = 0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height
    return box if inside and box != (0, 0, width, height) else None


def _picture_alone(source: bytes, meta: _Meta, kind: Format) -> bytes:
    """The file without what its pixels do not depend on: blanks the types of all other items (EXIF, XMP, thumbnails,
    gain and depth maps), which may be broken or huge, and of unused boxes, and the brand that promises a gain map.
    """
    data = bytearray(source)
    others = [at for item, at in meta.kind_at.items() if item not in meta.needed]
    for at in (*others, *(box.start + 4 for box in meta.unused)):
        data[at : at + 4] = b"free"
    brands = slice(16, unpack_from(">I", source)[0])
    data[brands] = data[brands].replace(b"tmap", b"mif1")
    if source[8:12] in (b"miaf", b"mif2", b"mif3", b"heif"):  # brands that neither library recognises
        data[8:12] = b"avif" if kind is Format.AVIF else b"heic"
    return bytes(data)


def _without(source: bytes, meta: _Meta, names: set[bytes]) -> bytes:
    """The file with the names of some properties blanked, so that its library does not act on them."""
    data = bytearray(source)
    numbers = {number for number, box in enumerate(meta.properties, start=1) if box.name in names}
    for number in numbers:
        start = meta.properties[number - 1].start
        data[start + 4 : start + 8] = b"free"
    for owned in meta.owned.values():
        for number, at in owned:
            if number in numbers:
                data[at] &= 0x7F  # not essential
    return bytes(data)


def _sized(meta: _Meta) -> set[int]:
    names = {number: box.name for number, box in enumerate(meta.properties, start=1)}
    return {item for item, owned in meta.owned.items() if any(names[number] == b"ispe" for number, _ in owned)}


def _with_alpha_sizes(data: bytes, meta: _Meta) -> bytes:
    """The file with the picture's size set on its alpha planes. The new index goes at the end, where it shifts no
    offsets; the old one becomes free space."""
    sized = _sized(meta)
    size = next((n for n, _ in meta.owned[meta.primary] if meta.properties[n - 1].name == b"ispe"), 0)
    if not size or len(meta.ipmas) != 1:
        return data
    at = meta.ipmas[0].body
    version, flags = data[at], data[at + 3]
    table = []
    for item, owned in meta.owned.items():
        entries = [data[place : place + (2 if meta.wide else 1)] for _, place in owned]
        if item in meta.alphas - sized:
            entries.append(struct.pack(">H" if flags & 1 else ">B", size))
        if len(entries) > 255:
            raise Rejected(Code.DAMAGED, f"an item with {len(entries)} properties")
        table += [struct.pack(">I" if version else ">H", item), bytes([len(entries)]), *entries]
    ipma = data[at : at + 4] + struct.pack(">I", len(meta.owned)) + b"".join(table)
    new = _replaced(data, meta.box, (b"iprp", b"ipma"), ipma)
    old = bytearray(data)
    old[meta.box.start + 4 : meta.box.start + 8] = b"free"
    return bytes(old) + new


def _replaced(data: bytes, box: _Box, path: tuple[bytes, ...], body: bytes) -> bytes:
    """A box with the body of the one at the end of the path replaced."""
    if path:
        head = 4 if box.name == b"meta" else 0
        parts = [data[box.body : box.body + head]]
        for child in _children(data, box, head):
            same = child.name == path[0]
            parts.append(_replaced(data, child, path[1:], body) if same else data[child.start : child.end])
        body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), box.name) + body
