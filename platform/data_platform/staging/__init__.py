"""The staging step: raw rows become staged rows. Expressions that repair values are in `cleaning`, rules in
`contracts`."""
