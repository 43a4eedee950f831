"""Held-out loss of several runs over steps, as one SVG file (standard library only):

    python3 benches/plot_loss.py -o loss.svg ternary=runs/pretrain-english twin=runs/pretrain-english-fp

Each argument is LABEL=DIRECTORY of a run with its metrics.jsonl. Points are the run's evaluations. `tritforge report RUN…` shows more,
in a browser; this is for documents.
"""

import argparse
import json
import math
from html import escape
from pathlib import Path

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 60, 150, 20, 45
COLOURS = ["#0b6e99", "#c4511a", "#3f7d3a", "#7a4aa0", "#8a6d1f", "#555555"]


def evaluations(directory: Path) -> list[tuple[int, float]]:
    """(step, held-out loss in nats a token) of every evaluation; of a repeated one the last."""
    found = {}
    for line in (directory / "metrics.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event.get("event") == "eval" and math.isfinite(event["loss"] or math.nan):
            found[event["step"]] = event["loss"]
    if not found:
        raise SystemExit(f"{directory}/metrics.jsonl holds no evaluation")
    return sorted(found.items())


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from low to high, about six."""
    raw = (high - low) / 6
    power = 10 ** math.floor(math.log10(raw))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= raw)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def svg(curves: dict[str, list[tuple[int, float]]]) -> str:
    points = [point for curve in curves.values() for point in curve]
    last = max(step for step, _ in points)
    low, high = min(loss for _, loss in points), max(loss for _, loss in points)
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)
    x = lambda step: LEFT + (WIDTH - LEFT - RIGHT) * step / last
    y = lambda loss: TOP + (HEIGHT - TOP - BOTTOM) * (high - loss) / (high - low)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for loss in ticks(low, high):
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(loss):.1f}" y2="{y(loss):.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y(loss) + 4:.1f}" text-anchor="end">{loss:.4g}</text>')
    for step in ticks(0, last):
        out.append(f'<text x="{x(step):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{step:.0f}</text>')
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    out.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">step</text>')
    out.append(
        f'<text transform="translate(14 {(HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">held-out loss, nats a token</text>'
    )
    for number, (label, curve) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x(step):.1f},{y(loss):.1f}" for step, loss in curve)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x(step):.1f}" cy="{y(loss):.1f}" r="2.5" fill="{colour}"/>' for step, loss in curve]
        top = TOP + 10 + 20 * number
        out.append(f'<line x1="{WIDTH - RIGHT + 12}" x2="{WIDTH - RIGHT + 32}" y1="{top}" y2="{top}" stroke="{colour}" stroke-width="2"/>')
        out.append(f'<text x="{WIDTH - RIGHT + 38}" y="{top + 4}">{escape(label)}</text>')
    return "\n".join([*out, "</svg>", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description="Plot the held-out loss of runs.")
    parser.add_argument("runs", nargs="+", metavar="LABEL=DIRECTORY")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    pairs = [run.partition("=") for run in options.runs]
    if bad := [run for run, (_, equals, _) in zip(options.runs, pairs) if not equals]:
        parser.error(f"{bad[0]}: expected LABEL=DIRECTORY")
    options.output.write_text(svg({label: evaluations(Path(directory)) for label, _, directory in pairs}))


if __name__ == "__main__":
    main()
