#!/usr/bin/env bash
# Correctness and speed on an NVIDIA GPU, within nine minutes: needs a driver, Python and bash, no Rust, no network. It is run in the
# folder that benches/cuda/pack.sh makes.
#
#     ./device.sh                 the shapes 2b4t, 700m and 125m; the first one is compared with the CPU
#     ./device.sh tiny            others: names of the .toml files beside this one
#
# OUT      where logs, measurements and the table go; default: a new folder in /tmp
# DEVICE   the GPU by its number; default: 0
# LIMIT    seconds for everything; default: 540
# PROMPTS, GENERATE, DEPTH, BATCHES   what is measured; default: 128,512,2048; 128; 0,2048; 1,2,4,8,16,32
#
# Each step has its own limit, so that one that hangs costs the others nothing. The exit code is 1 if a step of correctness failed.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1
out=${OUT:-$(mktemp -d /tmp/tritforge-cuda.XXXXXX)}
device=${DEVICE:-0}
limit=${LIMIT:-540}
prompts=${PROMPTS:-128,512,2048}
generate=${GENERATE:-128}
depth=${DEPTH:-2048}
batches=${BATCHES:-1,2,4,8,16,32}
shapes=("${@:-2b4t}")
if (($# == 0)); then
    shapes=(2b4t 700m 125m)
fi
mkdir -p "$out" || exit 1
# Models of gigabytes, and what the driver compiles: of no use afterwards.
work=$(mktemp -d /tmp/tritforge-work.XXXXXX) || exit 1
trap 'rm -rf "$work"' EXIT
export CUDA_CACHE_PATH=$work/cache
export TRITFORGE_LOG=${TRITFORGE_LOG:-warn}
failed=0
: >"$out/steps"

# step NAME SECONDS COMMAND...: its output goes to $out/NAME.log.
step() {
    local name=$1 seconds=$2 begin=$SECONDS code last
    shift 2
    if ((seconds > limit - SECONDS)); then
        seconds=$((limit - SECONDS))
    fi
    if ((seconds <= 0)); then
        printf '%s\tno time\t0\t\n' "$name" >>"$out/steps"
        return 1
    fi
    timeout --kill-after=5 "$seconds" "$@" >"$out/$name.log" 2>&1
    code=$?
    last=$(grep -v '^[[:space:]]*$' "$out/$name.log" | tail -n 1 | tr '\t' ' ' | cut -c 1-120)
    case $code in
        0) code=ok ;;
        124 | 137) code="over $seconds s" ;;
        *) code="code $code" ;;
    esac
    printf '%s\t%s\t%s\t%s\n' "$name" "$code" "$((SECONDS - begin))" "$last" >>"$out/steps"
    echo "$name: $code, $((SECONDS - begin)) s: $last" >&2
    [[ $code == ok ]]
}

# checked NAME SECONDS COMMAND...: a step of correctness.
checked() {
    step "$@" || failed=1
}

# measured NAME SECONDS COMMAND...: a step whose standard output, JSON, is a measurement.
measured() {
    local name=$1 seconds=$2
    shift 2
    # shellcheck disable=SC2016 # expanded by the inner shell
    step "$name" "$seconds" bash -c 'json=$1; shift; "$@" >"$json" || exit; tail -n 1 "$json"' measured "$out/$name.json" "$@"
}

for shape in "${shapes[@]}"; do
    if [[ ! -f $shape.toml ]]; then
        echo "device.sh: there is no $shape.toml in $PWD" >&2
        exit 1
    fi
done
if ! step driver 60 python3 bandwidth.py --device "$device" --only-open; then
    cat "$out/driver.log" >&2
    echo "device.sh: no GPU that can be used; see $out/driver.log" >&2
    exit 1
fi
step machine 20 nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem --format=csv,noheader

# Correctness: every kernel, then a whole model, against the CPU.
checked kernels 120 ./kernels on_device --ignored
first=${shapes[0]}
if step "synth-$first" 120 ./tritforge synth "$first.toml" -o "$work/$first.gguf" --embeddings bf16; then
    checked verify 100 ./tritforge verify "$work/$first.gguf" "$work/$first.gguf" --device "cuda:$device" --tokens 300 --greedy-tokens 24 --bound 0
else
    failed=1
fi

# Speed.
measured bandwidth 30 python3 bandwidth.py --device "$device"
for shape in "${shapes[@]}"; do
    model=$work/$shape.gguf
    if [[ ! -f $model ]]; then
        step "synth-$shape" 60 ./tritforge synth "$shape.toml" -o "$model" --embeddings bf16 || continue
    fi
    bench=(./tritforge bench "$model" --device "cuda:$device" --repetitions 3 --output json)
    measured "decode-$shape" 90 "${bench[@]}" --prompt 0 --generate "$generate" --batch "$batches"
    measured "prefill-$shape" 45 "${bench[@]}" --prompt "$prompts" --generate 0
    if ((depth > 0)); then
        measured "deep-$shape" 45 "${bench[@]}" --prompt 0 --generate "$generate" --depth "$depth" --batch 1,8
    fi
    # The path of `generate`: choices on the GPU.
    step "generate-$shape" 30 ./tritforge generate "$model" --device "cuda:$device" --prompt 'fn main() {' --max-tokens "$generate" --ignore-eos
    rm -f "$model"
done

python3 table.py "$out" | tee "$out/table.md"
echo "logs and measurements: $out" >&2
exit "$failed"
