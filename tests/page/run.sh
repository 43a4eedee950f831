#!/usr/bin/env bash
# The page in a real browser, against `tritforge serve` with a small model:
#
#     cargo build --release
#     tests/page/run.sh [SCREENSHOTS]
#
# Needs node, npm and Chromium: TRITFORGE_CHROMIUM names the browser (/usr/bin/chromium), TRITFORGE the binary
# (target/release/tritforge). playwright-core is installed once into .venv-page/ at the root of the repository.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
modules=$root/.venv-page

if ! cmp -s "$here/package.json" "$modules/package.json"; then
    mkdir -p "$modules"
    cp "$here/package.json" "$modules/package.json.new"
    (cd "$modules" && mv package.json.new package.json && npm install --silent --no-audit --no-fund) || {
        rm -f "$modules/package.json"
        exit 1
    }
fi
export TRITFORGE=${TRITFORGE:-${CARGO_TARGET_DIR:-$root/target}/release/tritforge}
export TRITFORGE_CHROMIUM=${TRITFORGE_CHROMIUM:-/usr/bin/chromium}
export PLAYWRIGHT_CORE=$modules/node_modules/playwright-core/index.mjs
exec node "$here/page.mjs" "$@"
