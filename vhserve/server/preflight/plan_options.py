"""Do vLLM's flags go together with a plan, as far as the command line says it?

Asks what `vhserve.engine.checks` asks of the parsed command line later, once more. Does not know which flags those are.
"""

from profiles.pruning_plan import PruningPlan
from vhserve.engine.checks import partial_options, unsupported_options
from vhserve.engine.checks.surgery_choice import AskedSurgery, check_surgery_flags
from vhserve.server.preflight.flags import GivenFlags


def check_plan_options(flags: GivenFlags, plan: PruningPlan, surgery: AskedSurgery) -> None:
    """Refuse flags that do not go together with a plan, or with how its heads are to be chosen.

    Raises
    ------
    FlagRefused
    """
    arguments = flags.arguments()
    unsupported_options.check_arguments(arguments)
    check_surgery_flags(surgery, arguments)
    if plan.has_partial_heads:
        unsupported_options.check_arguments(arguments, partial_options.UNSUPPORTED_OPTIONS)
