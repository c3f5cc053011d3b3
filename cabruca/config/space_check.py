"""A parameter against the schema: what a trial would refuse is refused before the first trial."""

from __future__ import annotations

from cabruca.config.parameter import Parameter
from cabruca.config.schema import Config


def check_parameter(parameter: Parameter, base: Config) -> None:
    """Set it to its ends, to values between them and to every choice, on top of `base`.

    Raises:
        ConfigError: the schema does not know the key or refuses the value, or a study must not search it.
    """
