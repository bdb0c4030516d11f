"""`python -m data_platform.cli`: the same as `dp`, where the scripts of the environment are not on the path."""

from data_platform.cli import main

main()
