"""What the small language model costs and how well it guesses: training, loading, text, perplexity on held-out text.

    python -m bench language

Caveats: one process on one core, CPU time; the data is the language reference that ships with Python; perplexity is
that of a model trained without every tenth topic. An n-gram model: it is there to be really trained, not to be clever.
"""

from __future__ import annotations

import json
import sys
import time
from pydoc_data.topics import topics
from typing import Any

from bench.raw import keep
from wharfinger.inference.language import load, train

QUESTION = "What does the with statement do?"
LONG = 256


def measure() -> dict[str, Any]:
    """Return every figure."""
    names = sorted(topics)
    start = time.process_time()
    files = train(topics).files()
    trained = time.process_time() - start
    start = time.process_time()
    model = load(files)
    loaded = time.process_time() - start
    start = time.process_time()
    text = "".join(model.generate(QUESTION, most=LONG, seed=1))
    each = (time.process_time() - start) / LONG
    part = train({name: topics[name] for i, name in enumerate(names) if i % 10})
    held = "\n".join(topics[name] for i, name in enumerate(names) if i % 10 == 0)
    return {
        "data, KB": sum(map(len, topics.values())) // 1000,
        "training, CPU seconds": round(trained, 2),
        "weights, KB": sum(map(len, files.values())) // 1000,
        "loading, CPU milliseconds": round(loaded * 1000, 1),
        "text, tokens a second": round(1 / each),
        "perplexity on held-out topics": round(part.perplexity(held[:50_000]), 1),
        "it says": text[:160],
    }


def main(arguments: list[str]) -> None:
    """Print the figures; raw as JSON with `-o json`."""
    figures = measure()
    keep("language", figures)
    if arguments == ["-o", "json"]:
        print(json.dumps(figures, indent=2))
        return
    for name, figure in figures.items():
        print(f"{name}: {figure!r}" if isinstance(figure, str) else f"{name}: {figure}")


if __name__ == "__main__":
    main(sys.argv[1:])
