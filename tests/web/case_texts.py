"""Texts and pairs of the shared cases: sentences, and texts that tokenizers treat differently."""

from __future__ import annotations

import random

from tests.support.paths import REPOSITORY

SENTENCES = [
    line
    for line in (REPOSITORY / "testbed" / "samples.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]

UNUSUAL = [
    "[SEP] is text, and so are [CLS] and [MASK]",
    "[PAD][UNK][SEP]",
    "a film[SEP]with a separator inside",
    "THE ACTORS SHOUT IN CAPITALS",
    "café, naïve, façade, Ångström",
    "cafe\u0301 with a combining accent",
    "ΟΔΥΣΣΕΥΣ ΚΑΙ ΟΔΟΣ ends in a sigma",
    "İstanbul and ıstanbul have Turkish letters",
    "Straße, ﬁne ligatures and ẞ",
    "电影很好看，我喜欢。",
    "映画は面白かった",
    "영화가 재미있었다",
    "\U00020000\U0002a6d0 are characters beyond U+FFFF",
    "\U0002ceaf\U0002ebf0 are newer than the list of the encoder",
    "фильм был скучный",
    "الفيلم كان رائعا",
    "सिनेमा अच्छा था",
    "a 🎬 film 👍🏽 with 👨‍👩‍👧 emoji ❤️",
    "zero\u200bwidth\u200djoiners\ufeff and soft\u00adhyphens",
    "tabs\tand\nlines\r\nand\u00a0hard\u2003spaces\u3000here",
    "control\u0007characters\u001b[0m\u0085vanish",
    "private \ue000\U000f0000 use",
    "replacement \ufffd character",
    "a" * 101,
    "b" * 100,
    "unaffable antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "$5.00 for 1,234 words (50 % off!)",
    "e-mail: someone@example.com, see https://example.com/a?b=c#d",
    "don't won't can't it's o'clock rock'n'roll",
    "...!!!???---___***",
    "„German“ «French» “curly” ‘single’ quotes…",
    "‚—–‒― dashes ‐‑",
    "∀x∈ℝ: x² ≥ 0, √2 ≈ 1.414, ½ + ¼",
    "㎏ ㏒ ① Ⅷ are compatibility characters",
    "\u0300\u0301 begin with marks",
    "o\u0338\u0327\u0323 has many marks",
    "ǅ ǈ ǋ are title case",
    "ﷺ is one character",
    "Hello\x1cWorld\x1fAgain",
    "𝒜 𝓑𝔠 mathematical letters",
    "क्षि ক্ষ க்ஷ conjuncts",
    "ทดสอบ ภาษาไทย",
    "\u2e43\u2e52 are punctuation of newer versions of Unicode",
    "\u08d0 and \u1ac0 are newer marks",
    "\U0001e900\U0001e922 Adlam has a lower case",
    "\U000105c9 is decomposed in newer versions only",
    "x",
    ".",
    "  leading and trailing spaces  ",
]
"""Texts that a tokenizer in another language is likely to treat differently."""

INVISIBLE = ["\u200b\u200b", "\u00ad", "\ufeff\u2060", "\u200d \u200d", "\u0301", "\ue000"]
"""Texts of which no token remains."""

PAIRS = [
    ("the film is good", "the film is not good"),
    ("a man plays a guitar", "a man is playing an instrument"),
    ("it rains", "the sun shines over a quiet town by the sea"),
    ("who wrote the book?", "The book was written by a teacher in 1921."),
    ("the same words", "the same words"),
    ("[SEP] first", "second [SEP]"),
    ("电影很好看", "the film is good"),
    ("x", "y"),
    ("the cat sat on the mat and looked at the birds in the garden", "a cat looked at birds"),
    ("\u200b", "only the second text is visible"),
    ("only the first text is visible", "\u00ad"),
]


def drawn_texts(count: int, seed: int) -> list[str]:
    """Return texts of words and characters that are drawn at random."""
    rng = random.Random(seed)
    words = sorted({word for sentence in SENTENCES for word in sentence.split()})
    texts = []
    for _ in range(count):
        parts = rng.sample(words, rng.randint(1, 12))
        for _ in range(rng.randint(0, 3)):
            text = rng.choice(UNUSUAL)
            first = rng.randrange(len(text))
            parts.insert(rng.randint(0, len(parts)), text[first : first + rng.randint(1, 9)])
        texts.append(rng.choice([" ", " ", ""]).join(parts))
    return texts


def drawn_pairs(count: int, seed: int) -> list[tuple[str, str]]:
    """Return pairs of sentences, some of them with common words."""
    rng = random.Random(seed)
    pairs = []
    for _ in range(count):
        first, second = rng.choice(SENTENCES), rng.choice(SENTENCES)
        if rng.random() < 0.5:
            second = " ".join(first.split()[: rng.randint(1, 6)] + second.split()[:4])
        pairs.append((first, second))
    return pairs
