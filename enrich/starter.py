"""The starter job that `init` writes: a configuration and rows that run at once on the sandbox."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from enrich.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """\
# A first job. Run it with: beatra-enrich run config.yaml
input: reviews.csv
output: out/reviews.parquet

endpoint:
  base_url: sandbox        # the built-in emulator; remove this line to ask Beatra (key: BEATRA_API_KEY)

steps:
  - name: sentiment        # the output columns begin with this name
    system: You are a concise analyst.
    prompt: |
      Classify this review of {{ product }}:
      {{ review }}
    model: auto
    temperature: 0
    max_tokens: 64
    schema:                # one typed column per property: sentiment_label, sentiment_score
      type: object
      properties:
        label: {enum: [pos, neg, neutral]}
        score: {type: number, minimum: 0, maximum: 1}
      required: [label, score]

limits:
  concurrency: 16          # the most requests in flight
  requests_per_minute: 6000

tolerate: 0                # failed rows (a count, or a share such as 1%) that still count as success
"""

REVIEWS = [
    ("product", "stars", "review"),
    ("kettle", "5", "Boils in two minutes and is quiet about it."),
    ("kettle", "2", 'The lid broke after a week.\nThe shop said "bad luck".'),
    ("lamp", "4", "Warm light, a little wobbly on its foot."),
    ("lamp", "1", "Arrived with a plug for another country."),
    ("chair", "3", "Comfortable, but the colour is not the one in the picture."),
    ("chair", "5", "Très confortable, je recommande."),
    ("desk", "4", "Solid. Took me an hour to put together."),
    ("desk", "2", "The drawer sticks, and the handle came off."),
]


def write_starter(directory: Path) -> list[Path]:
    """Write the starter job into a directory; gives the files it made.

    Raises:
        OutputError: a file of that name is there already, or the directory cannot be written.
    """
    rows = io.StringIO()
    csv.writer(rows).writerows(REVIEWS)
    files = {directory / "config.yaml": CONFIG, directory / "reviews.csv": rows.getvalue()}
    try:
        for path in files:
            if path.exists():
                raise OutputError(
                    f"{path} is there already", hint="name another directory: beatra-enrich init DIR"
                )
        directory.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise OutputError(f"{directory} cannot be written: {error.strerror}") from None
    return list(files)
