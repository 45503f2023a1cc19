"""Masks resolved values in log records, in each spelling that logs are likely to have.

A value is masked as plain text, in base64 (also inside of a longer encoded text), URL-encoded and
JSON-escaped. Of a value with several lines, each line is masked too. A value of less than four
characters is not masked: that would garble every line.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote, quote_plus

from mlauth.forks import lock

MASK = "***"
_SHORTEST = 4
# The characters that URL encoders do not encode. First line: Python, HTML forms, and JavaScript's
# two functions (requests and urllib3 encode whole URLs like them). Second line: httpx, for a
# password, in a query, and in a path.
_SAFE = (
    *("", "/", "*", "!'()*", "!'()*;,/?:@&=+$#"),
    *("!$&'()*+,", "!$&'()*+,/:;=?@[\\]^`{|}", "!$&'()*+,/:;=@[\\]^|"),
)

_lock = lock()
_values: set[str] = set()
_spellings: list[str] = []
# The lines of values with many lines, by their first characters and their length. A search for
# 60,000 lines one by one would cost 7 ms for each log record.
_MANY = 100
_lines: dict[str, dict[int, set[str]]] = {}


def register(values: Iterable[str]) -> None:
    """Mask these values in what is logged from now on in this process; see `guard_logging`.

    Args:
        values: the secrets; those under four characters are left out.
    """
    new = _learn(values)
    del values  # a traceback from somebody's handler below may show the local variables
    if new:
        guard_logging()


def _learn(values: Iterable[str]) -> bool:
    """Keep the values that are new, and say if any is."""
    global _spellings  # noqa: PLW0603 - like logging, this belongs to the whole process
    with _lock:
        new = {value for value in values if len(value) >= _SHORTEST} - _values
        if not new:
            return False
        _values.update(new)
        # No regular expression: compiling one takes 12 s for a value of 1 MiB.
        every = {each for value in new for each in spellings(value)}
        for value in new:
            found = {line.strip() for line in value.splitlines()}
            found = {line for line in found if len(line) >= _SHORTEST}
            if len(found) <= _MANY:
                every |= found
                continue
            for line in found:
                _lines.setdefault(line[:_SHORTEST], {}).setdefault(len(line), set()).add(line)
        _spellings = list({*_spellings, *every})
    return True


def mask(text: str) -> str:
    """Return the text with every registered value replaced by `***`."""
    found: list[tuple[int, int]] = []
    for spelling in _spellings:
        start = text.find(spelling) if spelling in text else -1  # `in` is three times as fast
        while start >= 0:
            found.append((start, start + len(spelling)))
            start = text.find(spelling, start + 1)
    if _lines:
        found += _places_of_lines(text)
    if not found:
        return text
    masked, end = [], 0
    for start, stop in sorted(found):
        if start >= end:  # otherwise it overlaps the one before, and one mask covers both
            masked += [text[end:start], MASK]
        end = max(end, stop)
    return "".join([*masked, text[end:]])


def _places_of_lines(text: str) -> Iterator[tuple[int, int]]:
    """Find registered lines. The time does not depend on how many lines there are."""
    lines_that_start_with = _lines.get
    for start in range(len(text) - _SHORTEST + 1):
        lengths = lines_that_start_with(text[start : start + _SHORTEST])
        if lengths:
            for length, lines in list(lengths.items()):  # another thread may add to them
                if text[start : start + length] in lines:
                    yield start, start + length


def spellings(value: str) -> set[str]:
    """Return the spellings of a value that are masked; see the module's docstring."""
    data = value.encode("utf-8", "surrogatepass")
    found = {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    # `repr` chooses the quotes, and so the escapes, by the quotes in the text: the added one makes
    # it choose the other kind. The same is done for bytes.
    for spell in (repr, ascii):
        found |= {spell(value)[1:-1], spell('"' + value)[2:-1]}
    found |= {repr(data)[2:-1], repr(b'"' + data)[3:-1]}
    in_urls = {encode(data, safe=safe) for safe in _SAFE for encode in (quote, quote_plus)}
    in_urls |= {each.replace("~", "%7E") for each in in_urls}  # as HTML forms have it
    found |= in_urls | {re.sub("%..", lambda code: code[0].lower(), each) for each in in_urls}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        # First the value alone, then as part of a longer text (`user:value`), at each of three
        # possible offsets. There, the neighbours change the first and last characters, so these are
        # left out.
        found.add(encode(data).decode().rstrip("="))
        for shift in range(3):
            encoded = encode(b"\0" * shift + data).decode().rstrip("=")
            inner = encoded[(0, 2, 3)[shift] : (len(data) + shift) * 8 // 6]
            if len(inner) >= 8:
                found.add(inner)
    return {spelling for spelling in found if len(spelling) >= _SHORTEST}


class MaskingFormatter(logging.Formatter):
    """Formats as another formatter does, then masks message, arguments and traceback."""

    def __init__(self, inner: logging.Formatter | None) -> None:
        super().__init__()
        self.inner = inner if inner is not None else logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        return mask(self.inner.format(record))


def guard_logging() -> None:
    """Mask everything that this process logs from now on. Calling it again is harmless.

    Records are masked when they are made, so a handler that a library adds later gets masked
    records too. The handlers that exist now mask again after formatting, because formatters add
    the locals of a traceback and the fields of `extra`.
    """
    make_record = logging.getLogRecordFactory()
    if not isinstance(make_record, _MaskingFactory):
        logging.setLogRecordFactory(_MaskingFactory(make_record))
    for handler in _handlers():
        if not isinstance(handler.formatter, MaskingFormatter):
            handler.setFormatter(MaskingFormatter(handler.formatter))
        if getattr(handler, "tracebacks_show_locals", False):
            # The handler of rich shows local variables without asking its formatter.
            handler.tracebacks_show_locals = False  # type: ignore[attr-defined]


def guard_output() -> None:
    """Mask everything that this process writes to its output. Calling it again is harmless.

    The output of other programs is not masked, and neither is a value that is written in pieces.
    """
    streams: list[Any] = [sys.stdout, sys.stderr]
    for stream in streams:
        for each in (getattr(stream, "buffer", None), stream):
            # Some libraries replace `write` too, to store the output, and bypass log records. Our
            # `write` wraps theirs, so that they get masked text.
            if each is not None and not isinstance(each.write, _MaskedWrite):
                with suppress(AttributeError):  # somebody's stream may allow no change
                    each.write = _MaskedWrite(each.write)


class _MaskedWrite:
    def __init__(self, inner: Callable[[Any], Any]) -> None:
        self._inner = inner

    def __call__(self, content: Any) -> Any:
        if isinstance(content, str):
            masked: str | bytes = mask(content)
        else:
            content = memoryview(content).tobytes()  # `bytes(5)` would make five zero bytes
            # Bytes that are no text are written unchanged.
            text = mask(content.decode("utf-8", "surrogateescape"))
            masked = text.encode("utf-8", "surrogateescape")
        written = self._inner(masked)
        return written if masked == content else len(content)


class _MaskingFactory:
    def __init__(self, inner: Callable[..., logging.LogRecord]) -> None:
        self._inner = inner

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self._inner(*args, **kwargs)
        if not _spellings:
            return record
        try:
            message = record.getMessage()
        except Exception:  # the arguments are wrong; the handler will report that
            with suppress(Exception):
                record.msg = mask(str(record.msg))
                shown = record.args if isinstance(record.args, tuple) else (record.args,)
                record.args = tuple(_Shown(mask(repr(each))) for each in shown)
            return record
        masked = mask(message)
        if masked != message:
            record.msg, record.args = masked, ()
        if record.exc_info and record.exc_info[1] is not None:
            text = logging.Formatter().formatException(record.exc_info)
            masked = mask(text)
            if masked != text:
                # Formatters print `exc_text`. Some would format `exc_info` again, with the values
                # that it holds, so it goes.
                record.exc_info, record.exc_text = None, masked
        return record


class _Shown:
    """Stands for a wrong argument of a log call, which `logging` prints with `repr`."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _handlers() -> set[logging.Handler]:
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    return {
        handler
        for logger in loggers
        if isinstance(logger, logging.Logger)
        for handler in logger.handlers
    }
