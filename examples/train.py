"""A training step: reads the dataset's text files, writes the model's files. Any program that does is one."""

import json
import os
from pathlib import Path

from wharfinger.inference.language import read_texts, train

texts = read_texts(Path(os.environ["WHARF_INPUT"]))
every = int(os.environ.get("HELD_OUT_EVERY", "20"))
kept = {name: text for index, (name, text) in enumerate(sorted(texts.items())) if index % every != every - 1}
output = Path(os.environ["WHARF_OUTPUT"])
for name, data in train(kept).files().items():
    (output / name).write_bytes(data)
print(json.dumps({"files": len(kept), "characters": sum(map(len, kept.values()))}))
