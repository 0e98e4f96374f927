"""List the operators of a bundle's layers: domain, operator, how often, and in which layers."""

import sys
from collections import Counter, defaultdict
from pathlib import Path

import onnx


def main(folder: Path) -> None:
    """Print the operators of all layers below ``folder``."""
    counts: Counter[tuple[str, str]] = Counter()
    layers: dict[tuple[str, str], list[str]] = defaultdict(list)
    opsets: set[tuple[str, int]] = set()
    for file in sorted((folder / "layers").glob("*.onnx")):
        model = onnx.load(file)
        opsets |= {(opset.domain or "ai.onnx", opset.version) for opset in model.opset_import}
        nodes = Counter((node.domain or "ai.onnx", node.op_type) for node in model.graph.node)
        counts += nodes
        for operator in nodes:
            layers[operator].append(file.stem)
    print("opsets: " + ", ".join(f"{domain} {version}" for domain, version in sorted(opsets)))
    for domain, name in sorted(counts):
        files = layers[domain, name]
        print(f"{domain:<14}{name:<22}{counts[domain, name]:>4}  layers {files[0]}-{files[-1]}")


main(Path(sys.argv[1]))
