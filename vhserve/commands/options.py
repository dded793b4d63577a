"""The options that `calibrate`, `ablate`, `rankings` and `analyze` share, each once: words, order and defaults.

Each mixin holds one group of fields. Inherited fields come before a command's own in `--help`, those of the last base
first, so that a command lists its mixins from the last group to the first. A command that differs on purpose declares
the field again, which keeps its place. Does not know what the commands do.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field
from pydantic_settings import CliPositionalArg

from vhserve import option_types as words
from vhserve.option_types import BatchSize, BlockSize, Count, Samples, Seed


class ModelOption(BaseModel):
    """The model to measure."""

    model: str = Field("demo", description=words.MODEL)
    revision: str | None = Field(
        None, description="branch, tag or commit of a Hub model; the cached one, or the latest, if not given"
    )


class ProfileOptions(BaseModel):
    """A head profile, and the model to measure, which may be another copy of the profile's."""

    profile: CliPositionalArg[Path] = Field(description=words.PROFILE)
    model: str | None = Field(None, description=f"{words.MODEL}; the profile's own if not given")


class DatasetOption(BaseModel):
    """One dataset."""

    dataset: str = Field("synthetic", description=words.DATASET)


class DatasetsOption(BaseModel):
    """One dataset or several."""

    dataset: list[str] = Field(["synthetic"], description=f"{words.DATASET}; several, comma-separated, are compared")


class SampleOptions(BaseModel):
    """Which samples of the dataset."""

    split: str = Field("measuring", description=words.SPLIT)
    samples: Samples = 1000
    seed: Seed = Field(0, description=words.SEED)


class FamiliesOption(BaseModel):
    """Which question families of the dataset."""

    families: list[str] | None = Field(None, description=words.FAMILIES)


class ExecutionOptions(BaseModel):
    """How the model is run."""

    batch_size: BatchSize = 16
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="dtype of the weights; auto is the checkpoint's on a GPU, float32 on CPUs"
    )
    device: str = Field("auto", description="auto (the first GPU, or the CPU where there is none), cpu, cuda or cuda:N")
    chat_template: Path | None = Field(
        None,
        description="file with the chat template to write prompts with, as of a server; the model's own if not given",
    )


class ResultOptions(BaseModel):
    """Where the results go; every command names its own `out`."""

    out: Path
    restart: bool = Field(False, description="discard the state of an interrupted run")
    json_: bool = Field(False, alias="json", description=words.JSON)


class MaskedRunOptions(ResultOptions, ExecutionOptions, FamiliesOption, SampleOptions, DatasetOption, ProfileOptions):
    """A run that masks heads which a profile ranks, many selections of them on the same samples."""

    seed: Seed = Field(0, description=f"{words.SEED}, and of everything drawn at random")
    # Few enough for a layer of a small model to stay in a CPU's cache: with the demo model 8 beat 32 by half.
    batch_size: BatchSize = 8
    together: Count | None = Field(
        None, description="selections of heads in one forward pass; 1 on CPUs and 8 on GPUs if not given"
    )
    block_size: BlockSize | None = Field(None, description=words.BLOCK_SIZE)
