"""What all tests share: nothing is fetched, and torchvision imports whichever build is installed."""

import os
import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in a shell's background jobs: programs that tests start would inherit it, and Ctrl-C would not end them.
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")

from profiles.torchvision_import import ensure_torchvision  # the settings above come before any import

ensure_torchvision()

pytest_plugins = ["model_fixtures", "seeds", "workers"]
