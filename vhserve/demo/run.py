"""The demo from its first step to its report.

Owns the order and what is written at the end. Knows no flags and no figures.
"""

import os
import platform
import time
from pathlib import Path

from rich.console import Console

from profiles.errors import FileUnwritable
from profiles.files import check_output, write_atomically
from profiles.head_profile import PROFILE_FORMAT
from profiles.store import load_plan
from vhserve.child_processes import ending_on_signals
from vhserve.demo.arms import demo_arms
from vhserve.demo.options import DemoOptions
from vhserve.demo.page import render
from vhserve.demo.results import DemoArmResult, DemoResults
from vhserve.demo.steps import calibrate, measure_arm, open_samples, plan
from vhserve.evaluation import provenance
from vhserve.evaluation.attach import attach
from vhserve.evaluation.failures import silent
from vhserve.evaluation.pairing import pair
from vhserve.evaluation.results import save


def run(options: DemoOptions, console: Console) -> DemoResults:
    """Run every step; leaves `results.json` and `report.html`, and the plans with what was measured of them.

    Raises
    ------
    profiles.errors.FileUnwritable
        When the output folder cannot be made or written.
    profiles.errors.UserError
        When a step fails: which one, and where its log is.
    """
    _check_folder(options.out)
    arms = demo_arms(options)
    started, clock = provenance.now(), time.perf_counter()

    def log(step: str) -> None:
        console.print(f"[{time.perf_counter() - clock:5.0f} s] {step}", markup=False, highlight=False)

    with ending_on_signals():
        log(f"calibrating {options.model} on {options.calibration_samples} synthetic samples")
        profile = calibrate(options, log)
        paths = {}
        for arm in arms:
            if arm.plan is not None:
                log(f"planning {arm.name}: {' '.join(arm.plan)}")
            paths[arm.name] = plan(options, arm)
        measured: list[DemoArmResult] = []
        for arm in arms:
            log(f"serving {arm.name} and measuring it ({options.samples} samples, then the latencies)")
            measured.append(measure_arm(options, arm, paths[arm.name], profile))

    first = measured[0]
    dataset = open_samples(options).ref()
    for one in measured[1:]:
        path = paths[one.name]
        if path is not None and not silent([first.accuracy, one.accuracy]):
            attach(path, dataset, [first.accuracy, one.accuracy])
    plans = {name: load_plan(path) for name, path in paths.items() if path is not None}
    results = DemoResults(
        model=profile.model.name,
        revision=profile.model.revision,
        dataset=dataset,
        profile_digest=profile.digest,
        kv_cache_gib=options.kv_cache_gib,
        heads_together=max((one.heads_together for one in plans.values()), default=1),
        arms=measured,
        paired=[row for one in measured[1:] for row in pair(first.accuracy, one.accuracy)],
        arguments=options.model_dump(mode="json", include=set(DemoOptions.model_fields)),
        machine={"system": platform.platform(), "processors": os.cpu_count()},
        versions=provenance.versions(),
        commit=provenance.commit(),
        started=started,
        seconds=time.perf_counter() - clock,
    )
    save(results, options.out / "results.json")
    write_atomically(options.out / "report.html", render(results, profile, plans))
    return results


def _check_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileUnwritable(
            f"cannot make folder {out}: {error.strerror}",
            expected="a folder that can be written",
            fix="give another --out",
        ) from error
    results: str = DemoResults.model_fields["format"].default
    for name, document in (("profile.json", PROFILE_FORMAT), ("results.json", results), ("report.html", None)):
        check_output(out / name, document=document)
