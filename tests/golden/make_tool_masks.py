"""Write the golden files that pin conversations with tools, their ids and what is learned of them, to transformers.

Versions: transformers 5.23.0, tokenizers 0.23.3, jinja2 3.1.6; of trl 1.16.0 only the templates, without what it depends
on. To run:

    python -m venv .venv-golden
    .venv-golden/bin/pip install transformers==5.23.0 tokenizers==0.23.3 jinja2==3.1.6
    .venv-golden/bin/pip download --no-deps -d .venv-golden/trl trl==1.16.0
    .venv-golden/bin/python tests/golden/make_tool_masks.py .venv-golden/trl/trl-1.16.0-py3-none-any.whl

What it writes, beside itself, into `tool_masks/`:

    templates/              chat templates of Qwen2.5, Qwen3, Llama 3.1 and GLM-4.5 as TRL has them (Apache-2.0; see NOTICE):
                            the models' own, and for all but Llama's those that TRL trains with, which have generation blocks
    tokenizer.json          a byte-level BPE with the marks of all templates; tokenizer_config.json names BOS and EOS
    conversations.jsonl     60 records with `messages` and `tools`, in all the ways in which a record may write them
    unreasoned.jsonl        the same without `reasoning_content`, for templates that do not know it
    masks.json              runs, each with `template`, the file of the `records`, `arguments` of all of them, and `cases`

A case is `ids` and `runs`, the ranges [first, end) of the mask that are 1, or null where the template refuses the
conversation or cannot be trained on. With generation blocks the mask is transformers'
(`apply_chat_template(return_assistant_tokens_mask=True)`). Without them an answer is what a longer conversation adds: the
text between the prompt before it (`add_generation_prompt=True`) and the conversation with it, both rendered by
transformers, without white space behind the answer's last special token. null is then a template that does not go on where
the shorter conversation ended, or that leaves out what an answer says beside its calls.
"""

import copy
import json
import random
import sys
import zipfile
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).parent / "tool_masks"
BOS, EOS = "<|begin_of_text|>", "<|endoftext|>"
SPECIAL = [
    BOS, EOS, "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>",
    "<|python_tag|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>",
]  # fmt: skip
# Tokens that decoding keeps, as in Qwen's and GLM's vocabularies.
MARKS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
MARKS += ["<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"]

# Templates, each with arguments that all records have in common.
RUNS = [
    ("qwen2_5", {}),
    ("qwen2_5_training", {}),
    ("qwen3", {}),
    ("qwen3", {"enable_thinking": False}),
    ("qwen3_training", {}),
    ("llama3_1", {}),
    ("llama3_1", {"date_string": "12 Mar 2026", "tools_in_user_message": False}),
    ("glm4moe", {}),
    ("glm4moe", {"enable_thinking": False}),
    ("glm4moe_training", {}),
]


def function(name: str, description: str, properties: dict, required: list[str]) -> dict:
    parameters = {"type": "object", "properties": properties, "required": required}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


WEATHER = function(
    "get_weather",
    "Weather of a city: <b>now</b> & \"here\"",
    {"city": {"type": "string", "description": "its name"}, "unit": {"type": "string", "enum": ["°C", "°F"]}},
    ["city"],
)
ADD = function("add", "Adds numbers.", {"a": {"type": "number"}, "b": {"type": "number", "default": None}}, ["a"])
SEARCH = function(
    "search_notes",
    "Notes that match.\nNewest first.",
    {"query": {"type": "string"}, "filter": {"type": "object", "properties": {"tags": {"type": "array"}}}},
    ["query"],
)
NOW = {"type": "function", "function": {"name": "now", "description": "The time."}}

