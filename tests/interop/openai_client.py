"""Chat and completions, streamed and not, by OpenAI's own client against `tritforge serve` on the loopback interface.

    cargo build --release
    tests/interop/run.sh openai_client.py

The model has random weights and a token a byte, with the template of ChatML: what it says means nothing, but a stream must
say what the whole answer says. TRITFORGE names the binary, target/release/tritforge by default. The exit code is 1 if
anything differs.

Versions: requirements-openai_client.txt.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import openai

ROOT = Path(__file__).resolve().parents[2]
SHAPE = """vocab_size = 259
hidden_size = 256
intermediate_size = 256
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
max_position_embeddings = 512
"""
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
failed = 0


def write_tokenizer(path: Path) -> None:
    """A byte-level BPE without merges, in the form of `tokenizers`."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]
    added = [
        dict(id=i, content=name, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
        for i, name in enumerate(SPECIAL)
    ]
    byte_level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)
    model = dict(
        type="BPE",
        dropout=None,
        unk_token=None,
        continuing_subword_prefix=None,
        end_of_word_suffix=None,
        fuse_unk=False,
        byte_fallback=False,
        vocab={token: i for i, token in enumerate(SPECIAL + letters)},
        merges=[],
    )
    tokenizer = dict(
        version="1.0",
        truncation=None,
        padding=None,
        added_tokens=added,
        normalizer=None,
        pre_tokenizer=byte_level,
        post_processor=None,
        decoder=byte_level,
        model=model,
    )
    config = dict(tokenizer_class="PreTrainedTokenizerFast", eos_token=SPECIAL[0], chat_template=CHATML)
    path.mkdir()
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    (path / "tokenizer_config.json").write_text(json.dumps(config))


def check(what: str, good: bool, seen: object) -> None:
    global failed
    failed += not good
    print(f"{'ok    ' if good else 'FAILED'} {what}: {str(seen)[:100]}", flush=True)


def chat(client: openai.OpenAI, model: str) -> None:
    asked = dict(
        model=model,
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "text", "text": " there"}]},
        ],
        max_completion_tokens=24,
        temperature=0.7,
        seed=3,
        logprobs=True,
        top_logprobs=2,
    )
    whole = client.chat.completions.create(**asked)
    choice, usage = whole.choices[0], whole.usage
    check("chat", choice.message.role == "assistant" and isinstance(choice.message.content, str), repr(choice.message.content))
    check("chat, usage", usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage)
    check("chat, logprobs", all(len(t.top_logprobs) == 2 for t in choice.logprobs.content), len(choice.logprobs.content))
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    text = "".join(delta.content or "" for delta in deltas)
    check("chat, stream", text == choice.message.content, repr(text))
    check("chat, stream, role", [d.role for d in deltas] == ["assistant"] + [None] * (len(deltas) - 1), len(deltas))
    check("chat, stream, usage", chunks[-1].choices == [] and chunks[-1].usage == usage, chunks[-1].usage)
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    check("chat, stream, finish_reason", reasons == [None] * (len(reasons) - 1) + [choice.finish_reason], reasons[-1])
    # What an answer holds can go back as a message.
    again = client.chat.completions.create(**asked | {"messages": [*asked["messages"], choice.message.model_dump()]})
    check("chat, second turn", again.usage.prompt_tokens > usage.prompt_tokens, again.usage.prompt_tokens)
    with client.chat.completions.stream(**asked) as stream:
        final = stream.get_final_completion()
    check("chat, stream helper", final.choices[0].message.content == choice.message.content, final.choices[0].finish_reason)


def completions(client: openai.OpenAI, model: str) -> None:
    asked = dict(model=model, prompt="once upon", max_tokens=16, temperature=0, logprobs=2)
    whole = client.completions.create(**asked)
    choice = whole.choices[0]
    check("completion", isinstance(choice.text, str) and choice.finish_reason in ("stop", "length"), repr(choice.text))
    check("completion, logprobs", len(choice.logprobs.tokens) == whole.usage.completion_tokens, choice.logprobs.tokens)
    text = "".join(chunk.choices[0].text for chunk in client.completions.create(**asked, stream=True))
    check("completion, stream", text == choice.text, repr(text))
    two = client.completions.create(**asked | {"prompt": ["once upon", "a time"], "n": 2})
    check("completions, choices", [c.index for c in two.choices] == [0, 1, 2, 3], [c.text for c in two.choices])
    check("completions, first choice", two.choices[0].text == choice.text, repr(two.choices[0].text))


def faults(client: openai.OpenAI, model: str) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    messages = [{"role": "user", "content": "Hello"}]
    for what, asked, kind, param in (
        ("tools", dict(tools=[tool]), openai.BadRequestError, "tools"),
        ("a range", dict(temperature=-1), openai.BadRequestError, "temperature"),
        ("an unknown field", dict(extra_body={"max_token": 3}), openai.BadRequestError, "max_token"),
        ("an unknown model", dict(model="absent"), openai.NotFoundError, "model"),
    ):
        try:
            client.chat.completions.create(**{"model": model, "messages": messages, "max_tokens": 2} | asked)
            check(what, False, "served")
        except openai.APIStatusError as error:
            check(what, type(error) is kind and error.param == param, error.message)


def main() -> int:
    binary = os.environ.get("TRITFORGE", str(ROOT / "target/release/tritforge"))
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        write_tokenizer(work / "tokenizer")
        (work / "shape.toml").write_text(SHAPE)
        made = ["synth", "shape.toml", "-o", "model.gguf", "--tokenizer", "tokenizer"]
        subprocess.run([binary, *made], cwd=work, check=True, stdout=subprocess.DEVNULL)
        serve = [binary, "serve", "model.gguf", "--port", "0"]
        with subprocess.Popen(serve, cwd=work, stdout=subprocess.PIPE, text=True) as process:
            try:
                address = re.search(r"http://[^/\s]+", process.stdout.readline()).group()
                client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
                print(f"openai {openai.__version__}, {subprocess.check_output([binary, '--version'], text=True).strip()}")
                model = client.models.list().data[0]
                check("models", client.models.retrieve(model.id) == model and isinstance(model.created, int), model)
                chat(client, model.id)
                completions(client, model.id)
                faults(client, model.id)
            finally:
                process.terminate()
    print(f"{failed} failed")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
