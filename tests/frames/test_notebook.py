"""The examples that a user runs, and the accessor in a real Jupyter kernel."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import nbformat
    from nbclient import NotebookClient

    from tests.helpers.endpoint import BookedEndpoint

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, our_endpoint: None) -> None:
    """Kernels and scripts meet an endpoint that keeps books and an empty cache directory."""
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")


def results(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """Give what each cell shows as its result; progress and warnings left out."""
    return [
        [o.data["text/plain"] for o in cell.outputs if o.output_type == "execute_result"]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.slow
def test_the_example_notebook_gives_what_it_shows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Executed again, every cell has the result that is stored in it."""
    import nbformat

    monkeypatch.delenv("BEATRA_API_KEY")
    shown = nbformat.read(EXAMPLES / "notebook.ipynb", 4)  # type: ignore[no-untyped-call]  # theirs
    again = nbformat.read(EXAMPLES / "notebook.ipynb", 4)  # type: ignore[no-untyped-call]  # theirs
    client(again).execute(cwd=str(tmp_path))
    assert results(again) == results(shown)


def client(notebook: nbformat.NotebookNode) -> NotebookClient:
    """Give the client that executes a notebook in a kernel of its own."""
    from nbclient import NotebookClient

    return NotebookClient(notebook, timeout=60, kernel_name="python3", store_widget_state=False)


ASK = 'out = df.beatra.complete("{{ t }}", concurrency=8)'
CELLS = (
    'import pandas as pd, enrich.pandas; df = pd.DataFrame({"t": [f"text {n}" for n in range(500)]})',
    ASK,  # interrupted
    ASK,
    'out.attrs["beatra"]["ok"]',
    '(await df.beatra.acomplete("{{ t }}"))["answer_source"].unique().tolist()',
    'df.beatra.complete("{{ t }}", progress=False).shape',
)


@pytest.mark.slow
async def test_a_kernel_can_be_interrupted_and_the_cell_run_again(endpoint: BookedEndpoint) -> None:
    """Progress is drawn below the cell; an interrupt drains; the same cell goes on; no body is charged twice."""
    from nbclient.exceptions import CellExecutionError
    from nbformat.v4 import new_code_cell, new_notebook

    notebook = new_notebook(cells=[new_code_cell(source) for source in CELLS])  # type: ignore[no-untyped-call]  # theirs
    jupyter = client(notebook)
    async with jupyter.async_setup_kernel(env={**os.environ}):
        cells: list[Any] = notebook.cells
        await jupyter.async_execute_cell(cells[0], 0)
        asking = asyncio.create_task(jupyter.async_execute_cell(cells[1], 1))
        while len(endpoint.charges) < 100:  # noqa: ASYNC110  # the endpoint lives in another thread
            await asyncio.sleep(0.005)
        assert jupyter.km is not None
        await jupyter.km.interrupt_kernel()  # type: ignore[misc]  # a coroutine, whatever its stub says
        with pytest.raises(CellExecutionError, match="KeyboardInterrupt"):
            await asking
        paid = len(endpoint.charges)
        assert 100 <= paid < 500
        for number in range(2, len(cells)):
            await jupyter.async_execute_cell(cells[number], number)
    kinds = [[output.output_type for output in cell.outputs] for cell in cells]
    assert kinds[2] == ["display_data"]
    assert cells[2].outputs[0].data["text/html"].startswith('<progress value="500" max="500"')
    assert kinds[5] == ["execute_result"]  # quiet when told
    assert results(notebook)[3:] == [["500"], ["['ledger']"], ["(500, 15)"]]
    assert "stopping: nothing more is sent" in str(cells[1].outputs)
    assert set(endpoint.charges_per_body.values()) == {1}
    assert len(endpoint.posts) == 500


async def test_a_notebook_shows_what_is_meant_for_people(tmp_path: Path) -> None:
    """A mistake is two lines, not a page of our own code; the accessor says what it can, a plan is a table."""
    from nbformat.v4 import new_code_cell, new_notebook

    sources = (
        'import pandas as pd, enrich.pandas; df = pd.DataFrame({"text": ["a"]})',
        'df.beatra.complete("{{ txt }}")',
        "df.beatra",
        'df.beatra.complete("{{ text }}", modle="fast-1")',
        "df.beatra.run()",
        'df.beatra.plan("{{ text }}", sample=1)',
        'df.beatra.report("{{ text }}")',
    )
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])  # type: ignore[no-untyped-call]  # theirs
    jupyter = client(notebook)
    jupyter.allow_errors = True
    async with jupyter.async_setup_kernel(env={**os.environ}, cwd=str(tmp_path)):
        cells: list[Any] = notebook.cells
        for number, cell in enumerate(cells):
            await jupyter.async_execute_cell(cell, number)
    (told,) = cells[1].outputs
    assert told.traceback == [
        "TemplateError: steps.answer.prompt: no column `txt`",
        "Hint: did you mean `text`?",
    ]
    (shown,) = cells[2].outputs
    assert shown.data["text/plain"].startswith("<beatra of 1 × 1: acomplete, ")
    assert cells[3].outputs[0].traceback == [
        "UnknownArgument: complete() has no argument `modle`",
        "Hint: did you mean `model`?",
    ]
    assert cells[4].outputs[0].traceback == [
        "UnknownArgument: run(): missing a required argument: 'steps'",
        "Hint: help(df.beatra.run) tells its arguments.",
    ]
    (plan,) = [output for output in cells[5].outputs if output.output_type == "execute_result"]
    assert plan.data["text/plain"].startswith(
        "rows        1\nanswer      0 requests to ask, 1 in the ledger\n"
    )
    assert "credits" in plan.data["text/plain"]
    assert "report.html" in cells[6].outputs[0].data["text/plain"]
    assert (tmp_path / "report.html").exists()
