#!/usr/bin/env bash
# Builds the Dockerfile and runs what it makes, on Debian as root and without Docker: buildah executes the steps, and the
# base images are made of Debian packages and of the Rust toolchain at hand, for machines that reach no registry of images.
#   deploy/check_image.sh MODEL.gguf
# The service then runs as the image's user, in a root file system and with a model directory that cannot be written.
set -euo pipefail
model=$(realpath "${1:?usage: deploy/check_image.sh MODEL.gguf}")
cd "$(dirname "$0")/.."

work=$(mktemp -d)
export BUILDAH_ISOLATION=chroot
storage=(--root "$work/storage" --runroot "$work/run")
cleanup() {
    [ -z "${pid-}" ] || kill "$pid" 2>/dev/null || true
    umount -R "$work/root" 2>/dev/null || true
    buildah "${storage[@]}" umount --all >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap cleanup EXIT

step() { printf '\n== %s\n' "$*"; }

step "buildah, debootstrap"
for program in buildah debootstrap curl; do
    command -v $program >/dev/null || missing+=($program)
done
if [ -n "${missing[*]-}" ]; then
    apt-get update -q && apt-get install -y -q --no-install-recommends "${missing[@]}"
fi
buildah --version

step "base images of Debian packages"
mirror=http://deb.debian.org/debian
debootstrap --variant=minbase bookworm "$work/runtime" $mirror >"$work/log" 2>&1 || { tail "$work/log"; exit 1; }
debootstrap --variant=minbase --include=gcc,libc6-dev,ca-certificates bookworm "$work/builder" $mirror >"$work/log" 2>&1 || { tail "$work/log"; exit 1; }
# base NAME DIRECTORY: an image of what is in it.
base() {
    local container
    container=$(buildah "${storage[@]}" from scratch)
    buildah "${storage[@]}" add -q "$container" "$2" / >/dev/null
    buildah "${storage[@]}" config --env PATH=/usr/local/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
    buildah "${storage[@]}" commit -q --rm "$container" "$1" >/dev/null
    rm -rf "$2"
}
base localhost/runtime "$work/runtime"
base localhost/builder "$work/builder"

step "the Dockerfile"
toolchain=$(rustc --print sysroot)
nice -n 5 buildah "${storage[@]}" bud --pull-never --layers=false -f deploy/Dockerfile -t localhost/tritforge \
    --build-arg BUILDER=localhost/builder --build-arg RUNTIME=localhost/runtime \
    --build-arg VERSION="$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)" \
    --build-arg REVISION="$(git rev-parse HEAD)" \
    --volume "$toolchain:/usr/local/rust:ro" --volume "${CARGO_HOME:-$HOME/.cargo}/registry:/root/.cargo/registry" .

step "its configuration"
config=$(buildah "${storage[@]}" inspect --type image localhost/tritforge \
    | python3 -c 'import json, sys; print(json.dumps(json.load(sys.stdin)["OCIv1"]["config"]))')
echo "$config" | python3 -m json.tool
field() { echo "$config" | python3 -c "import json, sys; c = json.load(sys.stdin); print($1)"; }
user=$(field 'c["User"]')
mapfile -t command < <(field '"\n".join(c["Entrypoint"] + c["Cmd"])')
case "$user" in '' | 0* | root*) echo "the image runs as root: $user" >&2; exit 1 ;; esac

step "the service: user $user, nothing writable"
container=$(buildah "${storage[@]}" from --pull-never localhost/tritforge)
mkdir "$work/root" "$work/models"
cp "$model" "$work/models/model.gguf"
chmod -R a+rX "$work" "$work/models"
mount --bind "$(buildah "${storage[@]}" mount "$container")" "$work/root"
mount --bind "$work/models" "$work/root/models"
mount -t proc proc "$work/root/proc"
mount --bind /dev "$work/root/dev"
mount -o remount,ro,bind "$work/root/models"
mount -o remount,ro,bind "$work/root"
du -sh "$work/root/usr/local/bin/tritforge"
inside() { chroot --userspec="$user" "$work/root" "$@"; }
if inside touch /tmp/written /models/written 2>/dev/null; then
    echo "something can be written" >&2
    exit 1
fi
key=$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')
TRITFORGE_API_KEY=$key chroot --userspec="$user" "$work/root" "${command[@]}" >"$work/log" 2>&1 &
pid=$!
for _ in $(seq 300); do
    curl -sf localhost:8080/ready >/dev/null && break
    kill -0 $pid || { cat "$work/log"; exit 1; }
    sleep 0.2
done
curl -sS --fail-with-body localhost:8080/ready; echo
curl -sS --fail-with-body localhost:8080/v1/completions -H "Authorization: Bearer $key" \
    -H 'Content-Type: application/json' -d '{"prompt": "a", "max_tokens": 4, "ignore_eos": true}'; echo
grep -E '^(Uid|VmRSS)' /proc/$pid/status

step "HEALTHCHECK"
# The command as the Dockerfile has it: the OCI format of images does not keep it.
mapfile -t health < <(sed -n '/^HEALTHCHECK/,/CMD/s/^ *CMD //p' deploy/Dockerfile \
    | python3 -c 'import json, sys; print("\n".join(json.load(sys.stdin)))')
inside "${health[@]}"

step "SIGTERM drains"
kill -TERM $pid
sleep 1
status=$(curl -s -o /dev/null -w '%{http_code}' localhost:8080/ready)
[ "$status" = 503 ] || { echo "/ready answers $status while the service drains" >&2; exit 1; }
wait $pid
if inside "${health[@]}" 2>/dev/null; then
    echo "HEALTHCHECK succeeds without a service" >&2
    exit 1
fi
echo "the image works"
