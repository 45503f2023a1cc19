"""Values that were resolved are masked in log records, in the spellings that logs have them in.

Masked are values of four characters or more (shorter ones would garble every line): plain,
base64 (also inside of a longer encoded text), URL-encoded and JSON-escaped.
"""

from __future__ import annotations

import base64
import json
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "***"
_SHORTEST = 4

_lock = threading.Lock()
_values: set[str] = set()
_spellings: list[str] = []  # the longest first: of two that start alike, none leaves its end


def register(values: Iterable[str]) -> None:
    """Mask these values in what is logged from now on in this process; see `guard_logging`.

    Args:
        values: the secrets; those under four characters are left out.
    """
    global _spellings  # noqa: PLW0603 - logging is one for the process, and so is this
    with _lock:
        new = {value for value in values if len(value) >= _SHORTEST} - _values
        if not new:
            return
        _values.update(new)
        every = {*_spellings, *(spelling for value in new for spelling in spellings(value))}
        # No regular expression: compiling one takes 12 s for a value of 1 MiB.
        _spellings = sorted(every, key=len, reverse=True)
    guard_logging()


def mask(text: str) -> str:
    """Return the text with every registered value replaced by `***`."""
    for spelling in _spellings:
        if spelling in text:
            text = text.replace(spelling, MASK)
    return text


def spellings(value: str) -> set[str]:
    """Return the spellings in which a value is looked for: see the module's description."""
    data = value.encode("utf-8", "surrogatepass")
    found = {value, quote(data, safe=""), quote(data), quote_plus(data)}
    found |= {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    found |= {repr(value)[1:-1]}
    # Lines of a key in several lines are logged one by one.
    found |= {line.strip() for line in value.splitlines() if len(line.strip()) >= 16}
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

    Records are masked when they are made, whatever handler somebody adds later (ZenML does, on
    import); the handlers that exist mask once more what their formatters add, such as the
    locals of a traceback.
    """
    make_record = logging.getLogRecordFactory()
    if not isinstance(make_record, _MaskingFactory):
        logging.setLogRecordFactory(_MaskingFactory(make_record))
    for handler in _handlers():
        if not isinstance(handler.formatter, MaskingFormatter):
            handler.setFormatter(MaskingFormatter(handler.formatter))


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
            return record
        masked = mask(message)
        if masked != message:
            record.msg, record.args = masked, ()
        if record.exc_info and record.exc_info[1] is not None:
            text = logging.Formatter().formatException(record.exc_info)
            masked = mask(text)
            if masked != text:
                # Formatters print this text; some (ZenML's) format the exception anew, if it is
                # there, with what it and its causes hold.
                record.exc_info, record.exc_text = None, masked
        return record


def _handlers() -> set[logging.Handler]:
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    return {
        handler
        for logger in loggers
        if isinstance(logger, logging.Logger)
        for handler in logger.handlers
    }
