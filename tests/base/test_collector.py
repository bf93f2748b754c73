from __future__ import annotations

import gc
import subprocess
import sys

from enrich.base.collector import keep_imports


def test_the_collector_is_tuned_for_a_process_of_one_job() -> None:
    """What was imported is left alone from then on, and young collections are rare; garbage still goes."""
    code = (
        "import gc, weakref; from enrich.base.collector import collect_seldom, keep_imports\n"
        "collect_seldom(); keep_imports()\n"
        "class Node: pass\n"
        "node = Node(); node.self = node; gone = weakref.ref(node); del node; gc.collect()\n"
        "print(gc.get_freeze_count() > 1_000, gc.get_threshold()[0] > 10_000, gone() is None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "True"]
    assert gc.get_freeze_count() == 0, f"{keep_imports.__name__} is for a process of its own"
