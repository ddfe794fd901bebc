"""Asks one address again and again until told to stop; prints one JSON object of what came back.

Runs in a pod: ``python steady.py URL MODEL STOP_FILE SECONDS_BETWEEN``. Standard library alone.
"""

import collections
import json
import pathlib
import sys
import threading
import time
import urllib.error
import urllib.request

URL, MODEL, STOP, GAP = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), float(sys.argv[4])
routes: collections.Counter[str] = collections.Counter()
models: collections.Counter[str] = collections.Counter()
failed: list[str] = []
slowest = 0.0
last = {"answered": 0.0, "failed": 0.0}


def ask(number: int) -> None:
    global slowest
    body = {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "Answer in a few words."},
            {"role": "user", "content": f"What is {number % 50} plus 8?"},
        ],
        "max_tokens": 4,
        "temperature": 0,
    }
    head = {"content-type": "application/json"}
    request = urllib.request.Request(f"{URL}/chat/completions", json.dumps(body).encode(), head)
    began = time.monotonic()
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            models[json.load(answer)["model"]] += 1
            routes[answer.headers["x-leanmodel-route"]] += 1
        last["answered"] = time.time()
    except urllib.error.HTTPError as error:
        last["failed"] = time.time()
        failed.append(f"{time.strftime('%T')} {error.code} {error.read(300)!r}")
    except (OSError, ValueError, KeyError) as error:
        last["failed"] = time.time()
        failed.append(f"{time.strftime('%T')} {type(error).__name__}: {error}")
    slowest = max(slowest, time.monotonic() - began)


number = 0
while not STOP.exists():
    threads = [threading.Thread(target=ask, args=(number + i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    number += 2
    time.sleep(GAP)
print(
    json.dumps(
        {
            "asked": number,
            "routes": routes,
            "models": models,
            "failed": failed,
            "slowest": round(slowest, 1),
            "last": last,
        }
    )
)
