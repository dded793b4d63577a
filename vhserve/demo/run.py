"""The demo from its first step to its report.

Owns the order and what is written at the end. Knows no flags and no figures.
"""

import os
import platform
import time

from pydantic import JsonValue
from rich.console import Console

from profiles.files import write_atomically
from profiles.store import load_plan
from vhserve.demo.arms import DemoArm
from vhserve.demo.processes import ending_on_signals
from vhserve.demo.results import DemoArmResult, DemoResults
from vhserve.demo.steps import DemoSettings, calibrate, measure_arm, plan
from vhserve.evaluation import provenance
from vhserve.evaluation.attach import attach
from vhserve.evaluation.pairing import pair
from vhserve.evaluation.results import save
from vhserve.report.page import render


def run(settings: DemoSettings, arms: list[DemoArm], arguments: dict[str, JsonValue], console: Console) -> DemoResults:
    """Run every step; leaves `results.json` and `report.html`, and the plans with what was measured of them.

    Raises
    ------
    profiles.errors.UserError
        When a step fails: which one, and where its log is.
    """
    started, clock = provenance.now(), time.perf_counter()
    settings.out.mkdir(parents=True, exist_ok=True)

    def say(step: str) -> None:
        console.print(f"[{time.perf_counter() - clock:5.0f} s] {step}", markup=False, highlight=False)

    with ending_on_signals():
        say(f"calibrating {settings.model} on {settings.calibration_samples} synthetic samples")
        profile = calibrate(settings)
        paths = {}
        for arm in arms:
            if arm.plan is not None:
                say(f"planning {arm.name}: {' '.join(arm.plan)}")
            paths[arm.name] = plan(settings, arm)
        measured: list[DemoArmResult] = []
        for arm in arms:
            say(f"serving {arm.name} and measuring it ({settings.samples} samples, then the latencies)")
            measured.append(measure_arm(settings, arm, paths[arm.name], profile))

    first = measured[0]
    dataset = settings.open_samples().ref()
    for one in measured[1:]:
        path = paths[one.name]
        if path is not None:
            attach(path, dataset.name, [first.accuracy, one.accuracy])
    results = DemoResults(
        model=profile.model.name,
        revision=profile.model.revision,
        dataset=dataset,
        profile_digest=profile.digest,
        kv_cache_gib=settings.kv_cache_gib,
        arms=measured,
        paired=[row for one in measured[1:] for row in pair(first.accuracy, one.accuracy)],
        arguments=arguments,
        machine={"system": platform.platform(), "processors": os.cpu_count()},
        versions=provenance.versions(),
        commit=provenance.commit(),
        started=started,
        seconds=time.perf_counter() - clock,
    )
    save(results, settings.out / "results.json")
    plans = {name: load_plan(path) for name, path in paths.items() if path is not None}
    write_atomically(settings.out / "report.html", render(results, profile, plans))
    return results
