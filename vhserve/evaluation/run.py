"""One evaluation: checks first, then the requests, then the files.

Owns the order, so that nothing is asked when the end could not be written. Asks, scores and pairs elsewhere.
"""

from calibrate.datasets import Dataset, open_dataset
from profiles.files import check_output
from profiles.head_profile import DatasetRef
from profiles.overlap import overlap
from profiles.pruning_plan import PLAN_FORMAT
from profiles.store import load_plan
from vhserve.evaluation import provenance
from vhserve.evaluation.arms import arm_names, ask_arm
from vhserve.evaluation.attach import attach, check_served
from vhserve.evaluation.client import RequestLimits
from vhserve.evaluation.errors import ResultsMismatch
from vhserve.evaluation.evicted import unseen_heads
from vhserve.evaluation.keys import api_key
from vhserve.evaluation.options import EvaluationOptions
from vhserve.evaluation.pairing import pair
from vhserve.evaluation.results import Arm, Evaluation, load, save
from vhserve.evaluation.server import identify
from vhserve.evaluation.server_metrics import evicted_heads, metrics_text
from vhserve.notes import notes_once, print_note


def evaluate(options: EvaluationOptions) -> Evaluation:
    """Carry out what the options of `vhserve evaluate` ask for.

    Raises
    ------
    profiles.errors.UserError
        Whatever the user got wrong: addresses, names, files, keys.
    """
    if options.compare is not None and options.against is not None:
        raise ResultsMismatch(
            "--compare and --against are both given", expected="one second arm", fix="leave one of them out"
        )
    if options.out is not None:
        read = [path for path in (options.against, options.attach, options.dataset) if path is not None]
        check_output(options.out, document=Evaluation.model_fields["format"].default, inputs=read)
    if options.attach is not None:
        check_output(options.attach, document=PLAN_FORMAT)
    key = api_key(options.api_key_env)
    dataset = _open(options)
    earlier = _earlier(options, dataset.ref())
    addresses = [address for address in (options.base_url, options.compare) if address is not None]
    servers = [identify(address, options.model, key) for address in addresses]
    shared = None
    if options.attach is not None:
        plan = load_plan(options.attach)
        for server in servers:
            check_served(plan, server, options.attach)
        if (found := overlap(plan.chosen_on, dataset.ref())) is not None:
            shared = found.shared
            if (line := found.line(f"plan {options.attach}")) is not None:
                print_note(line, "warning")

    started = provenance.now()
    names = arm_names([*([earlier.server] if earlier else []), *servers])
    arms = [earlier.model_copy(update={"name": names[0]})] if earlier else []
    limits = RequestLimits(options.concurrency, options.timeout, options.max_tokens)
    broken: list[str] = []
    for name, server in zip(names[len(arms) :], servers, strict=True):
        asked = ask_arm(name, server, dataset, limits, key)
        arms.append(asked.arm)
        if (line := unseen_heads(asked.arm, evicted_heads(metrics_text(server.base_url)))) is not None:
            print_note(line, "warning")
        broken = asked.broken

    evaluation = Evaluation(
        dataset=dataset.ref(),
        samples=len(arms[-1].answers),
        broken=broken,
        shared_pictures=shared,
        seed=options.seed,
        arms=arms,
        paired=pair(*arms) if len(arms) == 2 else [],
        arguments=options.model_dump(mode="json", include=set(EvaluationOptions.model_fields)),
        versions=provenance.versions(),
        commit=provenance.commit(),
        started=started,
    )
    if options.out is not None:
        save(evaluation, options.out)
    if options.attach is not None and all(arm.answered for arm in arms):
        attach(options.attach, evaluation.dataset, arms[1:] if earlier else arms)
    return evaluation


def _open(options: EvaluationOptions) -> Dataset:
    dataset = open_dataset(
        options.dataset,
        samples=options.samples,
        seed=options.seed,
        split=options.split,
        families=options.families,
    )
    dataset.announce(notes_once())  # every arm leaves the same samples out
    return dataset


def _earlier(options: EvaluationOptions, dataset: DatasetRef) -> Arm | None:
    if options.against is None:
        return None
    evaluation = load(options.against)
    if evaluation.dataset != dataset:
        theirs, ours = _told(evaluation.dataset), _told(dataset)
        differing = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)] or ["pictures"]
        of_theirs, of_ours = (
            ", ".join(f"{name} {'of its own' if told.get(name) is None else told[name]}" for name in differing)
            for told in (theirs, ours)
        )
        raise ResultsMismatch(
            f"{options.against} holds results of {of_theirs}, and this run is of {of_ours}",
            expected="results on the same samples",
            fix="give the --dataset, --split, --samples, --families and --seed of the earlier run",
        )
    return evaluation.arms[-1]


def _told(dataset: DatasetRef) -> dict[str, str | int | float | bool | None]:
    """What a dataset's samples are known by, in words."""
    described = {
        name: "all" if name == "families" and not value else value for name, value in dataset.described().items()
    }
    return {"dataset": dataset.name, "split": dataset.split, "content": dataset.digest, **described}
