"""Write the golden file that pins chat templates, ids and masks of answers to transformers.

Versions: transformers 5.23.0, tokenizers 0.23.3, jinja2 3.1.6. To run:

    python -m venv .venv-golden
    .venv-golden/bin/pip install transformers==5.23.0 tokenizers==0.23.3 jinja2==3.1.6
    .venv-golden/bin/python tests/golden/make_chat_masks.py

What it writes, beside itself, into `chat_masks/`:

    byte_level.json   a byte-level BPE of 420 tokens, with the marks of all templates as special tokens
    metaspace.json    a BPE of words that begin with "▁", with bytes for what it lacks, as Llama 2's
    masks.json        50 conversations; templates; what `apply_chat_template(return_assistant_tokens_mask=True)` says of each

`masks.json` holds

    conversations     lists of messages with `role` and `content`
    templates         for each `name` the template with generation blocks (`marked`) and without them (`plain`)
    cases             for each tokenizer, template and conversation `ids` and `runs`, the ranges [first, end) of the mask that
                      are 1; null where the template refuses the conversation

The two versions of a template write the same text, or nothing is written: a mask found without blocks must be the one that
transformers finds by them.
"""

import json
import random
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).parent / "chat_masks"
MARKS = [
    "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|user|>", "<|assistant|>",
    "<|system|>", "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]",
]  # fmt: skip

# With blocks; the version without them is this text without its block tags.
TEMPLATES = {
    "chatml": "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}{% else %}{{ message['content'] + '<|im_end|>' + '\\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "llama3": "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] | trim + '<|eot_id|>' }}{% endgeneration %}{% else %}{{ message['content'] | trim + '<|eot_id|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
    "plain": "{% for message in messages %}{{ message['role'] | capitalize + ':' }}{% if message['role'] == 'assistant' %}{% generation %}{{ ' ' + message['content'] | trim + '\\n\\n' }}{% endgeneration %}{% else %}{{ ' ' + message['content'] | trim + '\\n\\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}",
    # White space around blocks, a default system prompt, a namespace, loop variables within a block.
    "default_system": """{%- set ns = namespace(first=true) -%}
{%- for message in messages %}
    {%- if ns.first and message.role != 'system' %}
        {{- '<|system|>\\nYou are helpful.' + eos_token + '\\n' }}
    {%- endif %}
    {%- set ns.first = false %}
    {{- '<|' + message.role + '|>\\n' }}
    {%- if message.role == 'assistant' %}
        {%- generation %}
            {{- message.content }}{% if loop.last %}{{ eos_token }}{% else -%}
                {{ eos_token }}
            {%- endif %}
        {%- endgeneration %}
        {{- '\\n' }}
    {%- else %}
        {{- message.content + eos_token + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>\\n' }}
{%- endif %}
""",
    # Refuses system prompts and speakers that do not take turns, renames the assistant.
    "gemma": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\\n' }}{% if role == 'model' %}{% generation %}{{ message['content'] | trim + '<end_of_turn>' }}{% endgeneration %}{{ '\\n' }}{% else %}{{ message['content'] | trim + '<end_of_turn>\\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}",
    # The system prompt goes into the first question.
    "mistral": "{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}{%- set rest = messages[1:] %}{%- else %}{%- set system = '' %}{%- set rest = messages %}{%- endif %}{{- bos_token }}{%- for message in rest %}{%- if message['role'] == 'user' %}{%- if loop.first and system %}{{- '[INST] ' + system + '\\n\\n' + message['content'] + ' [/INST]' }}{%- else %}{{- '[INST] ' + message['content'] + ' [/INST]' }}{%- endif %}{%- elif message['role'] == 'assistant' %}{%- generation %}{{- ' ' + message['content'] | trim + eos_token }}{%- endgeneration %}{%- else %}{{- raise_exception('only user and assistant roles') }}{%- endif %}{%- endfor %}",
}  # fmt: skip

ALPACA = (Path(__file__).parents[2] / "crates/text/src/templates/alpaca.jinja").read_text()
ANSWER = "{{ message['content'] }}{{ eos_token }}"
assert ANSWER in ALPACA
TEMPLATES["alpaca"] = ALPACA.replace(ANSWER, "{% generation %}" + ANSWER + "{% endgeneration %}")

