// `tritforge serve` with a small model of random weights.

import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

// Large enough that an answer can be stopped before it is complete.
const CONFIG = `vocab_size = 260
hidden_size = 512
intermediate_size = 1024
num_hidden_layers = 8
num_attention_heads = 8
num_key_value_heads = 4
head_dim = 64
max_position_embeddings = 8192
hidden_act = "silu"
`;

const dir = mkdtempSync(join(tmpdir(), "tritforge-page-"));
const model = join(dir, "model.gguf");
writeFileSync(join(dir, "model.toml"), CONFIG);
const made = spawnSync(process.env.TRITFORGE, ["synth", join(dir, "model.toml"), "-o", model], { encoding: "utf8" });
if (made.status !== 0) throw new Error(`${process.env.TRITFORGE} synth: ${made.error ?? made.stderr}`);

/** Starts a service; resolves to its address and a function that ends it. */
export async function serve(...args) {
  const child = spawn(process.env.TRITFORGE, ["serve", model, "--port", "0", ...args], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const lines = createInterface({ input: child.stdout });
  const address = await new Promise((resolve, reject) => {
    child.once("exit", (code) => reject(new Error(`the service ended with ${code}`)));
    lines.on("line", (line) => {
      const found = /(http:\/\/[^/]+)\/v1/.exec(line);
      if (found) resolve(found[1]);
    });
  });
  return { address, stop: () => child.kill() };
}

export function cleanUp() {
  rmSync(dir, { recursive: true, force: true });
}
