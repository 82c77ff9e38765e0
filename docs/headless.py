"""A browser without a window, for tests and measurements of the page `play`.

A small server on this machine serves a folder. A page of it asks the server for scripts, runs one
after the other and posts back what they return. That works in Chromium and in Firefox alike, and
needs nothing that drives them.
"""

import contextlib
import functools
import http.server
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
FOLLOW = """<script>
const server = "SERVER";
const post = (result) =>
  fetch(server + "result", { method: "POST", body: JSON.stringify(result) });
addEventListener("error", (event) => post({ error: event.message }));
addEventListener("load", async () => {
  const AsyncFunction = (async () => {}).constructor;
  for (;;) {
    const task = await (await fetch(server + "task")).json();
    try {
      const value = await new AsyncFunction("given", task.script)(task.given);
      await post({ value: value ?? null });
    } catch (error) {
      await post({ error: `${error}, ${error.stack}` });
    }
  }
});
</script>"""


class PageError(Exception):
    "The page in the browser failed, or did not answer in time."


def chromium():
    "The Chromium of this machine, or the one that CHROMIUM names; None without one."
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUMS)), None)


def firefox():
    "The Firefox of this machine, or None."
    return shutil.which("firefox") or shutil.which("firefox-esr")


def browsers():
    "The browsers of this machine, {name: command line}; it wants a profile's folder and an address."
    found, profile = {}, "--user-data-dir={profile}"
    if chromium():
        found["chromium"] = [chromium(), "--headless", *FLAGS, profile, "{address}"]
    if firefox():
        found["firefox"] = [firefox(), "--headless", "--profile", "{profile}", "{address}"]
    return found


class _Handler(http.server.SimpleHTTPRequestHandler):
    "Serves a folder, hands out scripts, and takes their results."

    def do_GET(self):
        if self.path != "/task":
            super().do_GET()
            return
        body = json.dumps(self.server.tasks.get()).encode()
        with contextlib.suppress(ConnectionError):  # the browser has gone
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

    def end_headers(self):
        self.send_header("Access-Control-Allow-Origin", "*")  # also for a page opened as a file
        super().end_headers()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
        self.server.results.put(json.loads(body))

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    "A folder on a port of this machine that is free; a context manager."

    daemon_threads = True

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))
        self.tasks, self.results = queue.Queue(), queue.Queue()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.tasks.put(None)  # what still waits for a script ends
        self.shutdown()
        self.server_close()

    def address(self, page):
        return f"http://127.0.0.1:{self.server_address[1]}/{page}"


class Page:
    """A page of `folder` in a browser, in which scripts run; a context manager.

    Parameters
    ----------
    folder : where the page is; a copy of it that follows this server is written there.
    page : its name.
    command : one of `browsers()`.
    as_file : is the page opened as a file, or by HTTP?
    """

    def __init__(self, folder, page, command, as_file=False):
        self.server, self.command, self.page = Server(folder), command, page
        follow = FOLLOW.replace("SERVER", self.server.address(""))
        text = (Path(folder) / page).read_text(encoding="utf-8")
        head, title, rest = text.partition("<title>")
        followed = Path(folder).resolve() / f"followed-{page}"
        followed.write_text(head + follow + title + rest, encoding="utf-8")
        self.address = followed.as_uri() if as_file else self.server.address(followed.name)
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)

    def __enter__(self):
        self.server.__enter__()
        places = {"profile": self.profile.name, "address": self.address}
        arguments = [part.format(**places) for part in self.command]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.browser = subprocess.Popen(arguments, **quiet)
        return self

    def __exit__(self, *error):
        self.browser.terminate()
        self.browser.wait()
        self.server.__exit__(*error)
        self.profile.cleanup()

    def run(self, script, given=None, timeout=120):
        """What `script`, the body of an asynchronous function of `given`, returns.

        PageError if the page has failed, or says nothing within `timeout` seconds.
        """
        self.server.tasks.put({"script": script, "given": given})
        try:
            answer = self.server.results.get(timeout=timeout)
        except queue.Empty:
            raise PageError(f"{self.page} did not answer within {timeout} s.") from None
        if "error" in answer:
            raise PageError(f"{self.page}: {answer['error']}")
        return answer["value"]
