"""A server under the limits that the pod sets: read-only root file system, its user, its empty folders, no network.

In a sandbox of bubblewrap, whose file system is this machine's, read-only; flags, environment and folders are read off
the rendered Deployment and the Dockerfile, so that what is tested is what is deployed. No container runtime takes part.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from expressions import DEPLOY, ROOT
from test_kubernetes import WRITABLE, container, environment, pod
from tools import run, tool

pytestmark = [pytest.mark.long, pytest.mark.vllm, pytest.mark.timeout(600)]

ASK = """
import json, subprocess, sys, time, urllib.request
server = subprocess.Popen([sys.executable, "-m", "vhserve.cli", *sys.argv[1:]])
key = {"Authorization": "Bearer secret", "Content-Type": "application/json"}
base = "http://127.0.0.1:8000"
for _ in range(800):
    if server.poll() is not None:
        sys.exit(f"ended with {server.returncode}")
    try:
        urllib.request.urlopen(base + "/health", timeout=5)
        break
    except OSError:
        time.sleep(0.5)
body = {"model": "demo", "prompt": "how many red circles are there ?", "max_tokens": 2}
request = urllib.request.Request(base + "/v1/completions", json.dumps(body).encode(), key)
print("ANSWER", json.loads(urllib.request.urlopen(request, timeout=60).read())["choices"][0]["finish_reason"])
try:
    urllib.request.urlopen(urllib.request.Request(base + "/v1/models"), timeout=5)
except urllib.error.HTTPError as error:
    print("WITHOUT KEY", error.code)
server.terminate()
print("EXIT", server.wait(60))
"""


def dockerfile_environment() -> dict[str, str]:
    text = (DEPLOY / "docker" / "cpu.Dockerfile").read_text()
    (block,) = re.findall(r"^ENV (PATH=.*?[^\\])$", text, re.MULTILINE | re.DOTALL)
    return dict(word.split("=", 1) for word in block.replace("\\\n", " ").split())


def sandbox(scratch: Path) -> list[str]:
    """Command that runs another one with the pod's file system and user, and no network but loopback."""
    user = str(pod("cpu")["securityContext"]["runAsUser"])
    mounts = {mount["name"]: mount["mountPath"] for mount in container("cpu")["volumeMounts"]}
    (scratch / "nothing").mkdir()
    binds = []
    for path in WRITABLE:
        folder = scratch / path[1:]
        folder.mkdir(parents=True)
        os.chown(folder, int(user), int(user))
        binds += ["--bind", str(folder), path]
    # After the writable ones: the checkout may lie below one of them. Interpreters often lie in a home folder that
    # others cannot enter; in the sandbox its parents are new.
    code = {sys.base_prefix, sys.prefix, str(ROOT), *(entry for entry in sys.path if os.path.isdir(entry))}
    for path in ("/usr", "/etc", "/sys", *sorted(code)):
        if not (path.startswith("/usr/") or path in ("/", str(scratch))):
            for parent in reversed(Path(path).parents[:-1]):
                binds += ["--perms", "0755", "--dir", str(parent)]
            binds += ["--ro-bind", path, path]
    binds += [word for name in ("bin", "lib", "lib64") for word in ("--symlink", f"usr/{name}", f"/{name}")]
    return [
        *(tool("bwrap"), "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/dev/shm", *binds),
        *("--ro-bind", str(DEPLOY / "kubernetes" / "overlays" / "cpu"), mounts["plan"]),
        *("--ro-bind", str(scratch / "nothing"), mounts["models"], "--remount-ro", "/"),
        *("--unshare-net", "--unshare-pid", "--die-with-parent", "--chdir", "/cache"),
        *(tool("setpriv"), "--reuid", user, "--regid", user, "--clear-groups", "--no-new-privs"),
    ]


def environment_of_the_pod() -> dict[str, str]:
    """PATH is left out: programs are this machine's."""
    variables = {**dockerfile_environment(), **environment("cpu"), "VLLM_API_KEY": "secret"}
    kept = {name: value for name, value in variables.items() if name != "PATH"}
    return {**kept, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(os.path.isdir, sys.path)])}


def test_the_pod_s_limits_let_it_serve(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("takes root, to become the pod's user in a sandbox")
    run("bwrap", "--ro-bind", "/", "/", "true")
    command, variables = sandbox(tmp_path), environment_of_the_pod()
    tried = (
        "id -u; touch /cache/x /tmp/x /dev/shm/x && echo WRITES; for f in / /plan/ /models/ /etc/; do touch ${f}x; done"
    )
    done = subprocess.run([*command, "sh", "-c", tried], env=variables, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["10001", "WRITES"], done.stderr
    assert len(re.findall("Read-only file system|Permission denied", done.stderr)) == 4

    arguments = [re.sub(r"\$\((\w+)\)", lambda name: variables[name[1]], word) for word in container("cpu")["args"]]
    whole = [*command, sys.executable, "-c", ASK, *arguments]
    done = subprocess.run(whole, env=variables, capture_output=True, text=True, check=False, timeout=400)
    said = done.stdout + done.stderr
    assert re.search("ANSWER (length|stop)", said), said[-6000:]
    assert "WITHOUT KEY 401" in said
    assert "EXIT 0" in said
    assert "Read-only file system" not in said
    assert "Permission denied" not in said
