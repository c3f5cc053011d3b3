"""report.html: what a study found, on one page that needs nothing else.

`page` puts it together, `plots` draws, `cautions` says what not to believe, `parts` reads autopsies and repeats.
"""

from cabruca.study_report.page import write_report

__all__ = ["write_report"]
