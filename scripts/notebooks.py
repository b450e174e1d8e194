"""The notebooks in examples/: `python -m scripts.notebooks` runs them and stores what they show.

Cells run in one process and one folder, as in Jupyter, but without it: what is printed, the value
of a last expression and each open figure of pyplot are a cell's outputs.
"""

import ast
import base64
import contextlib
import glob
import io
import json
import os
import sys
import tempfile
from typing import Any, Dict, List

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LONGEST = 150000  # bytes of a notebook with its outputs


def paths() -> List[str]:
    return sorted(glob.glob(os.path.join(ROOT, "examples", "*.ipynb")))


def read(path: str) -> Dict[str, Any]:
    with open(path, encoding="utf-8") as file:
        notebook: Dict[str, Any] = json.load(file)
    return notebook


def run(notebook: Dict[str, Any]) -> None:
    """Run the code cells in order, in the current folder, and put their outputs into them."""
    import matplotlib
    matplotlib.use("Agg")
    names: Dict[str, Any] = {"__name__": "__main__"}
    count = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            count += 1
            cell["execution_count"] = count
            cell["outputs"] = _outputs("".join(cell["source"]), names, count)


def _outputs(source: str, names: Dict[str, Any], count: int) -> List[Dict[str, Any]]:
    from matplotlib import pyplot
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, f"cell {count}", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), f"cell {count}", "eval"), names)
    outputs: List[Dict[str, Any]] = []
    if printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout",
                        "text": printed.getvalue().splitlines(True)})
    if value is not None:
        outputs.append({"output_type": "execute_result", "execution_count": count, "metadata": {},
                        "data": {"text/plain": repr(value).splitlines(True)}})
    for number in pyplot.get_fignums():
        picture = io.BytesIO()
        pyplot.figure(number).savefig(picture, dpi=70, metadata={"Software": None})
        pyplot.close(number)
        outputs.append({"output_type": "display_data", "metadata": {},
                        "data": {"image/png": base64.b64encode(picture.getvalue()).decode("ascii"),
                                 "text/plain": ["<a figure>"]}})
    return outputs


def main() -> None:
    for path in paths():
        notebook = read(path)
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            run(notebook)
            os.chdir(ROOT)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(notebook, file, indent=1, ensure_ascii=False)
            file.write("\n")
        print(f"saved: {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
