"""`python -m cabruca` is `cabruca`."""

from cabruca.cli.main import main

main()
