"""The demo over several seeds: mean ± standard deviation of its figures, as the table that README shows.

Run: python benchmarks/demo_seeds.py [--data digits] [--seeds 0 1 2]
Writes benchmarks/demo_seeds_DATA.json with every run's record.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from kdkeras import demo

ROWS = {
    "test accuracy": ("scores", "accuracy"),
    "macro F1": ("scores", "f1"),
    "log-loss": ("scores", "log_loss"),
    "calibration error": ("scores", "calibration_error"),
    "agreement with the teacher": ("scores", "agreement"),
    "KL to the teacher": ("scores", "kl_to_teacher"),
}
COSTS = {"parameters": "parameters", "MACs": "macs"}


def spread(values: list[float], digits: int = 4) -> str:
    """Mean ± sample standard deviation."""
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def table(records: list[dict]) -> list[str]:
    """The records as a Markdown table."""
    rows = [record["comparison"]["rows"] for record in records]
    models = range(len(rows[0]))
    lines = ["| | teacher | student alone | student distilled |", "|---|---|---|---|"]
    for label, (part, name) in ROWS.items():
        cells = [spread([run[model][part][name] for run in rows]) for model in models]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    for label, name in COSTS.items():
        lines.append(f"| {label} | {' | '.join(format(rows[0][model]['cost'][name], ',') for model in models)} |")
    lines += ["", "| TFLite file of the distilled student | size | test accuracy |", "|---|---|---|"]
    for index, first in enumerate(records[0]["exports"]):
        accuracy = spread([record["exports"][index]["accuracy"] for record in records])
        lines.append(f"| {first['path']} | {first['bytes'] / 1000:.1f} kB | {accuracy} |")
    lines += ["", "| Soft decision tree | test accuracy | fidelity to the teacher |", "|---|---|---|"]
    for index, first in enumerate(records[0]["tree"]):
        cells = [spread([record["tree"][index][name] for record in records]) for name in ("accuracy", "fidelity")]
        lines.append(f"| {first['reading']} | {' | '.join(cells)} |")
    lines += [
        "",
        "| Agreement of explanations with the teacher's | student alone | student distilled |",
        "|---|---|---|",
    ]
    explained = [record["explanation"] for record in records]
    if "spearman" in explained[0]["alone"]:
        cells = [spread([run[name]["spearman"] for run in explained], 3) for name in ("alone", "distilled")]
        return [*lines, f"| Spearman of permutation importance | {' | '.join(cells)} |"]
    for measure in explained[0]["alone"]["summary"]:
        cells = [
            spread([run[name]["summary"][measure]["mean"] for run in explained], 3) for name in ("alone", "distilled")
        ]
        lines.append(f"| Grad-CAM {measure} | {' | '.join(cells)} |")
    cells = [" / ".join(str(run[name]["student"]["zero_maps"]) for run in explained) for name in ("alone", "distilled")]
    return [*lines, f"| all-zero maps of {explained[0]['alone']['n']}, per seed | {' | '.join(cells)} |"]


def main() -> None:
    """Run the demo once per seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=demo.DATA, default="digits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    records = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            print(f"seed {seed}", flush=True)
            records.append(demo.run(options.data, Path(folder) / "out", seed=seed, progress=print).to_dict())
    target = Path(__file__).with_name(f"demo_seeds_{options.data}.json")
    target.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    print("\n".join(table(records)))


if __name__ == "__main__":
    main()