TEXTS = [
    "Hello!",
    "What is the capital of France?",
    "Paris.",
    "",
    " leading and trailing ",
    "Größe, naïve café, 東京タワー",
    "🦀 crab 👨‍👩‍👧 family 🇩🇪",
    "fn main() {\n    println!(\"{}\", 1 + 1);\n}\n",
    "1. one\n2. two\n\n3. three",
    "مرحبا بالعالم",
    "e\u0301 and \u00e9",
    "tab\tand\u00a0nbsp",
    "<b>not escaped</b> & 'quoted' \"twice\"",
    "<|im_end|> in a text",
    "{{ not jinja }} {% raw %}",
    "0.30000000000000004 -17 1e-5",
]


def conversations() -> list[list[dict[str, str]]]:
    """50 conversations: with and without a system prompt, of one to three answers, some ending with a question."""
    rng = random.Random(1)
    found = []
    for i in range(50):
        turns = [{"role": "system", "content": rng.choice(TEXTS)}] if i % 3 == 0 else []
        for _ in range(1 + i % 3):
            turns.append({"role": "user", "content": rng.choice(TEXTS)})
            turns.append({"role": "assistant", "content": TEXTS[i % len(TEXTS)] if i < 16 else rng.choice(TEXTS)})
        if i % 7 == 6:
            turns.append({"role": "user", "content": rng.choice(TEXTS)})
        found.append(turns)
    # Two questions in a row: some templates refuse them.
    found[49] = [{"role": "user", "content": "One"}, {"role": "user", "content": "two"}, {"role": "assistant", "content": "3"}]
    return found


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<s>", "</s>", *MARKS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS + ["Assistant: User: System: assistant user system"], trainer)
    return tokenizer


def metaspace() -> Tokenizer:
    """As tokenizer.json of Llama 2: a prepended "▁", spaces as "▁", no pre-tokenizer, bytes for unknown characters."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=160, special_tokens=[], show_progress=False)
    ascii_texts = ["".join(c for c in text if c.isascii() and c not in "\n\t") for text in TEXTS]
    learner.train_from_iterator([*ascii_texts, "Assistant: User: System: assistant user system"], trainer)
    learned = json.loads(learner.to_str())["model"]
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for piece in [f"<0x{byte:02X}>" for byte in range(256)] + list(learned["vocab"]):
        vocab.setdefault(piece, len(vocab))
    merges = [tuple(merge) for merge in learned["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in ["<unk>", "<s>", "</s>", *MARKS]])
    return tokenizer


def unmarked(template: str) -> str:
    for tag in ["{%- generation %}", "{%- endgeneration %}"]:
        template = template.replace(tag, "{%- if true %}" if "end" not in tag else "{%- endif %}")
    return template.replace("{% generation %}", "").replace("{% endgeneration %}", "")


def runs(mask: list[int]) -> list[list[int]]:
    found: list[list[int]] = []
    for i, bit in enumerate(mask):
        if bit and (i == 0 or not mask[i - 1]):
            found.append([i, i + 1])
        elif bit:
            found[-1][1] = i + 1
    return found


def main() -> None:
    HERE.mkdir(exist_ok=True)
    golden = {
        "conversations": conversations(),
        "templates": {name: {"marked": t, "plain": unmarked(t)} for name, t in TEMPLATES.items()},
        "cases": {},
    }
    for name, inner in {"byte_level": byte_level(), "metaspace": metaspace()}.items():
        (HERE / f"{name}.json").write_text(json.dumps(json.loads(inner.to_str()), ensure_ascii=False) + "\n")
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")
        golden["cases"][name] = {}
        for template, sources in golden["templates"].items():
            cases = []
            # The second tokenizer is about offsets: a third of the conversations is enough.
            for messages in golden["conversations"][:: 1 if name == "byte_level" else 3]:
                try:
                    found = tokenizer.apply_chat_template(
                        messages, chat_template=sources["marked"], return_assistant_tokens_mask=True
                    )
                except Exception as error:  # jinja2.TemplateError
                    assert "roles" in str(error) or "System role" in str(error), error
                    cases.append(None)
                    continue
                plain = tokenizer.apply_chat_template(messages, chat_template=sources["plain"])
                assert plain["input_ids"] == found["input_ids"], template
                cases.append({"ids": found["input_ids"], "runs": runs(found["assistant_masks"])})
            golden["cases"][name][template] = cases
    text = json.dumps(golden, ensure_ascii=False, separators=(",", ":"))
    (HERE / "masks.json").write_text(text + "\n")
    print(len(text), "bytes")


if __name__ == "__main__":
    main()
