"""Values that were resolved are masked in log records, in the spellings that logs have them in.

Masked are values of four characters or more (shorter ones would garble every line): plain,
base64 (also inside of a longer encoded text), URL-encoded and JSON-escaped; and of a value in
several lines each line.
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
# The characters that encoders of URLs leave as they are: Python's, HTML forms', JavaScript's two
# (as requests and urllib3 in a whole URL); httpx's for a password, in a query and in a path.
_SAFE = (
    *("", "/", "*", "!'()*", "!'()*;,/?:@&=+$#"),
    *("!$&'()*+,", "!$&'()*+,/:;=?@[\\]^`{|}", "!$&'()*+,/:;=@[\\]^|"),
)

_lock = lock()
_values: set[str] = set()
_spellings: list[str] = []
# The lines of values that have many, by their first characters and their length: 60,000 that are
# looked for one by one cost 7 ms for each log record.
_MANY = 100
_lines: dict[str, dict[int, set[str]]] = {}


def register(values: Iterable[str]) -> None:
    """Mask these values in what is logged from now on in this process; see `guard_logging`.

    Args:
        values: the secrets; those under four characters are left out.
    """
    new = _learn(values)
    del values  # what others' handlers raise below may show the local variables of this
    if new:
        guard_logging()


def _learn(values: Iterable[str]) -> bool:
    """Keep the values that are new, and say if any is."""
    global _spellings  # noqa: PLW0603 - logging is one for the process, and so is this
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
        if start >= end:  # else it overlaps the one before, and one mask is for both
            masked += [text[end:start], MASK]
        end = max(end, stop)
    return "".join([*masked, text[end:]])


def _places_of_lines(text: str) -> Iterator[tuple[int, int]]:
    """Look for lines once at each character, however many there are."""
    lines_that_start_with = _lines.get
    for start in range(len(text) - _SHORTEST + 1):
        lengths = lines_that_start_with(text[start : start + _SHORTEST])
        if lengths:
            for length, lines in list(lengths.items()):  # another thread may add to them
                if text[start : start + length] in lines:
                    yield start, start + length


def spellings(value: str) -> set[str]:
    """Return the spellings in which a value is looked for: see the module's description."""
    data = value.encode("utf-8", "surrogatepass")
    found = {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    # In single quotes too, as `repr` of a text that has both kinds; and of bytes.
    for spell in (repr, ascii):
        found |= {spell(value)[1:-1], spell('"' + value)[2:-1]}
    found |= {repr(data)[2:-1], repr(b'"' + data)[3:-1]}
    in_urls = {encode(data, safe=safe) for safe in _SAFE for encode in (quote, quote_plus)}
    in_urls |= {each.replace("~", "%7E") for each in in_urls}  # as HTML forms have it
    found |= in_urls | {re.sub("%..", lambda code: code[0].lower(), each) for each in in_urls}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        # With padding for the value alone; and what is the same in the encoding of a longer
        # text (`user:value`), whose neighbours decide the first and the last characters.
        found.add(encode(data).decode().rstrip("="))
        for shift in range(3):
            encoded = encode(b"\0" * shift + data).decode().rstrip("=")
            inner = encoded[(0, 2, 3)[shift] : (len(data) + shift) * 8 // 6]
            if len(inner) >= 8:
                found.add(inner)
    return {spelling for spelling in found if len(spelling) >= _SHORTEST}


class MaskingFormatter(logging.Formatter):
    """Formats as another formatter does, then masks: messages, arguments and tracebacks alike."""

    def __init__(self, inner: logging.Formatter | None) -> None:
        super().__init__()
        self.inner = inner if inner is not None else logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        return mask(self.inner.format(record))


def guard_logging() -> None:
    """Mask what is logged in this process from now on. Calling it again is harmless.

    Records are masked when they are made, whatever handler somebody adds later (some libraries
    do, on import); the handlers that exist mask once more what their formatters add, such as the
    locals of a traceback, and the fields of `extra`.
    """
    make_record = logging.getLogRecordFactory()
    if not isinstance(make_record, _MaskingFactory):
        logging.setLogRecordFactory(_MaskingFactory(make_record))
    for handler in _handlers():
        if not isinstance(handler.formatter, MaskingFormatter):
            handler.setFormatter(MaskingFormatter(handler.formatter))
        if getattr(handler, "tracebacks_show_locals", False):
            # rich's handler shows them past its formatter.
            handler.tracebacks_show_locals = False  # type: ignore[attr-defined]


def guard_output() -> None:
    """Mask what this process writes to its output, as text and as bytes; again is harmless.

    What other programs write there is not masked, nor what is written in pieces.
    """
    streams: list[Any] = [sys.stdout, sys.stderr]
    for stream in streams:
        for each in (getattr(stream, "buffer", None), stream):
            # Some libraries replace `write` too, to store what is printed. They make no log record
            # in the usual way of it, so ours has to come before.
            if each is not None and not isinstance(each.write, _MaskedWrite):
                with suppress(AttributeError):  # a stream of somebody's that allows no change
                    each.write = _MaskedWrite(each.write)


class _MaskedWrite:
    def __init__(self, inner: Callable[[Any], Any]) -> None:
        self._inner = inner

    def __call__(self, content: Any) -> Any:
        if isinstance(content, str):
            masked: str | bytes = mask(content)
        else:
            content = memoryview(content).tobytes()  # `bytes` would take a number for a length
            # Bytes that are no text come out of this as they were.
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
        except Exception:  # wrong arguments: the handler reports them, as without us
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
                # Formatters print this text; some format the exception anew, if it is there, with
                # what it and its causes hold.
                record.exc_info, record.exc_text = None, masked
        return record


class _Shown:
    """Stands for an argument that no format takes, where `logging` prints the arguments."""

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
