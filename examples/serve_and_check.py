"""Serve a merged model with vLLM or SGLang, evaluate it there, and see whether it answers like the local one.

    python examples/serve_and_check.py runs/damage/merged photos/ [--engine vllm] [--program "docker run ... "]

The folder has a folder of photos for each class. The local model is asked first and leaves the GPU before the server
starts; answers are kept in `runs/serving`. Without a server it prints the commands and says what to install.
"""

import argparse
import importlib.util
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import vlm_tune as vt
from vlm_tune.serving import ServerCommand

INSTALLED = {
    "vllm": lambda: shutil.which("vllm") is not None,
    "sglang": lambda: importlib.util.find_spec("sglang") is not None,
}


def words(command: ServerCommand, program: str | None, port: int | None) -> list[str]:
    """The command as it is started here: by another program, or at another port, where they are given."""
    begin = 2 if command.engine == "vllm" else 3
    start = shlex.split(program) if program else [*command.argv[:begin]]
    start = [sys.executable if word == "python" and not program else word for word in start]
    rest = list(command.argv[begin:])
    if port is not None:
        rest[rest.index("--port") + 1] = str(port)
    return [*start, *rest]


def wait_until_healthy(server: subprocess.Popen[bytes], origin: str, *, patience_s: float, log: Path) -> None:
    """Return when the server answers; end with the last lines of its log where it never does."""
    give_up = time.monotonic() + patience_s
    while time.monotonic() < give_up and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{origin}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    why = f"ended with status {server.returncode}" if server.poll() is not None else f"was not up in {patience_s:g} s"
    last = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
    sys.exit(f"The server {why}. The end of {log}:\n{last}")


def stop(server: subprocess.Popen[bytes]) -> None:
    """End the server and the processes it started."""
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("merged", type=Path, help="what Adapter.merge wrote")
parser.add_argument("photos", type=Path, help="a folder of photos for each class")
parser.add_argument("--engine", choices=("vllm", "sglang"), help="which server; by default the one that is installed")
parser.add_argument("--program", help="what takes the options in place of `vllm serve`, such as a container")
parser.add_argument("--port", type=int, help="another port than the server's usual one")
parser.add_argument("--patience", type=float, default=900, help="seconds the server may take to start")
parser.add_argument("--answer", choices=("score", "generate"), default="score", help="how the local model answers")
arguments = parser.parse_args()

check = vt.serving_check(arguments.merged)
check.show()
check.raise_if_failed()
usual = "vllm" if arguments.program else next((name for name, here in INSTALLED.items() if here()), None)
engine = arguments.engine or usual
if engine is None or not (arguments.program or INSTALLED[engine]()):
    sys.exit(
        "No server was started: neither vLLM nor SGLang is installed here (`pip install vllm`, or `pip install sglang`, "
        "best into an environment of its own). The commands above start one wherever there is."
    )

task = vt.MergeReport.load(arguments.merged).task
data = vt.Dataset.from_folder(arguments.photos, task=task).split(test=0.25, seed=0)
evaluator = vt.Evaluator(data.test, run_dir="runs/serving")
local = vt.VLM(arguments.merged, answer=arguments.answer)
before = evaluator.run(local)
local.unload()

command = check.command(engine)
url = command.url if arguments.port is None else f"http://127.0.0.1:{arguments.port}/v1"
log = Path("runs/serving/server.log")
with log.open("wb") as file:
    server = subprocess.Popen(
        words(command, arguments.program, arguments.port), stdout=file, stderr=file, start_new_session=True
    )
try:
    wait_until_healthy(server, url.removesuffix("/v1"), patience_s=arguments.patience, log=log)
    served = vt.OpenAICompatible(url, command.model, name=f"{command.model} on {engine}")
    after = evaluator.run(served)
    parity = vt.serving_parity(local, served, data.test, run_dir="runs/serving")
finally:
    stop(server)

print(f"local {before.accuracy}, served {after.accuracy}")
parity.show()
parity.save("runs/serving/parity.parquet")
