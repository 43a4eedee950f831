"""Chat and completions, streamed and not, by OpenAI's own client against `tritforge serve` on the loopback interface.

    cargo build --release
    tests/interop/run.sh openai_client.py

The model has random weights and a token a byte, with the template of ChatML: what it says means nothing, but a stream must
say what the whole answer says. TRITFORGE names the binary, target/release/tritforge by default. The exit code is 1 if
anything differs.

Versions: requirements-openai_client.txt.
"""

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
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


def choices_and_stops(client: openai.OpenAI, model: str) -> None:
    asked = dict(model=model, messages=[{"role": "user", "content": "Hello"}], max_tokens=12, temperature=1, seed=5)
    three = client.chat.completions.create(**asked, n=3)
    texts = [c.message.content for c in three.choices]
    check("chat, n", [c.index for c in three.choices] == [0, 1, 2] and len(set(texts)) > 1, texts)
    check("chat, n, usage", 3 <= three.usage.completion_tokens <= 36, three.usage.completion_tokens)
    alone = client.chat.completions.create(**asked)
    check("chat, first of n", alone.choices[0].message.content == texts[0], repr(texts[0]))
    streamed = {0: "", 1: "", 2: ""}
    for chunk in client.chat.completions.create(**asked, n=3, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    check("chat, n, stream", list(streamed.values()) == texts, streamed)
    ids = {c.id for c in client.chat.completions.create(**asked, stream=True)}
    check("chat, stream, one id", len(ids) == 1 and ids.pop().startswith("chatcmpl"), ids)

    # Of bytes that are drawn at random some are printable.
    drawn = dict(model=model, prompt="once upon", max_tokens=64, temperature=1, seed=7, extra_body={"ignore_eos": True})
    text = client.completions.create(**drawn).choices[0].text
    stop = next(letter for i, letter in enumerate(text) if " " < letter < "\x7f" and i >= 4 and text.index(letter) == i)
    expected = text[: text.index(stop)]
    for what, value in (("string", stop), ("list", ["absent", stop])):
        cut = client.completions.create(**drawn, stop=value).choices[0]
        check(f"stop, {what}", (cut.text, cut.finish_reason) == (expected, "stop"), repr(cut.text))
        chunks = list(client.completions.create(**drawn, stop=value, stream=True))
        told = "".join(chunk.choices[0].text for chunk in chunks)
        check(f"stop, {what}, stream", (told, chunks[-1].choices[0].finish_reason) == (expected, "stop"), repr(told))
    # "once upon" by its token ids: a token a byte, in the order of the vocabulary.
    ids = [len(SPECIAL) + letter for letter in (ord(c) - 33 if c != " " else 188 + 32 for c in "once upon")]
    by_ids = client.completions.create(**drawn | {"prompt": ids}).choices[0].text
    check("completion, token ids", by_ids == text, repr(by_ids))
    lists = client.completions.create(**drawn | {"prompt": [ids, ids[:4]]})
    check("completions, lists of token ids", [c.text for c in lists.choices][0] == text, [c.text for c in lists.choices])
    echoed = client.completions.create(**drawn, echo=True).choices[0].text
    check("completion, echo", echoed == "once upon" + text, repr(echoed))


def full_context(client: openai.OpenAI, model: str) -> None:
    asked = dict(model=model, prompt="once", max_tokens=600, temperature=1, seed=1, extra_body={"ignore_eos": True})
    full = client.completions.create(**asked)
    # The last token is never run, so that it needs no place.
    seen = (full.choices[0].finish_reason, full.usage.total_tokens)
    check("a full context", seen[0] == "length" and 512 <= seen[1] <= 513, seen)


def cancellation(client: openai.OpenAI, address: str, model: str) -> None:
    """A client that goes away in the middle of a stream frees its place: the service answers at once."""
    long = dict(model=model, prompt="once", max_tokens=400, temperature=0, extra_body={"ignore_eos": True})
    for _ in range(8):
        stream = client.completions.create(**long, stream=True)
        next(iter(stream))
        stream.close()
    try:
        client.with_options(timeout=0.05).completions.create(**long | {"n": 64})
        check("a client's timeout", False, "answered")
    except openai.APITimeoutError as error:
        check("a client's timeout", True, error)
    begin = time.monotonic()
    after = client.completions.create(model=model, prompt="once", max_tokens=2, temperature=0)
    seconds = time.monotonic() - begin
    # 64 answers of 400 tokens take far longer.
    check("after clients that went away", len(after.choices) == 1 and seconds < 10, f"{seconds:.2f} s")
    with urllib.request.urlopen(f"{address}/health") as answer:
        check("health", answer.status == 200, answer.status)


async def concurrent(address: str, model: str) -> None:
    """Twenty requests at once, half of them streamed: each answer is what the request gets alone."""
    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:

        async def whole(i: int) -> str:
            asked = dict(messages=[{"role": "user", "content": f"Number {i}"}], max_tokens=16, temperature=1, seed=i)
            if i % 2:
                return (await client.chat.completions.create(model=model, **asked)).choices[0].message.content
            stream = await client.chat.completions.create(model=model, **asked, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        together = await asyncio.gather(*map(whole, range(20)))
        alone = [await whole(i) for i in range(20)]
    check("20 requests at once", together == alone, sum(a == b for a, b in zip(together, alone)))


def faults(client: openai.OpenAI, model: str) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    messages = [{"role": "user", "content": "Hello"}]
    for what, asked, kind, param in (
        ("tools", dict(tools=[tool]), openai.BadRequestError, "tools"),
        ("a range", dict(temperature=-1), openai.BadRequestError, "temperature"),
        ("an unknown field", dict(extra_body={"max_token": 3}), openai.BadRequestError, "max_token"),
        ("response_format", dict(response_format={"type": "yaml"}), openai.BadRequestError, "response_format"),
        ("audio", dict(extra_body={"audio": {"voice": "alloy", "format": "wav"}}), openai.BadRequestError, "audio"),
        ("a reasoning effort", dict(reasoning_effort="high"), openai.BadRequestError, "reasoning_effort"),
        ("too many logprobs", dict(logprobs=True, top_logprobs=21), openai.BadRequestError, "top_logprobs"),
        ("a long prompt", dict(messages=[{"role": "user", "content": "a" * 600}]), openai.BadRequestError, "messages"),
        ("an unknown model", dict(model="absent"), openai.NotFoundError, "model"),
    ):
        try:
            client.chat.completions.create(**{"model": model, "messages": messages, "max_tokens": 2} | asked)
            check(what, False, "served")
        except openai.APIStatusError as error:
            check(what, type(error) is kind and error.param == param, error.message)
            codes = {"a long prompt": "context_length_exceeded", "an unknown model": "model_not_found"}
            if what in codes:
                check(f"{what}, code", error.code == codes[what], error.code)
    for what, call in (
        ("retrieve an unknown model", lambda: client.models.retrieve("absent")),
        ("responses", lambda: client.responses.create(model=model, input="Hello")),
    ):
        try:
            call()
            check(what, False, "served")
        except openai.NotFoundError as error:
            check(what, bool(error.message), error.message)


@contextlib.contextmanager
def served(shape: str) -> Iterator[tuple[openai.OpenAI, str]]:
    """A service of a model with random weights of `shape`: a client of it, and its address."""
    binary = os.environ.get("TRITFORGE", str(ROOT / "target/release/tritforge"))
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        write_tokenizer(work / "tokenizer")
        (work / "shape.toml").write_text(shape)
        made = ["synth", "shape.toml", "-o", "model.gguf", "--tokenizer", "tokenizer"]
        subprocess.run([binary, *made], cwd=work, check=True, stdout=subprocess.DEVNULL)
        serve = [binary, "serve", "model.gguf", "--port", "0"]
        with subprocess.Popen(serve, cwd=work, stdout=subprocess.PIPE, text=True) as process:
            try:
                address = re.search(r"http://[^/\s]+", process.stdout.readline()).group()
                print(f"openai {openai.__version__}, {subprocess.check_output([binary, '--version'], text=True).strip()}")
                yield openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0), address
            finally:
                process.terminate()


def main() -> int:
    with served(SHAPE) as (client, address):
        model = client.models.list().data[0]
        check("models", client.models.retrieve(model.id) == model and isinstance(model.created, int), model)
        chat(client, model.id)
        completions(client, model.id)
        choices_and_stops(client, model.id)
        full_context(client, model.id)
        cancellation(client, address, model.id)
        asyncio.run(concurrent(address, model.id))
        faults(client, model.id)
    print(f"{failed} failed")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