# A question, a call of a tool with what comes of it, and the answer.
STEPS = [
    ("How warm is it in Paris?", WEATHER, {"city": "Paris", "unit": "°C"}, '{"temp": 18.5, "sky": "clear"}', "18.5 °C."),
    ("Weather in 東京?", WEATHER, {"city": "東京"}, "雨 🌧️", "It rains in 東京."),
    ("2 + 2.5?", ADD, {"a": 2, "b": 2.5}, "4.5", "4.5"),
    ("Is 1e-7 more than 0?", ADD, {"a": 1e-07, "b": -0.0}, "1e-07", "Yes."),
    ("Add 1 to nothing.", ADD, {"a": 1, "b": None}, "error: b is null", "I cannot: the second number is missing."),
    ("What did I write on \"tea\"?", SEARCH, {"query": "\"tea\"", "filter": {"tags": ["a", "b"], "deep": {"x": [1, {}]}}},
     "1. Black\n2. Green\n", "Two notes:\n\n- Black\n- Green"),
    ("Find café \\ naïve", SEARCH, {"query": "café \\ naïve\n<tag>"}, "", "Nothing."),
    ("What time is it?", NOW, {}, '{"time": "12:34", "zone": null}', "12:34, but I do not know where."),
]  # fmt: skip
THOUGHTS = ["The user asks; I call the tool.", "Let me see.\nIt is simple.", "é?"]
TOOLS = [WEATHER, ADD, SEARCH, NOW]


