"""`python -m train_jobs.build_extensions`: compile DeepSpeed's CPU communication once, at install.

DeepSpeed compiles `deepspeed_shm_comm` at the first run on CPU with gloo (a minute on two cores),
into a cache under HOME. Built into the environment instead, it is found whatever HOME is.
Needs g++ and ninja; without them training says so and `train.engine: torch` works.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

from mutirao.core.errors import EnvironmentProblem


def extensions_dir() -> Path:
    return Path(sys.prefix) / "torch_extensions"


def use_built_extensions() -> None:
    """Point torch at the environment's extensions where they were built; a value that the person
    set stays. The environment's own ninja is put within reach: torch asks for it even to load."""
    if extensions_dir().is_dir():
        os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(extensions_dir()))
    if shutil.which("ninja") is None:
        os.environ["PATH"] = (
            f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        )


def build() -> float:
    """Returns the seconds it took. Raises EnvironmentProblem without a compiler."""
    if shutil.which("g++") is None and shutil.which("c++") is None:
        raise EnvironmentProblem(
            "No C++ compiler",
            "g++",
            "Install g++ (Debian: apt-get install g++), or train with train.engine: torch.",
            "no-compiler",
        )
    extensions_dir().mkdir(parents=True, exist_ok=True)
    os.environ["TORCH_EXTENSIONS_DIR"] = str(extensions_dir())
    use_built_extensions()
    from train_jobs.engine import import_deepspeed

    import_deepspeed()
    from deepspeed.ops.op_builder.cpu.comm import ShareMemCommBuilder

    started = time.monotonic()
    ShareMemCommBuilder().load(verbose=False)
    return time.monotonic() - started


def main() -> int:
    import torch

    if sys.platform != "linux" or torch.cuda.is_available():
        print("Nothing to build: DeepSpeed talks over shared memory on Linux CPUs only.")
        return 0
    try:
        print(f"deepspeed_shm_comm ready in {extensions_dir()} ({build():.1f} s)")
    except EnvironmentProblem as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
