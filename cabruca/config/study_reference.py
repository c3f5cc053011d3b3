"""The tables of a study's keys in docs/tuning.md, from the schema: `python -m cabruca.config.study_reference`.

They stand on that page between `BEGIN` and `END`; a test checks that they are current. The line of a key is the comment
behind its field.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cabruca.config.keys import section_of
from cabruca.config.reference import table
from cabruca.config.study_schema import StudyConfig
from cabruca.errors import ConfigError

BEGIN = "<!-- keys of a study: written by `python -m cabruca.config.study_reference docs/tuning.md` -->"
END = "<!-- end of the keys of a study -->"


def main() -> None:
    """Print the tables; with a page as argument, put them into it."""
    if sys.argv[1:]:
        page = Path(sys.argv[1])
        page.write_text(put_into(page.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(tables(), end="")


def tables() -> str:
    """One table for the study's own keys and those in its sections."""
    parts = [table(StudyConfig, "")]
    for name, field in StudyConfig.model_fields.items():
        section = section_of(field.annotation)
        if section is not None:
            parts.append(f"`{name}`:\n\n{table(section, f'{name}.')}")
    return "\n".join(parts)


def put_into(text: str) -> str:
    """The page with today's tables between its marks.

    Raises:
        ConfigError: it lacks the marks.
    """
    if BEGIN not in text or END not in text:
        raise ConfigError(f"the page has no place for the keys of a study; add the lines '{BEGIN}' and '{END}'")
    before, rest = text.split(BEGIN, 1)
    return f"{before}{BEGIN}\n\n{tables()}\n{END}{rest.split(END, 1)[1]}"


if __name__ == "__main__":
    main()