def call(tool: dict, arguments: dict, number: int) -> dict:
    name = tool["function"]["name"]
    return {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def conversations() -> list[dict]:
    """60 records of messages and tools in OpenAI's form, arguments as objects."""
    rng = random.Random(20)
    found = []
    for i in range(60):
        messages = [{"role": "system", "content": rng.choice(["Be brief.", " Use tools. ", "Größe"])}] if i % 3 == 0 else []
        thinks, parallel, number = i % 4 == 1, i % 6 == 4, 0
        for turn in range(2 if i % 5 == 3 else 1):
            steps = rng.sample(STEPS, 2)
            steps = steps if parallel else steps[:1]
            asked = " And: ".join(step[0] for step in steps)
            messages.append({"role": "user", "content": asked})
            if i % 10 == 7:
                # Tools that are not needed.
                messages.append({"role": "assistant", "content": "No tool can tell."})
                continue
            calls = [call(step[1], step[2], number + k) for k, step in enumerate(steps)]
            number += len(calls)
            said = {"role": "assistant", "content": "I look it up." if i % 8 == 2 else "", "tool_calls": calls}
            if thinks:
                said["reasoning_content"] = rng.choice(THOUGHTS)
            messages.append(said)
            for step, made in zip(steps, calls):
                name = step[1]["function"]["name"]
                messages.append({"role": "tool", "tool_call_id": made["id"], "name": name, "content": step[3]})
            answer = {"role": "assistant", "content": " ".join(step[4] for step in steps)}
            if thinks:
                answer["reasoning_content"] = rng.choice(THOUGHTS)
            messages.append(answer)
            if i % 12 == 5 and turn == 0:
                # A second call, with what the first one gave.
                messages[-1:] = [
                    {"role": "assistant", "content": "", "tool_calls": [call(NOW, {}, number)], "reasoning_content": "Now."},
                    {"role": "tool", "tool_call_id": f"call_{number}", "name": "now", "content": "noon"},
                    answer,
                ]
                number += 1
        # Those that are called, and sometimes one more.
        used = {made["function"]["name"] for message in messages for made in message.get("tool_calls", [])}
        more = TOOLS[i % 4]["function"]["name"] if i % 3 == 1 or not used else None
        tools = [tool for tool in TOOLS if tool["function"]["name"] in used | {more}]
        found.append({"messages": messages, "tools": tools})
    return found


def written(record: dict, i: int) -> dict:
    """The same record as data sets write it: arguments and tools as texts, null for no content, parts of text."""
    record = copy.deepcopy(record)
    for message in record["messages"]:
        if "tool_calls" in message:
            for made in message["tool_calls"]:
                if i % 2:
                    made["function"]["arguments"] = json.dumps(made["function"]["arguments"], ensure_ascii=False)
            message["train"] = True
        elif message["role"] == "user" and i % 7 == 3:
            text = message["content"]
            message["content"] = [{"type": "text", "text": text[:4]}, {"type": "text", "text": text[4:]}]
        elif message["role"] == "assistant":
            message |= {"tool_calls": [] if i % 3 else None, "reasoning_content": message.get("reasoning_content")}
    if i % 5 == 1:
        record["tools"] = json.dumps(record["tools"])
    elif i % 5 == 2:
        record["tools"] = [tool["function"] for tool in record["tools"]]
    return record


def tokenizer(texts: list[str]) -> Tokenizer:
    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    found.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    found.train_from_iterator(texts, trainer)
    found.add_tokens([AddedToken(mark, normalized=False, special=False) for mark in MARKS])
    return found


def runs(mask: list[int]) -> list[list[int]]:
    found: list[list[int]] = []
    for i, bit in enumerate(mask):
        if bit and (i == 0 or not mask[i - 1]):
            found.append([i, i + 1])
        elif bit:
            found[-1][1] = i + 1
    return found


def by_prefixes(fast: PreTrainedTokenizerFast, record: dict, template: str, arguments: dict) -> dict | None:
    """Ids and mask by what each answer adds to the text."""

    def text(messages: list[dict], prompt: bool) -> str:
        return fast.apply_chat_template(
            messages, tools=record["tools"], chat_template=template, add_generation_prompt=prompt, tokenize=False, **arguments
        )

    messages = record["messages"]
    whole = text(messages, False)
    encoded = fast(whole, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets, mask = encoded["input_ids"], encoded["offset_mapping"], [0] * len(encoded["input_ids"])
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before, through = text(messages[:i], True), text(messages[: i + 1], False)
        if not (through.startswith(before) and whole.startswith(through)):
            return None
        if "tool_calls" in message and message["content"].strip() not in through[len(before) :]:
            return None
        own = [k for k, (a, b) in enumerate(offsets) if a < len(through) and b > len(before)]
        special = [k for k in own if ids[k] in fast.all_special_ids or fast.convert_ids_to_tokens(ids[k]) in SPECIAL]
        if special and not fast.decode(ids[special[-1] + 1 : own[-1] + 1]).strip():
            own = own[: own.index(special[-1]) + 1]
        for k in own:
            mask[k] = 1
    return {"ids": ids, "runs": runs(mask)}


def main() -> None:
    wheel = zipfile.ZipFile(sys.argv[1])
    (HERE / "templates").mkdir(parents=True, exist_ok=True)
    templates = {}
    for name in dict.fromkeys(name for name, _ in RUNS):
        source = wheel.read(f"trl/chat_templates/{name}.jinja")
        (HERE / f"templates/{name}.jinja").write_bytes(source)
        # As a file is read: universal newlines.
        templates[name] = (HERE / f"templates/{name}.jinja").read_text()
    records = conversations()
    files = {"conversations": records, "unreasoned": copy.deepcopy(records)}
    for record in files["unreasoned"]:
        for message in record["messages"]:
            message.pop("reasoning_content", None)
    for file, records in files.items():
        lines = [json.dumps(written(record, i), ensure_ascii=False) for i, record in enumerate(records)]
        (HERE / f"{file}.jsonl").write_text("\n".join(lines) + "\n")
    inner = tokenizer([*lines, *templates.values()])
    (HERE / "tokenizer.json").write_text(json.dumps(json.loads(inner.to_str()), ensure_ascii=False) + "\n")
    (HERE / "tokenizer_config.json").write_text(json.dumps({"bos_token": BOS, "eos_token": EOS}) + "\n")
    fast = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=BOS, eos_token=EOS)
    golden = []
    for name, arguments in RUNS:
        cases: list[dict | None] = []
        file = "conversations" if "reasoning_content" in templates[name] else "unreasoned"
        for record in files[file]:
            try:
                if name.endswith("_training"):
                    found = fast.apply_chat_template(
                        record["messages"],
                        tools=record["tools"],
                        chat_template=templates[name],
                        return_assistant_tokens_mask=True,
                        return_dict=True,
                        **arguments,
                    )
                    case = {"ids": found["input_ids"], "runs": runs(found["assistant_masks"])}
                else:
                    case = by_prefixes(fast, record, templates[name], arguments)
            except Exception as error:  # jinja2.TemplateError
                assert "single tool-calls" in str(error), error
                case = None
            cases.append(case)
        found = [case for case in cases if case]
        print(name, arguments, len(found), "of", len(cases), sum(len(case["ids"]) for case in found), "ids")
        golden.append({"template": name, "records": f"{file}.jsonl", "arguments": arguments, "cases": cases})
    text = json.dumps(golden, separators=(",", ":"))
    (HERE / "masks.json").write_text(text + "\n")
    print(len(text), "bytes")


if __name__ == "__main__":
    main()
