"""List the operators of a bundle's layers: domain, operator, how often, and in which layers."""

import sys
from collections import Counter, defaultdict
from pathlib import Path

import onnx


def main(folder: Path) -> None:
    counts: Counter[tuple[str, str]] = Counter()
    layers: dict[tuple[str, str], list[str]] = defaultdict(list)
    opsets: set[tuple[str, int]] = set()
    for file in sorted((folder / "layers").glob("*.onnx")):
        model = onnx.load(file)
        opsets |= {(opset.domain or "ai.onnx", opset.version) for opset in model.opset_import}
        for name, count in Counter((n.domain or "ai.onnx", n.op_type) for n in model.graph.node).items():
            counts[name] += count
            layers[name].append(file.stem)
    print("opsets: " + ", ".join(f"{domain} {version}" for domain, version in sorted(opsets)))
    for domain, operator in sorted(counts):
        of_layers = layers[domain, operator]
        shown = f"{of_layers[0]}-{of_layers[-1]}"
        print(f"{domain:<14}{operator:<22}{counts[domain, operator]:>4}  layers {shown}")


main(Path(sys.argv[1]))
