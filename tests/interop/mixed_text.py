"""A megabyte of text that tokenizers get wrong: code, prose, numbers, emoji, CJK, accents, right-to-left, runs of whitespace.

    mixed_text.py > mixed.txt

Code is Python's own standard library; the rest is drawn at random, always the same. Characters are of blocks that Unicode has had for
long, so that two libraries of different ages classify them alike.
"""

import random
import sys
import sysconfig
from pathlib import Path

SIZE = 1_000_000

# First and last character of a block, or the characters themselves.
BLOCKS = {
    "latin": [("a", "z"), ("A", "Z"), ("À", "Ö"), ("Ø", "ö"), ("Ā", "ſ")],
    "greek": [("α", "ω"), ("Α", "Ρ")],
    "cyrillic": [("а", "я"), ("А", "Я")],
    "hebrew": [("א", "ת")],
    "arabic": [("ا", "غ"), ("ف", "ي"), ("٠", "٩")],
    "devanagari": [("क", "ह"), ("ा", "ू"), ("०", "९")],
    "thai": [("ก", "ฮ"), ("ะ", "ู"), ("๐", "๙")],
    "hiragana": [("ぁ", "ん")],
    "katakana": [("ァ", "ン")],
    "han": [("一", "龥")],
    "hangul": [("가", "힣")],
    "digits": [("0", "9")],
    "other numbers": [("²", "³"), ("¼", "¾"), ("Ⅰ", "Ⅻ"), ("①", "⑳")],
    "symbols": [("!", "/"), (":", "@"), ("[", "`"), ("{", "~"), ("¡", "¿"), ("←", "⇿"), ("∀", "⋿"), ("─", "╿")],
    "emoji": [("😀", "🙏"), ("🌀", "🌠"), ("🚀", "🚗"), ("☀", "☎")],
}
SPACES = [" ", " ", " ", " ", "\n", "\n", "\t", "\r\n", "\u00a0", "\u3000", "\u2009"]
CONTRACTIONS = ["I'm", "you're", "it's", "we've", "DON'T", "they'll", "he'd", "'tis", "o'clock", "IT'S"]
JOINED = ["👩\u200d💻", "👨\u200d👩\u200d👧", "🏳\ufe0f\u200d🌈", "👍🏽", "🇫🇷🇯🇵", "e\u0301a\u0300", "ﬁ", "\ufeff", "\u200b"]


def word(random_source: random.Random) -> str:
    """One to ten characters of one block."""
    ranges = BLOCKS[random_source.choice(list(BLOCKS))]
    length = random_source.randint(1, 10)
    bounds = [random_source.choice(ranges) for _ in range(length)]
    return "".join(chr(random_source.randint(ord(first), ord(last))) for first, last in bounds)


def whitespace(random_source: random.Random) -> str:
    """A run of one kind, or of several."""
    if random_source.random() < 0.5:
        return random_source.choice(SPACES) * random_source.randint(1, 40)
    return "".join(random_source.choice(SPACES) for _ in range(random_source.randint(1, 8)))


def scraps(random_source: random.Random, size: int) -> str:
    """Words, numbers, whitespace and joined emoji."""
    parts = []
    length = 0
    while length < size:
        kind = random_source.random()
        if kind < 0.55:
            part = word(random_source) + random_source.choice(["", " ", " ", ", "])
        elif kind < 0.65:
            part = random_source.choice(CONTRACTIONS) + " "
        elif kind < 0.75:
            part = str(random_source.randint(0, 10 ** random_source.randint(1, 18)))
        elif kind < 0.9:
            part = whitespace(random_source)
        else:
            part = random_source.choice(JOINED) * random_source.randint(1, 3)
        parts.append(part)
        length += len(part.encode())
    return "".join(parts)


def mixed_text() -> str:
    """The text: half code, half scraps, in turn."""
    random_source = random.Random(20261121)
    library = Path(sysconfig.get_paths()["stdlib"])
    parts, size = [], 0
    for path in sorted(library.glob("*.py")):
        code = path.read_bytes()[:20_000].decode(errors="ignore")
        for part in (code, scraps(random_source, len(code))):
            parts.append(part)
            size += len(part.encode())
        if size >= SIZE:
            break
    return "".join(parts)


if __name__ == "__main__":
    sys.stdout.buffer.write(mixed_text().encode())
