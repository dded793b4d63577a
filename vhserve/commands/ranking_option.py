"""The type of an option that names a ranking: help lists the usual ones, and any that the profile has is taken.

Does not know which a profile has: `profiles.planning.rankings` refuses the others and names those that are there.
"""

from typing import Annotated, Final, Literal

from pydantic import PlainValidator

from profiles.names import KnownRanking

# The annotation is what help shows; the validator, in the place of its own, takes any text.
AnyRanking = Annotated[KnownRanking, PlainValidator(str)]

AUTO: Final = "auto"
"""The best ranking that the profile holds (`profiles.planning.rankings.default_ranking`)."""

AutoRanking = Annotated[Literal["auto", KnownRanking], PlainValidator(str)]
