"""Make tests/golden/tokenizers/: sentencepiece models and a tiktoken file, and the ids that their own libraries give texts.

    python3 -m venv venv && venv/bin/pip install sentencepiece==0.2.3 tiktoken==0.14.0
    venv/bin/python tests/golden/make_tokenizers.py

Everything is trained on generated text. `ids.json` holds the texts and, for every vocabulary, their ids:

    bpe.model       BPE as Llama 2's: bytes for what it cannot spell, a space before the text, spaces as they are
    plain.model     BPE with sentencepiece's own treatment of spaces, rules for characters, and unknown characters
    unigram.model   unigram, likewise
    added.model     BPE as Gemma's: bytes, no space before the text, pieces of the user
    user.model      unigram, likewise
    toy.tiktoken    with the pattern of r50k_base, cl100k_base, o200k_base, Llama 3 and Qwen
"""

import base64
import io
import json
import random
import unicodedata
from collections import Counter
from pathlib import Path

import regex
import sentencepiece
import tiktoken
import tiktoken_ext.openai_public as public

OUT = Path(__file__).parent / "tokenizers"

# llama-models 0.3.0, llama3/tokenizer.py; Qwen-7B, tokenization_qwen.py.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

SYLLABLES = ["ka", "lo", "mi", "ter", "nary", "scale", "th", "ing", "e", "s", "ü", "ß", "é", "世", "界", "да", "нет", "0", "17", "256"]
RULES = {"ﬁ": "fi", "Ａ": "A", "ｂ": "b", "e\u0301": "é", "\t": " ", "\u00a0": " ", "①": "1", "\u200b": "", "…": "..."}


def words(random: random.Random, count: int) -> str:
    weights = [1 / (i + 1) for i in range(len(SYLLABLES))]
    text = []
    for _ in range(count):
        word = "".join(random.choices(SYLLABLES, weights, k=random.randint(1, 4)))
        text.append(word.capitalize() if random.random() < 0.2 else word)
    return random.choice([" ", " ", ", ", ". "]).join(text)


def texts() -> list[str]:
    """Texts of every kind that tokenizers disagree on."""
    source = random.Random(7)
    fixed = [
        "", " ", "  ", "a", " a", "a ", "  a  b   c  ", "\n", " \n ", "a\n\nb", "a \n \n b\n", "tab\tand\r\nline", "▁", "▁▁ a▁", "a▁b",
        "<s>", "</s> <unk>", "x<s>y", "<0x41>", "<pad>", "it's WE'LL they'Re", "kalomi", "ternary scale", "世界да нет",
        "ﬁne Ａｂ cafe\u0301 ① …\u200b end\u00a0", "🙂 emoji 🤖🤖", "naïve größe", "1234567890 12 3", "!!!??? ...",
        "<tag> a<tag>b <tag>", "<tag>", "   <tag>   ", "a\u0000b", "\U0001f469\u200d\U0001f4bb", "ÅÅ Å", "日本語テキスト",
        "camelCaseHTTPServer ALLCAPS", "x  \n  ", "x \n \n  \n ", "\r\n\r\n", "//path/\n/", "a.b\n\n\n", "\u3000wide\u3000space",
    ]
    for character in "a =\nk":
        fixed += [character * n for n in (2, 3, 4, 5, 7, 9, 15, 16, 17, 31, 33, 63, 64, 65)]
    fixed += [pair * n for pair in ("ab", "ka", " k", "aab") for n in (2, 3, 5, 9, 20)]
    for _ in range(60):
        fixed.append(words(source, source.randint(1, 12)))
    alphabet = "aekst  \n\tüß世дaK0179'.,<>/▁_é\u0301ｂﬁ🙂"
    for _ in range(120):
        fixed.append("".join(source.choice(alphabet) for _ in range(source.randint(1, 30))))
    return fixed


def corpus() -> list[str]:
    source = random.Random(3)
    runs = ["a" * 9 + " " * n + "==" * n for n in range(1, 9)]
    return [words(source, 12) for _ in range(1500)] + runs * 20


