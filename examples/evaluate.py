"""An evaluation step: judges the model on the text that training held out, writes metrics.json."""

import json
import os
from pathlib import Path

from wharfinger.inference.language import load, read_texts

texts = read_texts(Path(os.environ["WHARF_INPUT"]))
every = int(os.environ.get("HELD_OUT_EVERY", "20"))
held = [text for index, (_, text) in enumerate(sorted(texts.items())) if index % every == every - 1]
files = {path.name: path.read_bytes() for path in Path(os.environ["WHARF_MODEL"]).iterdir()}
perplexity = load(files).perplexity("\n".join(held)[:40_000])
(Path(os.environ["WHARF_OUTPUT"]) / "metrics.json").write_text(json.dumps({"perplexity": round(perplexity, 4)}))
print(f"perplexity {perplexity:.2f} on {len(held)} texts held out")
