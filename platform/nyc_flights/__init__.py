"""A whole platform, on the flights that left New York in 2013: what a company copies and replaces by its own."""
