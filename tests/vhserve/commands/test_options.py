"""Options that several commands have: the same words; among those that measure models, the same order and defaults."""

from itertools import pairwise

import pytest

from vhserve.command_line import Vhserve
from vhserve.commands.ablate import Ablate
from vhserve.commands.analyze import Analyze
from vhserve.commands.calibrate import Calibrate
from vhserve.commands.flags import all_commands, options
from vhserve.commands.rankings import Rankings

COMMANDS = {"calibrate": Calibrate, "ablate": Ablate, "rankings": Rankings, "analyze": Analyze}
ORDER = [
    *(
        "model",
        "revision",
        "dataset",
        "split",
        "samples",
        "seed",
        "families",
        "batch_size",
        "dtype",
        "device",
        "chat_template",
    ),
    *("out", "restart", "json_", "together", "block_size"),
]
DIFFER_ON_PURPOSE = {
    "model": ({"calibrate", "analyze"}, {"ablate", "rankings"}),  # one without a profile, one with
    "dataset": ({"calibrate", "ablate", "rankings"}, {"analyze"}),  # which compares several
    "split": ({"calibrate"}, {"ablate", "rankings"}, {"analyze"}),  # heads are not chosen by what they are judged on
    "samples": ({"calibrate"}, {"ablate"}, {"rankings"}, {"analyze"}),
    "seed": ({"calibrate", "analyze"}, {"ablate", "rankings"}),  # which draw at random
    "batch_size": ({"calibrate", "analyze"}, {"ablate", "rankings"}),
    "out": ({"calibrate"}, {"ablate"}, {"rankings"}, {"analyze"}),
}
"""By option, the commands that agree on it; all do on what is not here."""


def shared(command):
    own = ("block_size",) if command == "calibrate" else ()  # there one of its own, behind --effects
    return [name for name in COMMANDS[command].model_fields if name in ORDER and name not in own]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_order_is_the_same_and_they_come_first(command):
    names = shared(command)
    assert names == [name for name in ORDER if name in names]
    fields = [name for name in COMMANDS[command].model_fields if name != "profile"]
    assert fields[: len(names)] == names


@pytest.mark.parametrize("name", ORDER)
def test_the_words_and_defaults_are_the_same(name):
    having = {command for command in COMMANDS if name in COMMANDS[command].model_fields}
    groups = DIFFER_ON_PURPOSE.get(name, (having,))
    assert set().union(*groups) == having
    said = [{words_and_default(command, name) for command in group} for group in groups]
    assert all(len(one) == 1 for one in said), said
    assert all(one != other for one, other in pairwise(said)), "these agree now; take the exception out"


def words_and_default(command, name):
    field = COMMANDS[command].model_fields[name]
    return field.description, str(field.default)


ONE_WORD_TWO_MEANINGS = {
    "--block-size",  # of calibrate's effects, of masks, of a server
    "--compare",  # a second address, or whether there are two
    "--concurrency",  # requests, streams, or several numbers of streams
    "--dataset",  # one, or several to compare
    "--dtype",  # of the model, of the savings, of servers
    "--json",  # instead of tables, or of what --dry-run says
    "-k",  # of the table, or of the analysis' own
    "--model",  # to measure, the profile's own, as served
    "--out",
    "--output-tokens",
    "--rank-by",  # with and without auto and other projects' rankings
    "--requests",
    "--samples",  # of all, of each dataset, of each arm
    "--seed",  # of samples, and of what else is drawn
    "--select",  # with and without random
    "--split",  # whose default is another where heads are chosen
    "--table",  # to draw, or to compare
    "--top",  # the same
    "--treatment",  # the same, or what is done
    "--granularity",  # what is shown, what is treated
}
"""Flags whose words differ between commands, because what they mean does."""


def test_the_same_flag_has_the_same_words_in_every_command():
    words = {}
    for _, model in all_commands(Vhserve):
        for flag, field in options(model).items():
            words.setdefault(flag, set()).add(field.description)
    assert {flag for flag, said in words.items() if len(said) > 1} - ONE_WORD_TWO_MEANINGS == set()
