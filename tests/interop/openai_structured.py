"""Answers with a schema, tools, embeddings and batches by OpenAI's own client against `tritforge serve`, and its
/openapi.json by openapi-spec-validator.

    cargo build --release
    tests/interop/run.sh openai_structured.py

The model has random weights, a token a byte and the built-in template `hermes`: what it says means nothing, but what has to
fit a schema does, by the package jsonschema. TRITFORGE names the binary, target/release/tritforge by default. The exit
code is 1 if anything differs.

Versions: requirements-openai_structured.txt.
"""

import base64
import json
import re
import struct
import sys
import urllib.request
from pathlib import Path
from typing import Literal

import jsonschema
import openai
import openai_client
from openai_client import ROOT, SHAPE, check
from openapi_spec_validator import validate
from pydantic import BaseModel, Field

ADD = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 9}, "b": {"enum": [1, 2]}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
PICK = {
    "type": "object",
    "properties": {"color": {"enum": ["red", "green"]}},
    "required": ["color"],
    "additionalProperties": False,
}
PARAMETERS = {"add": ADD, "pick": PICK}
TOOLS = [{"type": "function", "function": {"name": n, "parameters": p}} for n, p in PARAMETERS.items()]
HELLO = [{"role": "user", "content": "Hello"}]


class Person(BaseModel):
    name: str = Field(max_length=8)
    age: int = Field(ge=0, le=120)
    kind: Literal["cat", "dog"]


def schemas(client: openai.OpenAI, model: str) -> None:
    asked = dict(model=model, messages=HELLO, max_tokens=1500)
    for seed in range(5):
        parsed = client.chat.completions.parse(response_format=Person, seed=seed, **asked).choices[0]
        check("schema, parsed", isinstance(parsed.message.parsed, Person), repr(parsed.message.content))
    schema = {"type": "json_schema", "json_schema": {"name": "add", "strict": True, "schema": ADD}}
    whole = client.chat.completions.create(response_format=schema, seed=1, n=4, **asked)
    texts = [choice.message.content for choice in whole.choices]
    for text in texts:
        jsonschema.validate(json.loads(text), ADD)
    streamed = dict.fromkeys(range(4), "")
    for chunk in client.chat.completions.create(response_format=schema, seed=1, n=4, stream=True, **asked):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    check("schema, stream", list(streamed.values()) == texts, texts)
    text = client.completions.create(model=model, prompt="x", extra_body={"guided_regex": "[a-c]{4}"}).choices[0].text
    check("regex", re.fullmatch("[a-c]{4}", text) is not None, text)
    wrong = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "strong"}}}
    try:
        client.chat.completions.create(response_format=wrong, **asked)
        check("a wrong schema", False, "served")
    except openai.BadRequestError as error:
        check("a wrong schema", error.param == "response_format.json_schema.schema", error.message)


def tools(client: openai.OpenAI, model: str) -> None:
    asked = dict(model=model, tools=TOOLS, max_tokens=3000, parallel_tool_calls=False)
    called = dict(model=model, tools=TOOLS, messages=HELLO)
    for seed in range(4):
        choice = client.chat.completions.create(messages=HELLO, tool_choice="required", seed=seed, **asked).choices[0]
        call = choice.message.tool_calls[0]
        jsonschema.validate(json.loads(call.function.arguments), PARAMETERS[call.function.name])
        check("tools", choice.finish_reason == "tool_calls" and choice.message.content is None, call.function)
        deltas = client.chat.completions.create(messages=HELLO, tool_choice="required", seed=seed, stream=True, **asked)
        parts = [part for chunk in deltas for part in chunk.choices[0].delta.tool_calls or []]
        told = "".join(part.function.arguments for part in parts)
        check("tools, stream", told == call.function.arguments and parts[0].function.name == call.function.name, len(parts))
    named = {"type": "function", "function": {"name": "pick"}}
    final = client.chat.completions.create(messages=HELLO, tool_choice=named, seed=1, **asked).choices[0].message
    check("tools, named", [call.function.name for call in final.tool_calls] == ["pick"], final.tool_calls)
    # What came of the call goes back with the message that the client has.
    history = [*HELLO, final, {"role": "tool", "tool_call_id": final.tool_calls[0].id, "content": "done"}]
    again = client.chat.completions.create(model=model, messages=history, tools=TOOLS, max_tokens=5)
    check("tools, history", again.usage.prompt_tokens > 100, again.usage)
    with client.chat.completions.stream(tool_choice="required", seed=1, max_tokens=3000, **called) as stream:
        final = stream.get_final_completion()
    check("tools, stream helper", len(final.choices[0].message.tool_calls) >= 1, final.choices[0].finish_reason)


def embeddings(client: openai.OpenAI, model: str) -> None:
    # The client asks for base64 by default, and decodes it.
    both = client.embeddings.create(model=model, input=["once", "upon a time"])
    floats = client.embeddings.create(model=model, input="once", encoding_format="float")
    close = all(abs(a - b) < 1e-6 for a, b in zip(both.data[0].embedding, floats.data[0].embedding, strict=True))
    length = sum(x * x for x in floats.data[0].embedding)
    check("embeddings", close and abs(length - 1) < 1e-5 and both.usage.total_tokens > 0, both.usage)


def post(address: str, path: str, body: object) -> dict:
    request = urllib.request.Request(address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def others(address: str) -> None:
    encoded = post(address, "/v1/embeddings", {"input": "once", "encoding_format": "base64"})["data"][0]["embedding"]
    check("embeddings, base64", len(struct.unpack("<256f", base64.b64decode(encoded))) == 256, encoded[:20])
    requests = [{"id": "a", "prompt": "x", "max_tokens": 2}, {"id": "b", "prompt": 3}]
    results = post(address, "/v1/generate/batch", {"requests": requests})["results"]
    check("batch", [(r["id"], r["status"]) for r in results] == [("a", 200), ("b", 400)], results[1])
    with urllib.request.urlopen(address + "/openapi.json") as answer:
        document = json.load(answer)
    validate(document)
    check("openapi.json", True, len(document["paths"]))


def main() -> int:
    openai_client.CHATML = (ROOT / "crates/text/src/templates/hermes.jinja").read_text()
    with openai_client.served(SHAPE.replace("512", "8192")) as (client, address):
        model = client.models.list().data[0].id
        schemas(client, model)
        tools(client, model)
        embeddings(client, model)
        others(address)
    print(f"{openai_client.failed} failed")
    return min(openai_client.failed, 1)


if __name__ == "__main__":
    sys.exit(main())
