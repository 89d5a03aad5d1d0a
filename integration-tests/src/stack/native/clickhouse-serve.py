"""Serves ClickHouse's HTTP and native interfaces from the chdb engine until SIGTERM.

The listeners live exactly as long as the engine's first query, so that query
sleeps, and stopping gracefully means killing it: the engine then unwinds and
closes its tables as a server does. It runs beside the main thread because
Python hands signals to the main thread alone.
"""

import signal
import sys
import threading
import urllib.request

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

import chdb._chdb as engine  # noqa: E402  (its threads inherit the mask)

DATA, HTTP = sys.argv[1], sys.argv[2]
LISTEN = (
    "SYSTEM START LISTEN HTTP; SYSTEM START LISTEN TCP; "
    "SELECT sleepEachRow(1) FROM numbers(1000000000) FORMAT Null "
    "SETTINGS function_sleep_max_microseconds_per_block = 0, max_block_size = 1, "
    "log_comment = 'outpour-listeners'"
)
UNLISTEN = b"KILL QUERY WHERE Settings['log_comment'] = 'outpour-listeners'"


def serve():
    try:
        engine.query(LISTEN, "TabSeparated", path=DATA)
    except Exception as failure:
        if "QUERY_WAS_CANCELLED" not in str(failure):
            raise


server = threading.Thread(target=serve)
server.start()
while server.is_alive():
    server.join(0.2)
    # Not sigtimedwait: Python's returns as if the signal had come when SIGCONT
    # interrupts it after its time.
    if signal.SIGTERM in signal.sigpending():
        while server.is_alive():
            try:
                urllib.request.urlopen(HTTP, UNLISTEN, timeout=5).read()
            except OSError:
                pass  # not listening yet, or no more
            server.join(0.1)
