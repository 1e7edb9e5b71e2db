"""How large a body is, by script: what an estimate of its input tokens is made of.

Text counts by its bytes or characters times a ratio, which depends on the model's tokenizer and on
the script; pictures and documents count by the rules of the API. Base64 counts as what it encodes.
"""

import math
import re
from collections.abc import Iterable, Mapping

import msgspec

from turnpike.kernel.money import ceil_div

LATIN, CODE, CJK, CYRILLIC, OTHER = "latin", "code", "cjk", "cyrillic", "other"
# Tokens for each unit: a byte of Latin text, code or another script, a character of the others.
DEFAULT_RATIOS: Mapping[str, float] = {
    LATIN: 0.25,
    CODE: 0.25,
    CJK: 2.0,
    CYRILLIC: 4 / 3,
    OTHER: 2 / 3,
}
SCRIPTS = tuple(DEFAULT_RATIOS)

IMAGE_TOKENS = 1_600
PDF_BYTES_PER_PAGE = 30_000
PDF_TOKENS_PER_PAGE = 2_500
REQUEST_TOKENS = 8

# So much of a text is looked at, and with so many marks in it, it is code.
_SAMPLE_BYTES = 512
_CODE_SHARE = 0.12
_MARKS = rb"{}()[];=<>+*/&|\_#$@^~%:"
_BACKSLASH = ord("\\")

_ASCII = bytes(range(128))
_CJK_LEADS = bytes(range(0xE3, 0xEE))
_CYRILLIC_LEADS = bytes(range(0xD0, 0xD4))
_CJK_ESCAPE = re.compile(rb"\\u(?:[3-9]|[aA][c-fC-F]|[bcBC]|[dD][0-7])")
_BASE64 = re.compile(rb'"data"\s*:\s*"([A-Za-z0-9+/=\\]{256,})"')
_MEDIA = re.compile(rb'"media_type"\s*:\s*"(image|application)')
_URL_SOURCE = re.compile(rb'"type"\s*:\s*"url"')


class Measure(msgspec.Struct, frozen=True):
    """Units of each script, and the tokens of what is no text."""

    latin: int = 0
    code: int = 0
    cjk: int = 0
    cyrillic: int = 0
    other: int = 0
    media_tokens: int = 0
    has_escapes: bool = False

    def plain_tokens(self) -> int:
        """The likely number of tokens before anything is learned, rounded up."""
        tokens = REQUEST_TOKENS + self.media_tokens - (-(self.latin + self.code) // 4)
        if self.cjk or self.cyrillic or self.other:
            tokens += 2 * self.cjk + ceil_div(4 * self.cyrillic + 2 * self.other, 3)
        return tokens

    def tokens(self, ratios: Mapping[str, float]) -> int:
        """The likely number of tokens at these ratios, rounded up."""
        total = self.latin * ratios[LATIN] + self.code * ratios[CODE]
        if self.cjk or self.cyrillic or self.other:
            total += self.cjk * ratios[CJK] + self.cyrillic * ratios[CYRILLIC]
            total += self.other * ratios[OTHER]
        return REQUEST_TOKENS + self.media_tokens + math.ceil(total)


def measure(parts: Iterable[bytes]) -> Measure:
    """Measure the parts of a body that become input tokens."""
    latin = code = cjk = cyrillic = other = media = 0
    has_escapes = False
    for part in parts:
        size = len(part)
        # `find`, since `in` first takes bytes for a number and makes an error of it each time.
        if part.find(b'"source"') >= 0:
            encoded = sum(match.end(1) - match.start(1) for match in _BASE64.finditer(part))
            if encoded or part.find(b'"base64"') >= 0:
                size -= encoded
                media += _media_tokens(part, encoded)
            media += IMAGE_TOKENS * len(_URL_SOURCE.findall(part))
        # A search for the one byte is far cheaper than the count, and most often ends it.
        escapes = part.count(b"\\u") if _BACKSLASH in part else 0
        if escapes:
            has_escapes = True
            ideographs, letters = len(_CJK_ESCAPE.findall(part)), part.count(b"\\u04")
            cjk, cyrillic = cjk + ideographs, cyrillic + letters
            other += 3 * max(0, escapes - ideographs - letters)
            size -= 6 * escapes
        if not part.isascii():
            rest = part.translate(None, _ASCII)
            ideographs = len(rest) - len(rest.translate(None, _CJK_LEADS))
            letters = len(rest) - len(rest.translate(None, _CYRILLIC_LEADS))
            cjk, cyrillic = cjk + ideographs, cyrillic + letters
            other += max(0, len(rest) - 3 * ideographs - 2 * letters)
            size -= len(rest)
        if size <= 0:
            continue
        if _is_code(part):
            code += size
        else:
            latin += size
    return Measure(latin, code, cjk, cyrillic, other, media, has_escapes)


def estimate_input_tokens(parts: Iterable[bytes]) -> int:
    """The likely number of input tokens of a body's parts before anything is learned."""
    return measure(parts).plain_tokens()


def _is_code(part: bytes) -> bool:
    size = len(part)
    if size > _SAMPLE_BYTES:
        start = (size - _SAMPLE_BYTES) // 2
        part, size = part[start : start + _SAMPLE_BYTES], _SAMPLE_BYTES
    return size - len(part.translate(None, _MARKS)) > _CODE_SHARE * size


def _media_tokens(part: bytes, encoded: int) -> int:
    kinds = _MEDIA.findall(part)
    images = kinds.count(b"image")
    if len(kinds) == images:
        return images * IMAGE_TOKENS
    pages = ceil_div(encoded * 3 // 4, PDF_BYTES_PER_PAGE)
    return images * IMAGE_TOKENS + pages * PDF_TOKENS_PER_PAGE
