"""What the commands that measure a model do around the run: refuse early, open dataset and model, say how to continue.

Does not know what is measured. Importing it imports nothing of `calibrate`; its functions do, and before transformers
is imported they make torchvision importable.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vhserve.commands.options import ExecutionOptions, FamiliesOption, MaskedRunOptions, SampleOptions
from vhserve.devices import BLOCK_SIZES, serving_device
from vhserve.notes import print_note

if TYPE_CHECKING:
    from calibrate.datasets import Dataset, DividedDataset
    from calibrate.masking.masked_runs import MaskedRunSettings
    from calibrate.models.loading import LoadedModel
    from profiles.geometry import ModelGeometry, ModelRef
    from profiles.head_profile import DatasetRef, HeadProfile


def check_before_loading(
    model: str,
    outputs: Mapping[Path, str | None],
    inputs: Iterable[Path | str] = (),
    *,
    revision: str | None = None,
    preferred: str | None = None,
) -> None:
    """Refuse outputs that must not be written, and unknown, broken and quantised models, before torch is imported.

    Parameters
    ----------
    model, revision, preferred
        See `calibrate.models.measurable.find_measurable`.
    outputs
        Paths and the `format` of the document that each is to hold; None for pages and figures.
    inputs
        Files that the command reads, as paths, and the names of its datasets, as text.

    Raises
    ------
    UserError
        As `profiles.files.check_output`, `calibrate.datasets.check_name` and
        `calibrate.models.measurable.find_measurable`.
    """
    from calibrate.datasets import check_name
    from calibrate.models.measurable import find_measurable
    from profiles.files import check_output

    inputs = list(inputs)
    for path, document in outputs.items():
        check_output(path, document=document, inputs=inputs)
    for name in inputs:
        if isinstance(name, str):
            check_name(name)
    find_measurable(model, revision, preferred)


def open_dataset(name: str, options: SampleOptions) -> "DividedDataset":
    """Open a dataset, and say what is to be known of it.

    Raises
    ------
    UserError
        As `calibrate.datasets.open_dataset`.
    """
    from calibrate import datasets
    from profiles.torchvision_import import ensure_torchvision

    dataset = datasets.open_dataset(
        name,
        samples=options.samples,
        seed=options.seed,
        split=options.split,
        families=options.families if isinstance(options, FamiliesOption) else None,
    )
    ensure_torchvision()  # only now: it takes seconds, which a dataset that is refused need not cost
    if int(os.environ.get("RANK", "0")) == 0:  # torchrun's processes all open it
        dataset.announce(print_note)
    return dataset


def open_model(
    name: str,
    options: ExecutionOptions,
    *,
    device: str | None = None,
    revision: str | None = None,
    preferred: str | None = None,
) -> "LoadedModel":
    """Load a model; `device` stands in for that of the options.

    Raises
    ------
    UserError
        As `calibrate.models.loading.load_model`.
    """
    from profiles.torchvision_import import ensure_torchvision

    ensure_torchvision()
    from calibrate.models.chat_template import fallback_path, read_chat_template
    from calibrate.models.loading import load_model
    from calibrate.runs.progress import hashing_bar

    given = None if options.chat_template is None else read_chat_template(options.chat_template)
    loaded = load_model(
        name,
        options.dtype,
        device or options.device,
        chat_template=given,
        revision=revision,
        preferred=preferred,
        bar=hashing_bar,
    )
    if loaded.template.source == "fallback":
        print_note(
            f"model {name} has no chat template: prompts are written as such models were trained; a server refuses "
            "chat requests unless it is given a template, "
            f"such as --chat-template {fallback_path(loaded.model.config.model_type)}",
            "warning",
        )
    return loaded


def open_masked_run(
    options: MaskedRunOptions, profile: "HeadProfile", model: str, treatment: str
) -> tuple["LoadedModel", "Dataset", "MaskedRunSettings"]:
    """Open the dataset, check that the profile fits the model, load that, and put the settings of the run together.

    Of the dataset the samples are left that can show what the treatment does.

    Raises
    ------
    UserError
        As `open_dataset`, `profiles.planning.fit.check_fit`, `open_model` and `calibrate.masking.replies`.
    """
    from profiles.fingerprint import old_scheme_warning
    from profiles.planning.fit import check_fit

    dataset: Dataset = open_dataset(options.dataset, options)
    check_fit(
        profile,
        model_ref(model, like=profile.model.revision),
        decoder_sizes(model, preferred=profile.model.revision),
    )
    loaded = open_model(model, options, preferred=profile.model.revision)
    from calibrate.masking.replies import samples_asking

    dataset = samples_asking(dataset, loaded.answers, treatment, print_note)
    # What is only said comes after what is refused: a mistake is one line.
    say_overlap(profile, dataset.ref(), f"profile {options.profile}")
    if warning := old_scheme_warning(str(options.profile), profile.model.revision):
        print_note(warning, "warning")
    _say_template(profile, loaded, options.profile)
    _say_image_backend(profile, loaded, options.profile)
    from calibrate.masking.masked_runs import MaskedRunSettings

    run = MaskedRunSettings(
        options.out,
        options.batch_size,
        options.restart,
        block_size=options.block_size or BLOCK_SIZES[serving_device()],
        together=options.together,
    )
    return loaded, dataset, run


def model_ref(name: str, *, like: str, revision: str | None = None) -> "ModelRef":
    """What a model is, to be compared with what a document was made for, before it is loaded.

    Parameters
    ----------
    like
        Revision in the document: in whose scheme it is wanted, and preferred to others of a Hub model.
    revision
        Of a Hub model, if one was asked for.

    Raises
    ------
    UserError
        As `calibrate.models.registry.find` and `profiles.fingerprint.identify_model`.
    """
    from calibrate.models.registry import find
    from calibrate.runs.progress import hashing_bar
    from profiles.fingerprint import identify_model
    from profiles.geometry import ModelRef

    found = find(name, revision, like)
    identity = identify_model(found.folder, like, hashing_bar)
    return ModelRef(name=found.name, revision=identity.revision, architecture=found.architecture)


def say_overlap(profile: "HeadProfile", measured: "DatasetRef", made_of: str) -> None:
    """Say how many pictures a profile was made of are measured on, if there are any.

    Parameters
    ----------
    made_of
        What the profile is, in words.
    """
    from profiles.overlap import overlap

    found = overlap(profile.dataset, measured)
    if found is None:
        print_note(f"{made_of} does not record the pictures that it was made of: an overlap would not be found")
    elif (line := found.line(made_of)) is not None:
        print_note(line, "warning")


def _say_image_backend(profile: "HeadProfile", loaded: "LoadedModel", path: Path) -> None:
    """Say that pictures were resized otherwise for a profile than they are now, if they were."""
    used = profile.image_backend
    if used is not None and used != (now := loaded.image_backend):
        print_note(
            f"pictures of profile {path} were resized by {used}, and are now by {now}, as by the server", "warning"
        )


def _say_template(profile: "HeadProfile", loaded: "LoadedModel", path: Path) -> None:
    """Say that a profile was made with other prompts than those that are measured now, if it was."""
    from profiles.chat_template import TemplateRef

    used = TemplateRef.of_settings(profile.settings)
    if used is not None and not used.is_as(now := loaded.template.ref):
        print_note(f"profile {path} was made with chat template {used}; prompts are now written with {now}", "warning")


@contextmanager
def can_be_continued(out: Path, *, shown: bool = True) -> Iterator[None]:
    """End the command with the signal's exit code, and say how to continue, when a signal stops the block.

    Parameters
    ----------
    out
        Where the results go.
    shown
        Whether this process says so.
    """
    from calibrate.runs.interrupts import Stopped

    try:
        yield
    except Stopped as stop:
        if shown:
            from rich.console import Console

            line = f"vhserve: interrupted; nothing measured is lost: run the same command again to continue {out}"
            Console(stderr=True, soft_wrap=True, highlight=False).print(line, markup=False)
        raise SystemExit(stop.code) from None


def decoder_sizes(name: str, revision: str | None = None, preferred: str | None = None) -> "ModelGeometry":
    """Sizes of a model's decoder; of models with a short name, without importing transformers.

    Raises
    ------
    UserError
        As `calibrate.models.registry.find`.
    """
    from calibrate.models.known import KNOWN
    from calibrate.models.registry import find
    from profiles.geometry import ModelGeometry
    from profiles.transformers_config import decoder_geometry

    found = find(name, revision, preferred)
    if (known := KNOWN.get(name)) is not None:
        return ModelGeometry(
            layers=known.layers,
            query_heads=known.query_heads,
            kv_heads=known.kv_heads,
            head_size=known.head_size,
            hidden_size=known.hidden_size,
            image_tokens=known.image_tokens,
        )
    from profiles.torchvision_import import ensure_torchvision

    ensure_torchvision()
    from transformers import AutoConfig

    return decoder_geometry(AutoConfig.from_pretrained(found.folder), image_tokens=0)
