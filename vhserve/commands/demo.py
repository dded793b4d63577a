"""`vhserve demo`: its help, and the table at the end.

Does not know what the steps do: that, and the options, are in `vhserve.demo`.
"""

from typing import TYPE_CHECKING

from vhserve.demo.options import DemoOptions

if TYPE_CHECKING:
    from profiles.geometry import ModelGeometry


class Demo(DemoOptions):
    """Calibrate the demo model, prune it, serve it beside its unpruned self and a random control, and compare them.

    Everything runs on this machine, servers on loopback one after the other. The output folder gets the profile, the
    plan, the results, the logs, and report.html.
    """

    def cli_cmd(self) -> None:
        """Run the steps, then print the table."""
        from rich.console import Console

        from vhserve.demo.checks import check_options
        from vhserve.server.installation import check_vllm

        check_vllm()
        check_options(self, _geometry(self.model))

        from profiles.torchvision_import import ensure_torchvision
        from vhserve.demo.headline import headline
        from vhserve.demo.run import run
        from vhserve.demo.summary import summary_table

        ensure_torchvision()
        results = run(self, Console(stderr=True))
        console = Console(highlight=False, soft_wrap=True)
        console.print(summary_table(results))
        if (found := headline(results)) is not None:
            console.print(found.sentence, markup=False)


def _geometry(name: str) -> "ModelGeometry":
    """Sizes of a model's decoder; of models with a short name, without importing transformers.

    Raises
    ------
    UserError
        As `calibrate.models.registry.find`.
    """
    from calibrate.models.registry import KNOWN, find
    from profiles.geometry import ModelGeometry
    from profiles.transformers_config import decoder_geometry

    found = find(name)
    if (known := KNOWN.get(name)) is not None:
        return ModelGeometry(
            layers=known.layers,
            query_heads=known.query_heads,
            kv_heads=known.kv_heads,
            head_size=known.head_size,
            hidden_size=known.query_heads * known.head_size,
            image_tokens=known.image_tokens,
        )
    from transformers import AutoConfig

    return decoder_geometry(AutoConfig.from_pretrained(found.folder), image_tokens=0)
