"""How a TIFF stores its pixels, by its tags: OpenCV reads some kinds wrongly without a word, and Pillow opens some not at all."""

import io
from dataclasses import dataclass

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from basicsr.utils.image_header import any_size

_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_OF_BIGTIFF = (b"+\0", b"\0+")
_LENGTH_OF_TIFF, _LENGTH_OF_BIGTIFF = 8, 16  # of what comes before the first directory


@dataclass(frozen=True)
class TiffLayout:
    """How a TIFF stores its pixels, see TIFF 6.0.

    Attributes:
        bits: of a sample, the largest where they differ.
        samples: a pixel.
        photometric: number of the kind of colours, 0 for grey whose zero is white, 1 for grey, 2 for RGB.
        separate: each channel is stored by itself.
        extra: kind of the samples beyond the colours, 1 for alpha that colours are multiplied by, 2 for alpha.
        compression: its number.
        sample_format: 1 for whole numbers from 0.
    """

    bits: int
    samples: int
    photometric: int
    separate: bool
    extra: tuple[int, ...]
    compression: int
    sample_format: int

    @property
    def white_is_zero(self) -> bool:
        """Whether larger values are darker."""
        return self.photometric == 0

    @property
    def has_alpha(self) -> bool:
        """Whether the sample after the colours is an alpha channel; OpenCV writes one without a word of what it is."""
        return self.samples > 3 and self.extra[:1] in ((), (2,))

    def not_read_at_16_bits(self) -> str | None:
        """Return what about it OpenCV reads wrongly or not at all, in words."""
        if self.photometric not in (0, 1, 2):
            return f"colours of kind {self.photometric}"
        if self.separate and self.samples > 1:
            return "each channel by itself"
        if self.photometric < 2 and self.samples > 1:
            return "further channels beside grey"
        if self.extra[:1] == (1,):
            return "colours that are multiplied by alpha"
        return "further channels beside colour" if self.samples > 4 else None

    def __str__(self) -> str:
        return (
            f"{self.samples} channels of {self.bits} bits, format {self.sample_format}, colours {self.photometric}, "
            f"compression {self.compression}"
        )


def read_tiff_layout(data: bytes) -> TiffLayout | None:
    """Return how a TIFF stores its pixels; None for what is no TIFF, or is damaged."""
    if not data.startswith(_TIFF_SIGNATURES):
        return None
    try:
        stream = io.BytesIO(data)
        start = stream.read(_LENGTH_OF_BIGTIFF if data[2:4] in _OF_BIGTIFF else _LENGTH_OF_TIFF)
        tags = ImageFileDirectory_v2(start)
        stream.seek(tags.next)
        with any_size():  # without its warnings of damaged tags
            tags.load(stream)
        return TiffLayout(
            bits=max(tags.get(258, (1,))),
            samples=tags.get(277, 1),
            photometric=tags[262],
            separate=tags.get(284, 1) == 2,
            extra=tuple(tags.get(338, ())),
            compression=tags.get(259, 1),
            sample_format=max(tags.get(339, (1,))),
        )
    except Exception:  # Pillow meets damaged headers with errors of any kind
        return None
