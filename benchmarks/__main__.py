"""Run benchmarks: `python -m benchmarks [NAME ...] [--threads N] [--update]`; --update rewrites docs/benchmarks.md."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import re
from pathlib import Path

import torch

from bitwright.kernels import keep_freed_memory
from bitwright.report.search_report import machine

from . import __path__ as here

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
NAMES = [
    m.name for m in pkgutil.iter_modules(here) if m.name not in ("__main__", "timing", "supernet", "plain_torch", "vgg")
]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(NAMES)}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--update", action="store_true", help="write the tables into docs/benchmarks.md")
    options = parser.parse_args()
    for name in options.names:
        if name not in NAMES:
            parser.error(f"no benchmark {name!r}: {', '.join(NAMES)}")
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    for name in options.names or NAMES:
        module = importlib.import_module(f"{__package__}.{name}")
        title, _, text = (module.__doc__ or "").strip().partition("\n")
        where = machine(torch.device("cpu"))
        command = f"`python -m benchmarks {name} --threads {options.threads}`"
        section = f"## {title.rstrip('.')}\n\n{text.strip()}\n\n{module.run()}\n\n{command} on {where}.\n"
        print(section, flush=True)
        if options.update:
            _replace(f"{name}, threads {options.threads}", section)


def _replace(key: str, section: str) -> None:
    start, end = f"<!-- {key} -->\n", f"<!-- end of {key} -->\n"
    page = PAGE.read_text(encoding="utf-8")
    block = f"{start}{section}{end}"
    if start in page:
        page = re.sub(f"{re.escape(start)}.*?{re.escape(end)}", lambda _: block, page, flags=re.DOTALL)
    else:
        page = f"{page.rstrip()}\n\n{block}"
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
