#!/usr/bin/env python3
"""Two replicas of `tritforge serve` behind HAProxy, under load: what affinity is worth, and what a kill -9 costs.

    apt-get install haproxy && cargo build --release
    python3 deploy/haproxy/test.py target/release/tritforge

Conversations run side by side; each turn sends all turns before it. The same conversations run three times: with
the configuration as it is, with round robin in the place of the hash, and with the configuration while one replica
is killed with SIGKILL and started again. The answers are greedy, so that all three must give the same texts. Every fourth
request is a stream; a stream that ends before its `[DONE]` is sent once more by the client, all else is left to HAProxy.
Exits with 1 if a request was lost or a text differs. Standard library only; listens on free ports of 127.0.0.1.
"""

import argparse
import csv
import http.client
import io
import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
SHAPE = """vocab_size = 260
hidden_size = 512
intermediate_size = 1280
num_hidden_layers = 8
num_attention_heads = 8
num_key_value_heads = 4
head_dim = 64
max_position_embeddings = 8192
hidden_act = "silu"
"""
CONVERSATIONS, TURNS, CLIENTS = 32, 6, 6
# Seconds that a replica may take to start, and a request.
PATIENCE = 120


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Replica:
    def __init__(self, program, model, port):
        self.port = port
        self.command = [program, "serve", str(model), "--port", str(port), "--threads", "1", "--concurrency", "8",
                        "--max-connections", "200", "--no-page"]
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def wait(self):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if self.process.poll() is not None:
                sys.exit(f"a replica has ended with {self.process.returncode}: {' '.join(self.command)}")
            try:
                if self.get("/ready")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        sys.exit("a replica is not ready")

    def prefix_tokens(self):
        """Tokens of prompts that were looked up in the prefix cache, and those of them that it had."""
        _, text = self.get("/metrics")
        sample = lambda name: float(re.search(rf"^{name}\{{.*\}} (.*)$", text, re.M).group(1))
        return (sample("tritforge_prefix_cache_query_tokens_total"), sample("tritforge_prefix_cache_hit_tokens_total"))


