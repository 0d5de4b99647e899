"""A change of one threshold on a finished corpus, against the full data run that made it.

    python benchmarks/threshold_change.py FILES... --language por

Runs the data stages up to `filter` on the files (without Ray, in this process, after a warm-up on
one small document so that imports and kernels count for neither), then the same recipe with one
threshold changed, then with another licence policy, and with the language pack's genre changed.
The rerun judges again from stored values. Prints CPU-seconds, wall and ratios as one JSON object;
the aim is under 5 % of the full run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from mutirao.core.manifest import MANIFEST, Manifest, read_manifest
from mutirao.core.progress import Progress
from mutirao.core.recipe import Filter, Recipe, Source
from mutirao.core.recipe_file import LoadedRecipe
from mutirao.core.workdir import Workdir
from mutirao.run.execute import Options, execute
from mutirao.run.show import manifests

CHANGES = {
    "threshold": Filter(thresholds={"max_top_bigram": 0.2}),
    "licenses": Filter(allowed_licenses=("CC-BY-4.0",)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+")
    parser.add_argument("--language", default="por")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workdir = Workdir(Path(folder) / "work")
        small = Path(folder) / "small.txt"
        small.write_text("Muitas mãos levantam uma casa num só dia. " * 30, encoding="utf-8")
        run(Workdir(Path(folder) / "warm"), options.language, [str(small)], Filter())
        result = {"full": run(workdir, options.language, options.files, Filter())}
        for name, change in CHANGES.items():
            found = run(workdir, options.language, options.files, change)
            for value in ("cpu_s", "wall_s", "units_cpu_s"):
                ratio = found[value] / result["full"][value]
                found[f"{value.removesuffix('_s')}_ratio"] = round(ratio, 4)
            result[name] = found
    print(json.dumps(result, indent=1))


def run(workdir: Workdir, language: str, files: list[str], config: Filter) -> dict:
    """CPU-seconds, wall and what the filter dropped."""
    sources = tuple(Source(path=str(Path(file).absolute())) for file in files)
    recipe = Recipe(name="change", language=language, sources=sources, filter=config)
    loaded = LoadedRecipe(recipe, "", "benchmark", Path.cwd())
    before = committed(workdir)
    cpu, wall = time.process_time(), time.monotonic()
    found = execute(loaded, workdir, Options(until="filter", use_ray=False), Progress(quiet=True))
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    counts = manifests(workdir, found)["filter"].counts
    made = [manifest for path, manifest in committed(workdir).items() if path not in before]
    return {
        "cpu_s": round(cpu, 2),
        "wall_s": round(wall, 2),
        "units_cpu_s": round(sum(m.provenance["notes"].get("cpu_s", 0) for m in made), 3),
        "documents": counts["documents_in"],
        "dropped": counts["dropped"],
    }


def committed(workdir: Workdir) -> dict[Path, Manifest]:
    found = {
        path.parent: read_manifest(path.parent) for path in workdir.store.glob(f"*/*/{MANIFEST}")
    }
    return {path: manifest for path, manifest in found.items() if manifest}


if __name__ == "__main__":
    main()
