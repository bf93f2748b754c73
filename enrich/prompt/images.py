"""The pictures of a step: which ones a row names, and how they stand in a request's body.

A body as it is kept, hashed and keyed holds a picture's mark, which says what its bytes are; the bytes take the mark's
place on the way out.
"""

from __future__ import annotations

import base64
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enrich.base.location import is_url
from enrich.base.moments import Unreadable
from enrich.files.pictures import PictureError, content, look
from enrich.prompt.cells import Withheld, is_null
from enrich.prompt.template import Expression, RowError, Template, compile_value, is_template
from enrich.prompt.variables import as_row_value
from enrich.records import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from enrich.config import StepConfig
    from enrich.records import Picture

PDF = "application/pdf"
MOST_IMAGES = 256  # of one request


@frozen
class Named:
    """A picture that a row names, before it is looked at.

    Attributes:
        where: its place in the configuration, for messages.
        source: its path or URL, or its bytes.
    """

    where: str
    source: str | bytes


class Images:
    """Finds the pictures of a step's rows.

    Attributes:
        templates: that name them.
        columns: the columns whose values those need.
    """

    def __init__(self, step: StepConfig, where: str) -> None:
        self._folder = step.images_folder or Path.cwd()
        self._most = step.images_max_bytes
        self._may_lack = step.on_null == "render"
        self.templates: tuple[Template | Expression, ...] = tuple(
            compile_value(entry if is_template(entry) else as_row_value(entry), f"{where}.images.{number}")
            for number, entry in enumerate(step.images)
        )
        self.columns = frozenset[str]().union(*(t.variables for t in self.templates))

    def named(self, values: Mapping[str, Any]) -> tuple[Named, ...]:
        """Say which pictures a row names.

        Raises:
            RowError: it lacks one, unless `on_null` is `render`, or names it by what names nothing.
        """
        found = tuple(
            Named(t.where, source) for t in self.templates for source in self._sources(t, _value(t, values))
        )
        if len(found) > MOST_IMAGES:
            raise RowError("template_error", f"a row names {len(found):,} pictures; {MOST_IMAGES} may go")
        return found

    def look(self, named: Sequence[Named]) -> tuple[Picture, ...]:
        """Look at pictures: what they are, by their bytes.

        Raises:
            RowError: one cannot be had, is too large, or is none.
        """
        return tuple(self._look(one) for one in named)

    def _look(self, named: Named) -> Picture:
        try:
            return look(named.source, self._most)
        except PictureError as error:
            raise RowError(error.code, f"{named.where}: {error.message}") from None

    def _sources(self, template: Template | Expression, value: Any) -> Iterator[str | bytes]:
        if isinstance(value, Withheld):
            value = value.value()
        if isinstance(value, list | tuple):
            for one in value:
                yield from self._sources(template, one)
        elif isinstance(value, bytes | bytearray | memoryview):
            yield bytes(value)
        elif is_null(value) or (isinstance(value, str) and not value.strip()):
            if not self._may_lack:
                raise RowError("null_value", f"{template.where}: the row names no picture")
        elif isinstance(value, str):
            yield self._place(str(value).strip())
        elif isinstance(value, dict) and (
            "bytes" in value or "path" in value
        ):  # as data sets of pictures have them
            found = value.get("bytes")
            yield from self._sources(template, value.get("path") if found is None else found)
        else:
            kind = value.reason if isinstance(value, Unreadable) else f"is {type(value).__name__}"
            raise RowError(
                "template_error", f"{template.where}: a value {kind}; a picture is a path, a URL or bytes"
            )

    def _place(self, text: str) -> str:
        if is_url(text) or text[:5].lower() == "data:":
            return text
        return os.path.join(self._folder, os.path.expanduser(text))  # noqa: PTH111, PTH118  # where there is no such user, a name as any other


def _value(template: Template | Expression, values: Mapping[str, Any]) -> Any:
    return template.found(values) if isinstance(template, Expression) else template.render(values)


def parts(text: str, pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    """Write a message's content with pictures in it, as content parts; each by its mark."""
    return [{"type": "text", "text": text}, *map(_part, pictures)]


def _part(picture: Picture) -> dict[str, Any]:
    if picture.kind == PDF:
        return {"type": "file", "file": {"filename": "document.pdf", "file_data": picture.mark}}
    return {"type": "image_url", "image_url": {"url": picture.mark}}


def whole_body(body: bytes, pictures: Sequence[Picture]) -> bytes:
    """Put the pictures' bytes, as data URLs, into a body in the place of their marks.

    Raises:
        PictureError: one cannot be had any more, or is another one by now.
    """
    for picture in dict.fromkeys(replace(picture, source="") for picture in pictures):
        source = next(one for one in pictures if one.digest == picture.digest)
        url = b'"data:%b;base64,%b"' % (picture.kind.encode(), base64.b64encode(content(source)))
        body = body.replace(b'"%b"' % picture.mark.encode(), url)
    return body