def train_sentencepiece(name: str, sentences: list[str], **options: object) -> sentencepiece.SentencePieceProcessor:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=model, num_threads=1, minloglevel=2, hard_vocab_limit=False, **options
    )
    (OUT / name).write_bytes(model.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def train_ranks(sentences: list[str], pattern: str, size: int) -> dict[bytes, int]:
    """Byte-pair encoding of the text's pieces: the most frequent pair becomes a token, again and again."""
    pieces = Counter(piece.encode() for sentence in sentences for piece in regex.findall(pattern, sentence))
    split = {piece: [bytes([b]) for b in piece] for piece in pieces}
    ranks = {bytes([b]): b for b in range(256)}
    while len(ranks) < size:
        pairs = Counter()
        for piece, count in pieces.items():
            for pair in zip(split[piece], split[piece][1:]):
                pairs[pair] += count
        (left, right), _ = max(pairs.items(), key=lambda item: (item[1], item[0]))
        ranks.setdefault(left + right, len(ranks))
        for piece, parts in split.items():
            i, merged = 0, []
            while i < len(parts):
                if parts[i : i + 2] == [left, right]:
                    merged.append(left + right)
                    i += 2
                else:
                    merged.append(parts[i])
                    i += 1
            split[piece] = merged
    return ranks


def main() -> None:
    OUT.mkdir(exist_ok=True)
    sentences = corpus()
    rules = OUT / "rules.tsv"
    rules.write_text(
        "".join(
            " ".join(f"{ord(c):X}" for c in old) + "\t" + " ".join(f"{ord(c):X}" for c in new) + "\n" for old, new in RULES.items()
        )
    )
    raw = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    # Pieces of one's own, as templates of chats have them.
    own = {"vocab_size": 480, "byte_fallback": True, "add_dummy_prefix": False, "user_defined_symbols": ["<tag>", "▁▁", "\n"]} | raw
    ruled = {"normalization_rule_tsv": str(rules)}
    processors = {
        "bpe": train_sentencepiece(
            "bpe.model", sentences, vocab_size=480, model_type="bpe", byte_fallback=True, allow_whitespace_only_pieces=True, **raw
        ),
        "plain": train_sentencepiece("plain.model", sentences, vocab_size=220, model_type="bpe", character_coverage=0.99, **ruled),
        "unigram": train_sentencepiece("unigram.model", sentences, vocab_size=220, model_type="unigram", pad_id=3, **ruled),
        "added": train_sentencepiece("added.model", sentences, model_type="bpe", **own),
        "user": train_sentencepiece("user.model", sentences, model_type="unigram", **own),
    }
    rules.unlink()
    all_texts = texts()
    ids = {name: [p.encode(text) for text in all_texts] for name, p in processors.items()}
    decoded = {name: [p.decode(row) for row in ids[name]] for name, p in processors.items() if name in ("bpe", "added")}

    ranks = train_ranks(sentences + all_texts[40:160] * 4, LLAMA3, 420)
    lines = [base64.b64encode(token) + b" " + str(rank).encode() for token, rank in ranks.items()]
    (OUT / "toy.tiktoken").write_bytes(b"\n".join(lines) + b"\n")
    patterns = {
        "r50k": public.r50k_pat_str,
        "cl100k": regex.search(r'"pat_str": r"""(.*?)"""', Path(public.__file__).read_text()).group(1),
        "o200k": "|".join(regex.findall(r'r"""(.*?)"""', Path(public.__file__).read_text().split("def o200k_base")[1])[:7]),
        "llama3": LLAMA3,
        "qwen": QWEN,
    }
    for name, pattern in patterns.items():
        encoding = tiktoken.Encoding(name=name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        form = (lambda text: unicodedata.normalize("NFC", text)) if name == "qwen" else (lambda text: text)
        ids[name] = [encoding.encode_ordinary(form(text)) for text in all_texts]
    document = {
        "versions": {"sentencepiece": sentencepiece.__version__, "tiktoken": tiktoken.__version__},
        "texts": all_texts,
        "ids": ids,
        "decoded": decoded,
    }
    rows = ",\n".join(f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}" for key, value in document.items())
    (OUT / "ids.json").write_text("{\n" + rows + "\n}\n")


if __name__ == "__main__":
    main()
