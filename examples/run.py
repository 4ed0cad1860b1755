"""Prints a PipelineRun for the code that `wharf push code ... -o json` wrote to the file named first."""

import json
import sys
from pathlib import Path

pushed = json.loads(Path(sys.argv[1]).read_text())
python = ["sh", "-c", 'python "$WHARF_CODE/train.py"']
spec = {
    "dataset": "manual",
    "model": "manual",
    "code": {"repository": pushed["repository"], "digest": pushed["digest"]},
    "train": {"command": python},
    "evaluate": {
        "command": ["sh", "-c", 'python "$WHARF_CODE/evaluate.py"'],
        "thresholds": [{"metric": "perplexity", "maximum": 400}],
    },
}
metadata = {"name": "train-manual", "namespace": "vision"}
made = {"apiVersion": "wharfinger.io/v1alpha1", "kind": "PipelineRun", "metadata": metadata, "spec": spec}
print(json.dumps(made, indent=2))
