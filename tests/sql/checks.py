"""Runs checks: functions whose names are the sentences that they prove."""

import os
import signal
import sys
import time
import traceback

CHECK_S_MAX = 120


class Slow(BaseException):
    """A check took longer than CHECK_S_MAX; no `except Exception` of a driver holds it back."""


def late(*_):
    raise Slow(f"more than {CHECK_S_MAX} s")


def run(checks, known, words=()):
    """Runs `checks`, those only whose names hold one of `words` where there are any; prints a line each; gives the exit code.

    A name in `known` may fail: it is printed with its reason, and counts neither way. One that holds by now is said to.
    """
    unknown = set(known) - {check.__name__ for check in checks}
    if unknown:
        raise SystemExit(f"KNOWN names no check: {sorted(unknown)}")
    signal.signal(signal.SIGALRM, late)
    passed = failed = expected = 0
    for check in checks:
        name = check.__name__
        sentence = name.replace("_", " ")
        if words and not any(word in name for word in words):
            continue
        begun = time.monotonic()
        try:
            signal.alarm(CHECK_S_MAX)
            check()
        except (Exception, Slow) as error:
            signal.alarm(0)
            why = f"{type(error).__name__}: {error}".strip()
            if name in known:
                expected += 1
                print(f"KNOWN {sentence}: {known[name]}", flush=True)
            else:
                failed += 1
                print(f"FAIL  {sentence}\n      {why}", flush=True)
            if os.environ.get("TRACE"):
                traceback.print_exc(file=sys.stdout)
        else:
            passed += 1
            note = " (take it out of KNOWN)" if name in known else ""
            print(f"ok    {sentence}{note} {time.monotonic() - begun:.1f} s", flush=True)
        finally:
            signal.alarm(0)
    print(f"{passed} passed, {failed} failed" + (f", {expected} known to fail" if expected else ""))
    return 1 if failed or not passed else 0