class Proxy:
    def __init__(self, config, replicas, directory):
        self.port, self.stats = free_port(), Path(directory) / "stats.sock"
        self.stats.unlink(missing_ok=True)
        path = Path(directory) / "haproxy.cfg"
        path.write_text(config)
        a, b = (f"127.0.0.1:{replica.port}" for replica in replicas)
        env = dict(os.environ, TRITFORGE_A=a, TRITFORGE_B=b, TRITFORGE_BIND=f"127.0.0.1:{self.port}",
                   TRITFORGE_STATS=str(self.stats))
        self.process = subprocess.Popen(["haproxy", "-db", "-f", str(path)], env=env, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        end = time.monotonic() + PATIENCE
        while [row["status"] for row in self.rows() if row["svname"] in "ab"] != ["UP", "UP"]:
            if time.monotonic() > end or self.process.poll() is not None:
                sys.exit("haproxy does not find the replicas ready: haproxy -c -f deploy/haproxy/haproxy.cfg")
            time.sleep(0.05)
        # A server counts as up before its first check is over.
        time.sleep(1.5)

    def rows(self):
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(str(self.stats))
                s.sendall(b"show stat\n")
                text = b"".join(iter(lambda: s.recv(65536), b"")).decode()
        except OSError:
            return []
        return list(csv.DictReader(io.StringIO(text.removeprefix("# "))))

    def end(self):
        """What it counted: requests of each replica, requests sent again, and those of them to the other one."""
        rows = self.rows()
        self.process.terminate()
        self.process.wait()
        servers = {row["svname"]: int(row["stot"]) for row in rows if row["svname"] in "ab"}
        total = next(row for row in rows if row["svname"] == "BACKEND")
        return servers, int(total["wretr"]), int(total["wredis"])


class Load:
    def __init__(self, port):
        self.port, self.lock = port, threading.Lock()
        self.seconds, self.texts, self.lost, self.again, self.done = [], {}, [], 0, 0

    def ask(self, prompt, stream):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        body = {"prompt": prompt, "max_tokens": 16, "temperature": 0, "ignore_eos": True, "stream": stream}
        headers = {"Content-Type": "application/json", "Host": "localhost", "Connection": "close"}
        connection.request("POST", "/v1/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        content = answer.read().decode()
        if answer.status != 200:
            raise ConnectionError(f"{answer.status} {content[:200]}")
        if not stream:
            return json.loads(content)["choices"][0]["text"]
        events = [line.removeprefix("data: ") for line in content.splitlines() if line.startswith("data: ")]
        if not events or events[-1] != "[DONE]":
            raise EOFError("a stream ended early")
        return "".join(choice["text"] for event in events[:-1] for choice in json.loads(event)["choices"])

    def conversation(self, number):
        words = random.Random(number)
        text = lambda count: " ".join("".join(words.choices("etaoinshrdlu", k=words.randint(2, 9))) for _ in range(count))
        prompt = text(80)
        for turn in range(TURNS):
            prompt += "\nUser: " + text(25) + "\nAssistant:"
            stream, begin = (number + turn) % 4 == 0, time.monotonic()
            try:
                try:
                    answer = self.ask(prompt, stream)
                except (EOFError, http.client.IncompleteRead):
                    with self.lock:
                        self.again += 1
                    answer = self.ask(prompt, stream)
            except (OSError, EOFError, http.client.HTTPException) as error:
                with self.lock:
                    self.lost.append(f"conversation {number}, turn {turn}: {error!r}")
                    self.done += TURNS - turn
                return
            with self.lock:
                self.seconds.append(time.monotonic() - begin)
                self.texts[number, turn] = answer
                self.done += 1
            # Not the answer, whose bytes need not be text: the cache then has all of the next prompt but this turn.

    def run(self):
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(self.conversation, range(CONVERSATIONS)))


def measure(name, config, program, model, directory, kill=False):
    replicas = [Replica(program, model, free_port()) for _ in range(2)]
    try:
        for replica in replicas:
            replica.wait()
        proxy = Proxy(config, replicas, directory)
        load, begin = Load(proxy.port), time.monotonic()
        thread = threading.Thread(target=load.run)
        thread.start()
        killed = None
        while thread.is_alive():
            part = load.done / (CONVERSATIONS * TURNS)
            if kill and killed is None and part >= 1 / 3:
                # Only while it has something to lose.
                if float(re.search(r"^tritforge_requests_running\{.*\} (.*)$", replicas[0].get("/metrics")[1], re.M).group(1)) > 0:
                    replicas[0].kill()
                    killed = True
            if killed and part >= 2 / 3:
                replicas[0].start()
                replicas[0].wait()
                kill = killed = False
            time.sleep(0.005)
        thread.join()
        seconds = time.monotonic() - begin
        if kill:
            sys.exit("the replica was not killed and started again while the load ran")
        servers, sent_again, elsewhere = proxy.end()
        looked_up, hits = map(sum, zip(*(replica.prefix_tokens() for replica in replicas)))
    finally:
        for replica in replicas:
            replica.kill()
    times = sorted(load.seconds)
    quantile = lambda q: times[min(len(times) - 1, int(q * len(times)))]
    print(f"{name}: {len(times)} answered, {len(load.lost)} lost, {seconds:.1f} s; p50 {statistics.median(times):.3f} s, "
          f"p99 {quantile(0.99):.3f} s; sent to a {servers['a']}, to b {servers['b']}; retries {sent_again}, "
          f"redispatches {elsewhere}, streams asked again {load.again}; prefix cache {100 * hits / looked_up:.1f} % of "
          f"{looked_up:.0f} tokens", flush=True)
    for lost in load.lost:
        print(f"  lost: {lost}")
    return load


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="the tritforge binary")
    program = str(Path(parser.parse_args().program).resolve())
    config = (HERE / "haproxy.cfg").read_text()
    hashed = "balance hash var(txn.affinity)\n"
    unhashed = re.sub(r"^ *hash-.*\n", "", config.replace(hashed, "balance roundrobin\n"), flags=re.M)
    if unhashed.count("balance roundrobin") != 1:
        sys.exit(f"haproxy.cfg has no line {hashed!r}")
    with tempfile.TemporaryDirectory() as directory:
        shape, model = Path(directory) / "shape.toml", Path(directory) / "model.gguf"
        shape.write_text(SHAPE)
        subprocess.run([program, "synth", str(shape), "--output", str(model)], check=True, stdout=subprocess.DEVNULL)
        affine = measure("affinity", config, program, model, directory)
        runs = [measure("round robin", unhashed, program, model, directory),
                measure("affinity, kill -9", config, program, model, directory, kill=True)]
    wrong = [key for run in runs for key, text in run.texts.items() if affine.texts.get(key) != text]
    lost = sum(len(run.lost) for run in [affine, *runs])
    print(f"texts that differ between the runs: {len(wrong)}; lost requests: {lost}")
    sys.exit(1 if wrong or lost else 0)


if __name__ == "__main__":
    main()
