"""How good the draws are: R-hat, effective sample sizes, errors of estimates, and a verdict."""
